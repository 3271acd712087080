package egress

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/egret-router/egret/vrf"
)

// walk follows a mark through rules as the kernel does, and counts the rules it
// looked at. Without an answer the table is 0.
func walk(t *testing.T, rules []vrf.Rule, mark vrf.Mark) (table vrf.TableID, steps int) {
	t.Helper()
	rules = slices.SortedStableFunc(slices.Values(rules), func(a, b vrf.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	for i := 0; i < len(rules); i++ {
		r := rules[i]
		steps++
		if (mark^r.Mark)&r.Mask != 0 {
			continue
		}
		switch r.Action {
		case vrf.RuleLookup:
			return r.Table, steps
		case vrf.RuleUnreachable:
			return 0, steps
		case vrf.RuleGoto:
			to := slices.IndexFunc(rules, func(o vrf.Rule) bool { return o.Priority == r.Target })
			if to < 0 {
				continue // unresolved: the kernel skips it
			}
			if to <= i {
				t.Fatalf("rule %s jumps backwards", r)
			}
			i = to - 1
		}
	}
	return 0, steps
}

func randomDestinations(rng *rand.Rand, n int) []destination {
	numbers := rng.Perm(maxIndex)[:n]
	out := make([]destination, 0, n)
	for _, i := range numbers {
		out = append(out, destination{uint16(i + 1), vrf.TableID(10001 + i)})
	}
	return out
}

// treeRules are the rules of a family with the catch-all.
func treeRules(dests []destination) []vrf.Rule {
	return append(dispatchRules(dests, false, 800),
		vrf.Rule{Priority: 800 + prioCatch, Mark: markEgress, Mask: markEgress, Action: vrf.RuleUnreachable})
}

func TestDispatchFindsEveryTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 32, 33, 64, 100, 256, 1000, maxIndex} {
		dests := randomDestinations(rng, n)
		rules := treeRules(dests)
		longest, total := 0, 0
		for _, d := range dests {
			got, steps := walk(t, rules, exitMark(d.number, 77))
			if got != d.table {
				t.Fatalf("%d tables: number %d goes to table %d, want %d", n, d.number, got, d.table)
			}
			longest, total = max(longest, steps), total+steps
		}
		if got, _ := walk(t, rules, exitMark(0, 5)); got != 0 {
			t.Errorf("%d tables: a reserved mark goes to table %d", n, got)
		}
		if _, steps := walk(t, rules, 0); n > linearLookups && steps > 2 {
			t.Errorf("%d tables: traffic without a mark meets %d rules", n, steps)
		}
		for _, r := range rules {
			if r.Priority < 800+prioSkip || r.Priority > 800+prioCatch {
				t.Errorf("rule %s is out of the range of the tree", r)
			}
		}
		if n > 0 {
			t.Logf("%4d tables: %3d rules met at most, %.1f on average", n, longest, float64(total)/float64(n))
		}
	}
}

// TestDispatchChangesWithoutAGap goes from one set of tables to another one
// operation at a time, in the order of vrf.Diff: no packet of a table in both
// misses it at any moment.
func TestDispatchChangesWithoutAGap(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 200 {
		all := randomDestinations(rng, 2+rng.IntN(90))
		cut := func() []destination {
			return slices.DeleteFunc(slices.Clone(all), func(destination) bool { return rng.IntN(3) == 0 })
		}
		before, after := cut(), cut()
		rules, want := treeRules(before), treeRules(after)
		var both []destination
		for _, d := range before {
			if slices.Contains(after, d) {
				both = append(both, d)
			}
		}
		check := func(what string) {
			for _, d := range both {
				if got, _ := walk(t, rules, hopSetMark(d.number)); got != d.table {
					t.Fatalf("round %d, after %s: number %d goes to table %d, want %d", round, what, d.number, got, d.table)
				}
			}
		}
		isGoto := func(r vrf.Rule) bool { return r.Action == vrf.RuleGoto }
		for _, gotos := range []bool{false, true} {
			for _, r := range want {
				if isGoto(r) == gotos && !slices.Contains(rules, r) {
					rules = append(rules, r)
					check(fmt.Sprint("adding ", r))
				}
			}
		}
		for _, gotos := range []bool{true, false} {
			for _, r := range slices.Clone(rules) {
				if isGoto(r) == gotos && !slices.Contains(want, r) {
					rules = slices.DeleteFunc(rules, func(o vrf.Rule) bool { return o == r })
					check(fmt.Sprint("deleting ", r))
				}
			}
		}
	}
}
