package vrf_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

func sameSnapshot(a, b vrf.Snapshot) string {
	return gocmp.Diff(a, b, cmpopts.EquateEmpty(),
		gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

// followable says that a plan changes next hops, groups, routes and rules only.
func followable(p vrf.Plan) bool {
	return !slices.ContainsFunc(p.Ops, func(op vrf.Op) bool {
		switch op.Action.(type) {
		case vrf.PutNextHop, vrf.PutGroup, vrf.DeleteNextHop, vrf.PutRoute, vrf.DeleteRoute, vrf.AddRule, vrf.DeleteRule:
			return false
		}
		return true
	})
}

// follow applies a plan in both ways and compares.
func follow(t *testing.T, seed uint64, k *vrftest.Kernel, plan vrf.Plan) (followed bool) {
	t.Helper()
	before := snapshot(t, k)
	got, ok := plan.ApplyTo(before)
	if diff := sameSnapshot(before, snapshot(t, k)); diff != "" {
		t.Fatalf("seed %d: the snapshot has been changed:\n%s", seed, diff)
	}
	if ok != followable(plan) {
		t.Fatalf("seed %d: followed is %t:\n%s", seed, ok, plan)
	}
	r := k.Apply(t.Context(), plan)
	if !ok || r.Err() != nil {
		return false
	}
	if diff := sameSnapshot(snapshot(t, k), got); diff != "" {
		t.Fatalf("seed %d: -kernel +followed:\n%s\nplan:\n%s", seed, diff, plan)
	}
	return true
}

// TestApplyTo: what is computed is what the kernel has after random plans, plans that
// change routing only, and single steps by hand, which have side effects.
func TestApplyTo(t *testing.T) {
	followed := map[string]int{}
	count := func(what string, yes bool) {
		if yes {
			followed[what]++
		}
	}
	for seed := range worlds() {
		k, want := world(t, seed)
		count("any", follow(t, seed, k, vrf.Diff(snapshot(t, k), want)))
		g := newGenerator(seed + 1000)
		for range 3 {
			g.routing(&want)
			count("routing", follow(t, seed, k, vrf.Diff(snapshot(t, k), want)))
			for range 3 {
				if steps := g.steps(snapshot(t, k)); len(steps) > 0 {
					plan := vrf.Plan{Ops: []vrf.Op{{Action: pick(g, steps)}}}
					_, del := plan.Ops[0].Action.(vrf.DeleteNextHop)
					count(fmt.Sprintf("hop lost: %t", del), follow(t, seed, k, plan))
				}
			}
		}
	}
	for _, what := range []string{"routing", "hop lost: true", "hop lost: false"} {
		if followed[what] < int(worlds()/2) {
			t.Errorf("followed only %v", followed)
		}
	}
}

// TestApplyToDoubts: steps that do not fit the snapshot are not followed.
func TestApplyToDoubts(t *testing.T) {
	k := ports()
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), overlapping())).Err())
	k.AddForeignRoute(vrf.Route{Table: 10001, Prefix: prefix("10.7.0.0/16"), Metric: 20, Type: vrf.Blackhole}, 77)
	have := snapshot(t, k)
	other := have.Config.Routes[0]
	other.Type = vrf.Prohibit
	gone := have.Config.Routes[0]
	gone.Metric = 7
	for name, test := range map[string]struct {
		action vrf.Action
		ok     bool
	}{
		"a route that is another":    {vrf.DeleteRoute{Route: other}, false},
		"a route that is gone":       {vrf.DeleteRoute{Route: gone}, true},
		"a rule that is not there":   {vrf.DeleteRule{Rule: vrf.Rule{Priority: 900}}, false},
		"a route in a foreign place": {vrf.PutRoute{Route: have.Foreign.Routes[0], Replace: true}, false},
		"a link":                     {vrf.SetUp{Device: "eth1"}, false},
	} {
		if _, ok := (vrf.Plan{Ops: []vrf.Op{{Action: test.action}}}).ApplyTo(have); ok != test.ok {
			t.Errorf("%s: followed is %t", name, ok)
		}
	}
	// Foreign routes are told as long as something of ours is in their table.
	for _, r := range slices.Concat(have.Config.Routes) {
		if r.Table == 10001 {
			must(t, k.Do(vrf.DeleteRoute{Route: r}))
		}
	}
	if s := snapshot(t, k); len(s.Foreign.Routes) != 1 {
		t.Errorf("foreign: %v", s.Foreign.Routes)
	}
}

// TestApplyToShares: a change of groups leaves a full table where it is in memory.
func TestApplyToShares(t *testing.T) {
	k, want := ports(), full(1000)
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
	have := snapshot(t, k)
	want.Groups[0].Members[0].Weight, want.Groups[1].Members[0].Weight = 2, 2
	plan := vrf.Diff(have, want)
	after, ok := plan.ApplyTo(have)
	if !ok || len(plan.Ops) != 2 || &after.Config.Routes[0] != &have.Config.Routes[0] {
		t.Errorf("followed %t, %d steps, routes copied", ok, len(plan.Ops))
	}
	if !vrf.Diff(after, want).Empty() || vrf.Diff(have, want).Empty() {
		t.Error("the groups are not changed, or changed in both")
	}
}
