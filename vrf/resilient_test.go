package vrf_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/vrf"
)

// resilient is a want of one resilient group per family with the given members:
// "a" to "e" are gateways on eth1, "z" is one on eth2, "-" is a blackhole. A digit
// after a member is its weight.
func resilient(members string, r vrf.Resilient) vrf.Config {
	var c vrf.Config
	for _, ipv6 := range []bool{false, true} {
		g := vrf.Group{ID: vrf.GroupIDFor(owner, fmt.Sprint("resilient", ipv6)), Resilient: r}
		for _, m := range strings.Fields(members) {
			n := vrf.NextHop{Device: "eth1", IPv6: ipv6, OnLink: true, Gateway: addr(fmt.Sprintf("192.0.2.%d", m[0]))}
			if ipv6 {
				n.Gateway = addr(fmt.Sprintf("fe80::%d", m[0]))
			}
			switch m[0] {
			case 'z':
				n.Device = "eth2"
			case '-':
				n = vrf.NextHop{Blackhole: true, IPv6: ipv6}
			}
			n = hop(n)
			c.NextHops = append(c.NextHops, n)
			weight := uint16(1)
			if len(m) > 1 {
				weight = uint16(m[1]-'0') * 20
			}
			g.Members = append(g.Members, vrf.Member{ID: n.ID, Weight: weight})
		}
		c.Groups = append(c.Groups, g)
		to, any := "10.0.0.0/24", "0.0.0.0/0"
		if ipv6 {
			to, any = "2001:db8::/48", "::/0"
		}
		c.Routes = append(c.Routes,
			vrf.Route{Table: 5000, Prefix: prefix(to), Metric: 20, Type: vrf.Unicast, NextHop: g.ID},
			vrf.Route{Table: 5000, Prefix: prefix(any), Metric: fallbackMetric, Type: vrf.Unreachable})
	}
	return c
}

// TestKernelResilient takes resilient groups through all changes that they may meet.
func TestKernelResilient(t *testing.T) {
	r := newRig(t)
	plain := vrf.Resilient{Buckets: 32, IdleTimer: 2 * time.Second, UnbalancedTimer: 20 * time.Millisecond}
	slow := vrf.Resilient{Buckets: 32, IdleTimer: 120 * time.Second}
	for _, step := range []struct {
		members string
		kind    vrf.Resilient
		groups  int // replaced
	}{
		{"-", plain, 0}, {"a", plain, 2}, {"a b c d", plain, 2}, {"b c d", plain, 2}, {"e b c d", plain, 2}, {"a b c d", plain, 2},
		{"a1 b2 c9 d", plain, 2}, {"a1 b2 c9 d", slow, 2}, {"a b z", slow, 2}, {"-", slow, 2}, {"z a", slow, 2},
	} {
		r.step = fmt.Sprint(step)
		replaced := 0
		plan := r.reach(resilient(step.members, step.kind))
		for _, op := range plan.Ops {
			switch a := op.Action.(type) {
			case vrf.PutGroup:
				if a.Replace {
					replaced++
				}
			case vrf.PutRoute:
				if step.groups > 0 {
					t.Errorf("%s: step %q", r.step, a)
				}
			}
		}
		if replaced != step.groups {
			t.Errorf("%s: %d groups replaced, not %d:\n%s", r.step, replaced, step.groups, plan)
		}
	}
	want := resilient("z a", slow)
	r.plug("eth1", false) // a member goes
	r.plug("eth1", true)
	r.repaired(want)
	r.plug("eth1", false)
	r.plug("eth2", false) // the last member, the group and its routes go
	if have := snapshot(t, r.real).Config; len(have.Groups) > 0 || len(have.Routes) != 2 {
		t.Errorf("without any member there are groups %v and routes %v", have.Groups, have.Routes)
	}
	r.plug("eth1", true)
	r.plug("eth2", true)
	r.repaired(want)
	for _, kind := range []vrf.Resilient{{}, {Buckets: 8}, {Buckets: 16}, plain} {
		r.step = fmt.Sprintf("kind %+v under the same id", kind)
		r.repaired(resilient("z a", kind))
	}
	r.step = "teardown"
	r.reach(vrf.Config{})
}

// TestKindUnderOneID: when a group of another kind cannot be deleted, or that which is
// to take its place cannot be made, the next plan mends it.
func TestKindUnderOneID(t *testing.T) {
	for n := 1; ; n++ {
		k, want := ports(), resilient("a b", vrf.Resilient{})
		must(t, k.Do(vrf.SetUp{Device: "eth1"}))
		must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
		want = resilient("a b", vrf.Resilient{Buckets: 8})
		plan := vrf.Diff(snapshot(t, k), want)
		if n > len(plan.Ops) {
			return
		}
		k.FailNth(n, errInjected)
		if err := k.Apply(t.Context(), plan).Err(); !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		k.FailIf(nil)
		must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
		if diff := sameConfig(want, snapshot(t, k).Config); diff != "" {
			t.Errorf("step %d failing: -want +have:\n%s", n, diff)
		}
	}
}

// TestResilientMistakes: timers that the kernel cannot have are told.
func TestResilientMistakes(t *testing.T) {
	for _, bad := range []vrf.Resilient{{Buckets: 1, IdleTimer: -time.Second}, {Buckets: 1, UnbalancedTimer: 1 << 62}} {
		plan := vrf.Diff(snapshot(t, ports()), resilient("a", bad))
		if len(plan.Errors) != 2 || !strings.Contains(plan.Errors[0].Error(), "a timer of") {
			t.Errorf("%+v gives errors %v", bad, plan.Errors)
		}
	}
}
