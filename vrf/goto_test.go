package vrf_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/vrf"
)

// TestGotosHaveTargets looks at every prefix of a plan, and at what is left when one
// step fails: no goto stands without its target that did not do so before, and no
// packet that the old and the new rules bring to a table misses a lookup.
func TestGotosHaveTargets(t *testing.T) {
	for seed := range worlds() {
		k, want := world(t, seed)
		before := snapshot(t, k)
		if len(before.Unresolved) > 0 {
			continue
		}
		served, steps := servedInBoth(before.Config, want), vrf.Diff(before, want)
		for i, op := range steps.Ops {
			must(t, k.Do(op.Action))
			if isRule(op.Action) {
				checkRules(t, snapshot(t, k), served, seed, i, steps)
			}
		}
		if seed%6 > 0 {
			continue
		}
		k, want = world(t, seed)
		plan := vrf.Diff(snapshot(t, k), want)
		for n, op := range plan.Ops {
			if !isRule(op.Action) {
				continue
			}
			k, _ := world(t, seed)
			k.FailNth(n+1, errInjected)
			k.Apply(t.Context(), plan)
			checkRules(t, snapshot(t, k), served, seed, n, plan)
		}
	}
}

func isRule(a vrf.Action) bool {
	switch a.(type) {
	case vrf.AddRule, vrf.DeleteRule:
		return true
	}
	return false
}

func checkRules(t *testing.T, s vrf.Snapshot, served []packet, seed uint64, step int, plan vrf.Plan) {
	t.Helper()
	if len(s.Unresolved) > 0 {
		t.Fatalf("seed %d: gotos %v have no target after step %d:\n%s", seed, s.Unresolved, step, plan)
	}
	for _, p := range served {
		if v := verdict(s.Config.Rules, p); v == 0 {
			t.Fatalf("seed %d: packets %+v find no table after step %d:\n%s", seed, p, step, plan)
		}
	}
}

type packet struct {
	mark vrf.Mark
	ipv6 bool
}

// servedInBoth are the packets that both states bring to a table of a network.
func servedInBoth(have, want vrf.Config) (out []packet) {
	for _, number := range []vrf.Mark{1, 2, 3, 4, 101, 102, 103, 104, 201, 202, 203, 204} {
		for _, ipv6 := range []bool{false, true} {
			p := packet{0x10000000 | number<<16, ipv6}
			if verdict(have.Rules, p) != 0 && verdict(want.Rules, p) != 0 {
				out = append(out, p)
			}
		}
	}
	return out
}

// verdict walks the rules as the kernel does: the table of the first lookup that a
// packet meets, 0 if it is blocked or meets none.
func verdict(rules []vrf.Rule, p packet) vrf.TableID {
	rules = slices.SortedStableFunc(slices.Values(rules), func(a, b vrf.Rule) int { return int(a.Priority) - int(b.Priority) })
	at := uint32(0)
	for _, r := range rules {
		if r.IPv6 != p.ipv6 || r.Priority < at || (r.Mark^p.mark)&r.Mask != 0 {
			continue
		}
		switch r.Action {
		case vrf.RuleLookup:
			return r.Table
		case vrf.RuleGoto:
			if slices.ContainsFunc(rules, func(o vrf.Rule) bool { return o.Priority == r.Target && o.IPv6 == r.IPv6 }) {
				at = r.Target
			}
		default:
			return 0
		}
	}
	return 0
}

// TestGotoMistakes: gotos that lead nowhere are told; those that lead to them too.
func TestGotoMistakes(t *testing.T) {
	jump := func(priority, target uint32) vrf.Rule {
		return vrf.Rule{Priority: priority, Mask: 0x10000000, Action: vrf.RuleGoto, Target: target}
	}
	for name, bad := range map[string][]vrf.Rule{
		"no rule there":         {jump(820, 850)},
		"backwards":             {jump(820, 810)},
		"the other family":      {jump(820, 850), {Priority: 850, IPv6: true, Mask: 1, Action: vrf.RuleGoto, Target: 990}},
		"to one that is lost":   {jump(820, 830), jump(830, 850)},
		"out of our priorities": {jump(820, 32766)},
	} {
		k, want := ports(), overlapping()
		want.Rules = append(want.Rules, bad...)
		plan := vrf.Diff(snapshot(t, k), want)
		if len(plan.Errors) == 0 || !strings.Contains(plan.Errors[0].Error(), "there is no rule to go to") {
			t.Errorf("%s: errors %v", name, plan.Errors)
		}
		must(t, k.Apply(t.Context(), plan).Err())
		if s := snapshot(t, k); len(s.Unresolved) > 0 || !vrf.Diff(s, want).Empty() {
			t.Errorf("%s: left %v and\n%s", name, s.Unresolved, vrf.Diff(s, want))
		}
		checkWhole(t, snapshot(t, k).Config, "blue")
		checkWhole(t, snapshot(t, k).Config, "red")
	}
}

// TestConfusableRules: the kernel deletes the first rule that fits a request, which
// says neither target nor a mark of 0. Whatever order they stand in, the wanted ones
// are left.
func TestConfusableRules(t *testing.T) {
	rules := []vrf.Rule{
		{Priority: 820, Mask: 0x10000000, Action: vrf.RuleGoto, Target: 990},
		{Priority: 820, Mask: 0x10000000, Action: vrf.RuleGoto, Target: 830},
		{Priority: 820, Action: vrf.RuleGoto, Target: 830},
		{Priority: 820, Mask: 0x20000000, Action: vrf.RuleGoto, Target: 830},
		{Priority: 820, Mark: 0x10000000, Mask: 0x10000000, Action: vrf.RuleGoto, Target: 990},
		{Priority: 820, Mark: 0x10000000, Mask: 0x10000000, Action: vrf.RuleGoto, Target: 830},
		{Priority: 830, Mark: 0x10000000, Mask: 0x10000000, Action: vrf.RuleUnreachable},
		{Priority: 830, Mark: 0, Mask: 0x10000000, Action: vrf.RuleUnreachable},
	}
	for seed := range worlds() {
		g := newGenerator(seed)
		k, want := ports(), overlapping()
		want.Rules = append(want.Rules, rules[len(rules)-2])
		for _, r := range rules {
			if g.chance(50) && !slices.Contains(want.Rules, r) {
				want.Rules = append(want.Rules, r)
			}
		}
		must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), overlapping())).Err())
		for range 8 {
			must(t, k.Do(vrf.AddRule{Rule: pick(g, rules)}))
		}
		plan := vrf.Diff(snapshot(t, k), want)
		must(t, k.Apply(t.Context(), plan).Err())
		s := snapshot(t, k)
		if diff := sameConfig(want, s.Config); diff != "" || len(s.Unresolved) > 0 {
			t.Fatalf("seed %d: -want +have:\n%s\nplan:\n%s", seed, diff, plan)
		}
	}
}

// TestBlockedBehindGotos: the rule that blocks a network is the one step that takes
// it down, and its removal the one that brings it up.
func TestBlockedBehindGotos(t *testing.T) {
	k, want := ports(), overlapping()
	want.Rules = append(want.Rules, vrf.Rule{Priority: 806, Mask: 0x10000000, Action: vrf.RuleGoto, Target: 990},
		vrf.Rule{Priority: 807, Mark: 0x10010000, Mask: 0x10010000, Action: vrf.RuleGoto, Target: 810})
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
	down := want
	down.Rules = append(slices.Clone(want.Rules), vrf.Rule{Priority: 805, Mark: 0x10010000, Mask: 0x1fff0000, Action: vrf.RuleProhibit})
	for _, to := range []vrf.Config{down, want} {
		plan := vrf.Diff(snapshot(t, k), to)
		if len(plan.Ops) != 1 || !isRule(plan.Ops[0].Action) || plan.Ops[0].Network != "red" {
			t.Errorf("plan:\n%s", plan)
		}
		must(t, k.Apply(t.Context(), plan).Err())
	}
}

// TestGotoFailures replaces a goto and its lookup by others, before or behind them,
// and lets every step fail in turn: the packets find their table in any case.
func TestGotoFailures(t *testing.T) {
	tree := func(root, leaf uint32) vrf.Config {
		c := overlapping()
		for _, place := range []uint32{830, 840} { // so that the gotos have a target in any case
			c.Rules = append(c.Rules, vrf.Rule{Priority: place, Mark: 0x10090000, Mask: 0x1fff0000, Action: vrf.RuleBlackhole})
		}
		for i, r := range c.Rules {
			if r.Table == 10001 && !r.IPv6 {
				c.Rules[i].Priority = leaf + 1
			}
		}
		c.Rules = append(c.Rules, vrf.Rule{Priority: root, Mark: 0x10010000, Mask: 0x10010000, Action: vrf.RuleGoto, Target: leaf})
		return c
	}
	places := [][2]uint32{{815, 830}, {815, 840}, {821, 830}, {821, 840}}
	for _, from := range places {
		for _, to := range places {
			old, want := tree(from[0], from[1]), tree(to[0], to[1])
			steps := 1
			for n := 0; n < steps; n++ {
				k := ports()
				must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), old)).Err())
				plan := vrf.Diff(snapshot(t, k), want)
				steps = len(plan.Ops)
				k.FailNth(n+1, errInjected)
				k.Apply(t.Context(), plan)
				if got := verdict(snapshot(t, k).Config.Rules, packet{mark: 0x10010000}); got != 10001 {
					t.Errorf("from %v to %v, step %d failing: table %d\n%s", from, to, n, got, plan)
				}
			}
		}
	}
}
