package vrf_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// seeds is how many random worlds each property is tried on.
var seeds = flag.Uint64("seeds", 100, "random worlds to try the properties on")

// worlds is *seeds, less in an emulated machine: no kernel is asked, so it says
// nothing there that it does not say elsewhere.
func worlds() uint64 {
	if os.Getenv("EGRET_VM") != "" {
		return max(*seeds/8, 6)
	}
	return *seeds
}

// waitKernel is more than enough for a kernel event on a machine under load.
const waitKernel = time.Minute

func snapshot(t testing.TB, k interface {
	Snapshot(context.Context) (vrf.Snapshot, error)
}) vrf.Snapshot {
	t.Helper()
	s, err := k.Snapshot(t.Context())
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return s
}

// world is a kernel that has something, was tampered with, and a new want.
func world(t *testing.T, seed uint64) (*vrftest.Kernel, vrf.Config) {
	g := newGenerator(seed)
	k := g.kernel()
	first := g.config()
	if r := k.Apply(t.Context(), vrf.Diff(snapshot(t, k), first)); r.Err() != nil {
		t.Fatalf("seed %d: first apply: %v", seed, r.Err())
	}
	if g.chance(70) {
		g.tamper(t, k)
	}
	want := first
	if g.chance(80) {
		want = g.config()
	}
	return k, want
}

// canonical is c in an order of its own, without what carries no meaning.
func canonical(c vrf.Config) vrf.Config {
	var out vrf.Config
	for _, v := range c.VRFs {
		v.Ports, v.Tables = slices.Clone(v.Ports), nil
		for i := range v.Ports {
			v.Ports[i].Addresses = slices.SortedFunc(slices.Values(v.Ports[i].Addresses), netip.Prefix.Compare)
		}
		slices.SortFunc(v.Ports, func(a, b vrf.Port) int { return cmp.Compare(a.Name, b.Name) })
		out.VRFs = append(out.VRFs, v)
	}
	slices.SortFunc(out.VRFs, func(a, b vrf.VRF) int { return cmp.Compare(a.Name, b.Name) })
	out.Tunnels = slices.SortedFunc(slices.Values(c.Tunnels), func(a, b vrf.TunnelDevice) int { return cmp.Compare(a.Name, b.Name) })
	out.Loops = slices.SortedFunc(slices.Values(c.Loops), func(a, b vrf.Loop) int { return cmp.Compare(a.Name, b.Name) })
	out.NextHops = slices.SortedFunc(slices.Values(c.NextHops), func(a, b vrf.NextHop) int { return cmp.Compare(a.ID, b.ID) })
	out.Groups = slices.SortedFunc(slices.Values(c.Groups), func(a, b vrf.Group) int { return cmp.Compare(a.ID, b.ID) })
	out.Routes = slices.SortedFunc(slices.Values(c.Routes), func(a, b vrf.Route) int { return strings.Compare(a.String(), b.String()) })
	out.Rules = slices.SortedFunc(slices.Values(c.Rules), func(a, b vrf.Rule) int {
		return strings.Compare(fmt.Sprint(a.IPv6, a), fmt.Sprint(b.IPv6, b))
	})
	return out
}

func sameConfig(want, have vrf.Config) string {
	return gocmp.Diff(canonical(want), canonical(have), cmpopts.EquateEmpty(),
		gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

// foreigners is everything in k that is not ours, as text.
func foreigners(k *vrftest.Kernel) string {
	var lines []string
	raw := k.Raw()
	for _, l := range raw.Links {
		if l.Alias != "" {
			continue
		}
		for _, a := range l.Addresses {
			if a.Protocol != owner.Protocol {
				lines = append(lines, fmt.Sprintf("%s address %+v", l.Name, a))
			}
		}
		lines = append(lines, fmt.Sprintf("link %s %d %s %d", l.Name, l.Index, l.Kind, l.MTU))
	}
	for _, n := range raw.NextHops {
		if n.Protocol != owner.Protocol {
			lines = append(lines, fmt.Sprintf("hop %+v", n))
		}
	}
	for _, r := range raw.Routes {
		if r.Protocol != owner.Protocol && r.Protocol != owner.LearnedProtocol {
			lines = append(lines, fmt.Sprintf("route %+v", r))
		}
	}
	for _, r := range raw.Rules {
		if r.Protocol != owner.Protocol {
			lines = append(lines, fmt.Sprintf("rule %+v", r))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestApplyGivesWant is law 1: every step succeeds where it stands in the plan,
// the result is the want, a second plan is empty, and foreigners are as before.
func TestApplyGivesWant(t *testing.T) {
	for seed := range worlds() {
		k, want := world(t, seed)
		before := foreigners(k)
		plan := vrf.Diff(snapshot(t, k), want)
		if len(plan.Errors) > 0 {
			t.Fatalf("seed %d: errors in\n%s", seed, plan)
		}
		if r := k.Apply(t.Context(), plan); r.Err() != nil {
			t.Fatalf("seed %d: %v\nplan:\n%s", seed, r.Err(), plan)
		}
		have := snapshot(t, k)
		if diff := sameConfig(want, have.Config); diff != "" {
			t.Fatalf("seed %d: want differs (-want +have):\n%s\nplan:\n%s", seed, diff, plan)
		}
		if again := vrf.Diff(have, want); !again.Empty() || len(again.Errors) > 0 {
			t.Fatalf("seed %d: second plan:\n%s\nafter:\n%s", seed, again, plan)
		}
		if after := foreigners(k); after != before {
			t.Fatalf("seed %d: foreigners changed:\n%s\nplan:\n%s", seed, gocmp.Diff(before, after), plan)
		}
	}
}

// TestTeardownLeavesNothing is law 2 for the empty want.
func TestTeardownLeavesNothing(t *testing.T) {
	for seed := range worlds() {
		k, _ := world(t, seed)
		before := foreigners(k)
		plan := vrf.Teardown(snapshot(t, k))
		if r := k.Apply(t.Context(), plan); r.Err() != nil {
			t.Fatalf("seed %d: %v\nplan:\n%s", seed, r.Err(), plan)
		}
		if diff := sameConfig(vrf.Config{}, snapshot(t, k).Config); diff != "" {
			t.Fatalf("seed %d: left over:\n%s", seed, diff)
		}
		for _, l := range snapshot(t, k).Links {
			if l.Alias != "" || l.Master != "" || l.Group != 0 {
				t.Errorf("seed %d: link %+v is left over", seed, l)
			}
		}
		if after := foreigners(k); after != before {
			t.Fatalf("seed %d: foreigners changed:\n%s", seed, gocmp.Diff(before, after))
		}
	}
}

// TestOrderOfInput is the rest of law 1: shuffled input gives the same text.
func TestOrderOfInput(t *testing.T) {
	for seed := range worlds() {
		k, want := world(t, seed)
		have := snapshot(t, k)
		plan := vrf.Diff(have, want).String()
		g := newGenerator(seed + 1000000)
		shuffleConfig(g, &want)
		shuffleConfig(g, &have.Config)
		shuffle(g, have.Links)
		shuffle(g, have.Foreign.Routes)
		shuffle(g, have.Foreign.Rules)
		if again := vrf.Diff(have, want).String(); again != plan {
			t.Fatalf("seed %d: plan depends on order:\n%s", seed, gocmp.Diff(plan, again))
		}
	}
}

func shuffleConfig(g generator, c *vrf.Config) {
	shuffle(g, c.VRFs)
	for _, v := range c.VRFs {
		shuffle(g, v.Ports)
		for _, p := range v.Ports {
			shuffle(g, p.Addresses)
		}
	}
	shuffle(g, c.Tunnels)
	shuffle(g, c.Loops)
	shuffle(g, c.NextHops)
	shuffle(g, c.Groups)
	shuffle(g, c.Routes)
	shuffle(g, c.Rules)
}

func shuffle[T any](g generator, list []T) {
	g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

var errInjected = errors.New("injected")

// TestEveryStepFailing lets every single step of a plan fail in turn. What is left
// must be something that the next plan mends, no blocking rule that both the old
// and the new state have may be missing in between, and steps of networks that
// have nothing to do with the failure must all have been applied.
func TestEveryStepFailing(t *testing.T) {
	for seed := range worlds() / 6 {
		k, want := world(t, seed)
		steps := len(vrf.Diff(snapshot(t, k), want).Ops)
		for n := 1; n <= steps; n++ {
			k, want := world(t, seed)
			have := snapshot(t, k)
			plan := vrf.Diff(have, want)
			k.FailNth(n, errInjected)
			r := k.Apply(t.Context(), plan)
			k.FailIf(nil)
			checkFailure(t, seed, n, plan, r)
			for _, mark := range blockedInBoth(have.Config, want) {
				if !blocks(snapshot(t, k).Config, mark) {
					t.Fatalf("seed %d step %d: nothing blocks %v any more\n%s", seed, n, mark, plan)
				}
			}
			for _, open := range openLookups(snapshot(t, k).Config) {
				if !slices.Contains(openLookups(have.Config), open) {
					t.Fatalf("seed %d step %d: nothing catches what %q does not find\n%s", seed, n, open, plan)
				}
			}
			mend := vrf.Diff(snapshot(t, k), want)
			if r := k.Apply(t.Context(), mend); r.Err() != nil {
				t.Fatalf("seed %d step %d: mend: %v\nplan:\n%s\nmend:\n%s", seed, n, r.Err(), plan, mend)
			}
			if diff := sameConfig(want, snapshot(t, k).Config); diff != "" {
				t.Fatalf("seed %d step %d: not mended:\n%s\nplan:\n%s\nmend:\n%s", seed, n, diff, plan, mend)
			}
			if again := vrf.Diff(snapshot(t, k), want); !again.Empty() {
				t.Fatalf("seed %d step %d: not settled:\n%s", seed, n, again)
			}
		}
	}
}

// checkFailure: exactly the steps that need the failed one may be skipped, none
// else may fail.
func checkFailure(t *testing.T, seed uint64, n int, plan vrf.Plan, r vrf.Result) {
	t.Helper()
	bad := map[int]bool{n - 1: true}
	for i, op := range plan.Ops {
		if slices.ContainsFunc(op.Needs, func(j int) bool { return bad[j] }) {
			bad[i] = true
		}
	}
	if len(r.Errors) != len(bad) || r.Applied != len(plan.Ops)-len(bad) {
		t.Fatalf("seed %d step %d: %d steps failed, %d should\n%v\nplan:\n%s", seed, n, len(r.Errors), len(bad), r.Errors, plan)
	}
	if !errors.Is(r.Err(), errInjected) {
		t.Fatalf("seed %d step %d: Err is %v", seed, n, r.Err())
	}
}

// openLookups are the rules that look up a table of ours which does not end in a
// fallback, or that no catch-all follows.
func openLookups(c vrf.Config) (out []vrf.Rule) {
	for _, r := range c.Rules {
		if r.Action != vrf.RuleLookup || r.Table == 254 {
			continue
		}
		fallback := slices.ContainsFunc(c.Routes, func(x vrf.Route) bool {
			return x.Table == r.Table && x.Metric == fallbackMetric && x.Prefix.Addr().Is6() == r.IPv6
		})
		if !fallback || !blocks(c, blockedMark{r.IPv6, 0x10000000, 0x10000000}) {
			out = append(out, r)
		}
	}
	return out
}

// TestRoutesStay changes only next hops, groups, routes and rules, and lets every
// step fail in turn: a route that the old and the new state have is never lost.
func TestRoutesStay(t *testing.T) {
	for seed := range worlds() / 3 {
		start := func() (*vrftest.Kernel, vrf.Config) {
			g := newGenerator(seed)
			k := g.kernel()
			want := g.config()
			must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
			g.routing(&want)
			return k, want
		}
		k, want := start()
		for n := range len(vrf.Diff(snapshot(t, k), want).Ops) {
			k, want := start()
			have := snapshot(t, k)
			plan := vrf.Diff(have, want)
			k.FailNth(n+1, errInjected)
			k.Apply(t.Context(), plan)
			after := snapshot(t, k).Config
			for _, r := range have.Config.Routes {
				same := func(x vrf.Route) bool { return x.Table == r.Table && x.Prefix == r.Prefix && x.Metric == r.Metric }
				if slices.ContainsFunc(want.Routes, same) && !slices.ContainsFunc(after.Routes, same) {
					t.Fatalf("seed %d step %d: route %q is lost\n%s", seed, n, r, plan)
				}
			}
		}
	}
}

type blockedMark struct {
	ipv6       bool
	mark, mask vrf.Mark
}

func blockedInBoth(have, want vrf.Config) (out []blockedMark) {
	for _, r := range have.Rules {
		m := blockedMark{r.IPv6, r.Mark, r.Mask}
		if blocking(r) && blocks(want, m) {
			out = append(out, m)
		}
	}
	return out
}

func blocking(r vrf.Rule) bool { return r.Action != vrf.RuleLookup && r.Action != vrf.RuleGoto }

func blocks(c vrf.Config, m blockedMark) bool {
	return slices.ContainsFunc(c.Rules, func(r vrf.Rule) bool {
		return blocking(r) && m == blockedMark{r.IPv6, r.Mark, r.Mask}
	})
}

// TestNoGapInBlocking looks at every prefix of a plan.
func TestNoGapInBlocking(t *testing.T) {
	for seed := range worlds() {
		k, want := world(t, seed)
		have := snapshot(t, k)
		marks := blockedInBoth(have.Config, want)
		for i, op := range vrf.Diff(have, want).Ops {
			if err := k.Do(op.Action); err != nil {
				t.Fatalf("seed %d: %q: %v", seed, op, err)
			}
			for _, mark := range marks {
				if !blocks(snapshot(t, k).Config, mark) {
					t.Fatalf("seed %d: nothing blocks %v after step %d", seed, mark, i)
				}
			}
		}
	}
}
