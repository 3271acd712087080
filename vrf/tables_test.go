package vrf_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// withPath gives network red of overlapping one more table, with a mark of its own.
func withPath() vrf.Config {
	c := overlapping()
	c.VRFs[0].Tables = []vrf.TableID{10101}
	for _, r := range c.Routes {
		if r.Table == 10001 {
			r.Table = 10101
			c.Routes = append(c.Routes, r)
		}
	}
	for _, r := range c.Rules {
		if r.Table == 10001 {
			r.Table, r.Mark = 10101, 0x10650000
			c.Rules = append(c.Rules, r)
		}
	}
	return c
}

func of10101(a vrf.Action) bool { return strings.Contains(a.String(), " 10101") }

// TestMoreTables: routes and rules of a network's further tables belong to it, while
// they are wanted and when they go, and stand or fall with it.
func TestMoreTables(t *testing.T) {
	k := ports()
	for _, step := range []struct {
		want vrf.Config
		ops  int // on the table
	}{{withPath(), 6}, {overlapping(), 6}, {withPath(), 6}, {vrf.Config{}, 6}} {
		plan, ops := vrf.Diff(snapshot(t, k), step.want), 0
		for _, op := range plan.Ops {
			if !of10101(op.Action) {
				continue
			}
			ops++
			if op.Network != "red" {
				t.Errorf("step %q is of network %q", op, op.Network)
			}
		}
		if ops != step.ops {
			t.Errorf("%d steps on the table, want %d:\n%s", ops, step.ops, plan)
		}
		must(t, k.Apply(t.Context(), plan).Err())
		if diff := sameConfig(step.want, snapshot(t, k).Config); diff != "" {
			t.Errorf("-want +have:\n%s", diff)
		}
	}
}

// TestMoreTablesFail: a failure there is the network's, no lookup stands without its
// fallback, and while a lookup of it cannot be deleted, the VRF stays.
func TestMoreTablesFail(t *testing.T) {
	k := ports()
	k.FailIf(func(a vrf.Action) error {
		if put, ok := a.(vrf.PutRoute); ok && put.Route.Table == 10101 {
			return errInjected
		}
		return nil
	})
	failed := k.Apply(t.Context(), vrf.Diff(snapshot(t, k), withPath())).Failed()
	if len(failed) != 1 || failed["red"] == nil {
		t.Errorf("failed: %v", failed)
	}
	if open := openLookups(snapshot(t, k).Config); len(open) > 0 {
		t.Errorf("open: %v", open)
	}
	k.FailIf(nil)
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), withPath())).Err())
	k.FailIf(func(a vrf.Action) error {
		if del, ok := a.(vrf.DeleteRule); ok && del.Rule.Table == 10101 {
			return errInjected
		}
		return nil
	})
	k.Apply(t.Context(), vrf.Teardown(snapshot(t, k)))
	have := snapshot(t, k).Config
	if len(have.VRFs) != 1 || have.VRFs[0].Name != "red" || len(openLookups(have)) > 0 {
		t.Errorf("left over: %+v", have)
	}
}

// TestTablesInTheWay: tables that others have, and foreign routes in ours.
func TestTablesInTheWay(t *testing.T) {
	for name, test := range map[string]struct {
		message string
		spoil   func(*vrftest.Kernel, *vrf.Config)
	}{
		"of another network": {"table 10002 is also network", func(_ *vrftest.Kernel, c *vrf.Config) { c.VRFs[0].Tables[0] = 10002 }},
		"of another's paths": {"table 10101 is also network", func(_ *vrftest.Kernel, c *vrf.Config) { c.VRFs[1].Tables = []vrf.TableID{10101} }},
		"of a foreign VRF": {`table 10101 belongs to VRF "theirs"`, func(k *vrftest.Kernel, _ *vrf.Config) {
			k.AddLink(vrf.Link{Name: "theirs", Kind: "vrf", Table: 10101})
		}},
		"a foreign route": {"a route that is not ours has its place", func(k *vrftest.Kernel, c *vrf.Config) {
			must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), *c)).Err())
			k.AddForeignRoute(vrf.Route{Table: 10101, Prefix: prefix("10.7.0.0/16"), Metric: 20, Type: vrf.Blackhole}, 77)
			mine := c.Routes[0]
			mine.Table, mine.Prefix = 10101, prefix("10.7.0.0/16")
			c.Routes = append(c.Routes, mine)
		}},
	} {
		k, want := ports(), withPath()
		test.spoil(k, &want)
		plan := vrf.Diff(snapshot(t, k), want)
		if len(plan.Errors) == 0 || plan.Errors[0].Network == "" || !strings.Contains(plan.Errors[0].Error(), test.message) {
			t.Errorf("%s: no error %q in\n%s", name, test.message, plan)
		}
		must(t, k.Apply(t.Context(), plan).Err())
		if again := vrf.Diff(snapshot(t, k), want); !again.Empty() {
			t.Errorf("%s: left:\n%s", name, again)
		}
	}
}

// TestKernelForeignRoutes: the real kernel's routes of others are read where routes or
// lookups of ours are, and nowhere else.
func TestKernelForeignRoutes(t *testing.T) {
	r := newRig(t)
	for _, table := range []string{"5000", "5001", "main"} {
		r.gw.Must("ip", "route", "add", "blackhole", "198.18.0.0/15", "table", table, "proto", "77")
		r.gw.Must("ip", "-6", "route", "add", "blackhole", "2001:db8:77::/48", "table", table, "proto", "77")
	}
	if foreign := snapshot(t, r.real).Foreign.Routes; len(foreign) > 0 {
		t.Errorf("without anything of ours: %v", foreign)
	}
	must(t, r.real.Apply(t.Context(), vrf.Diff(snapshot(t, r.real), routing("192.0.2.1"))).Err())
	want := []vrf.Route{
		{Table: 5000, Prefix: prefix("198.18.0.0/15"), Type: vrf.Blackhole},
		{Table: 5000, Prefix: prefix("2001:db8:77::/48"), Type: vrf.Blackhole, Metric: 1024},
	}
	if foreign := snapshot(t, r.real).Foreign.Routes; !slices.Equal(foreign, want) {
		t.Errorf("foreign routes %v, want %v", foreign, want)
	}
	must(t, r.real.Apply(t.Context(), vrf.Plan{Ops: []vrf.Op{{Action: vrf.AddRule{
		Rule: vrf.Rule{Priority: 811, Mark: 1, Mask: 1, Action: vrf.RuleLookup, Table: 5001}}}}}).Err())
	if foreign := snapshot(t, r.real).Foreign.Routes; len(foreign) != 4 {
		t.Errorf("with a lookup: %v", foreign)
	}
}
