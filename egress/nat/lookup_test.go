package nat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Classify says of random flows through random configurations what the
// configuration says, also of a ruleset whose texts were found again by their
// IDs.
func TestClassifyMatchesReference(t *testing.T) {
	counts := map[Decision]int{}
	addresses := 0
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 51))
		cfg := []Config{spreadConfig(), actionsConfig(), dualConfig()}[seed%3]
		for range seed / 3 {
			mutate(rng, &cfg)
		}
		tidy(&cfg)
		want := renderFew(cfg)
		have := withoutTexts(want).WithTexts(want)
		for range 600 {
			src, dst := randomFlow(rng, cfg)
			if src.Is4() != dst.Is4() {
				continue
			}
			got, err := have.Classify(src, dst)
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(got.Steps, "\n"))
			}
			if expect := decide(cfg, src, dst); expect != decisionChain(got) {
				t.Fatalf("seed %d: %s to %s is %+v, want %q", seed, src, dst, got, expect)
			}
			counts[got.Decision]++
			if checkTrace(t, cfg, src, got) {
				addresses++
			}
		}
	}
	t.Log(counts, addresses)
	for _, d := range []Decision{Normal, Exits, Dropped, Rejected, Unmatched} {
		if counts[d] < 20 {
			t.Errorf("only %d flows are %s", counts[d], d)
		}
	}
	if addresses < 50 {
		t.Errorf("only %d flows have an address", addresses)
	}
}

// decisionChain is the trace in the words of decide.
func decisionChain(got Trace) string {
	switch got.Decision {
	case Dropped, Rejected:
		if got.Exit != "" {
			return prefixExit + got.Exit // it takes no new flows
		}
	}
	switch got.Decision {
	case Normal:
		return ""
	case Dropped:
		return chainDecideDrop
	case Rejected:
		return chainDecideReject
	case Unmatched:
		return chainDecideUnmatched
	}
	return prefixExit + got.Exit
}

// checkTrace holds mark, zone and address against the configuration, and says
// whether there is an address.
func checkTrace(t *testing.T, cfg Config, src netip.Addr, got Trace) bool {
	t.Helper()
	if got.Decision != Exits {
		return false
	}
	e := cfg.Exits[slices.IndexFunc(cfg.Exits, func(e Exit) bool { return e.Name == got.Exit })]
	n := cfg.Networks[slices.IndexFunc(cfg.Networks, func(n Network) bool { return n.Name == e.Network })]
	p := cfg.Pools[slices.IndexFunc(cfg.Pools, func(p Pool) bool { return p.Name == e.Pool })]
	if got.Mark != e.Mark || got.Zone != n.Zone {
		t.Errorf("%+v of exit %+v and network %+v", got, e, n)
	}
	pool := poolAddrs(append(slices.Clone(p.Pool4), p.Pool6...), src.Is4())
	switch {
	case len(pool) == 0, p.PerFlow && len(pool) > 1:
		if got.Address.IsValid() {
			t.Errorf("%+v from pool %+v", got, p)
		}
		return false
	case len(pool) == 1:
		if got.Address != pool[0] {
			t.Errorf("%+v from pool %+v", got, p)
		}
	default:
		if want := Buckets(pool, 8)[PoolBucket(src, 8)]; got.Address != want {
			t.Errorf("address %s, want %s", got.Address, want)
		}
	}
	return true
}

// withoutTexts is a ruleset as Snapshot gives it.
func withoutTexts(r Ruleset) Ruleset {
	r = r.Clone()
	for _, c := range r.Chains {
		for i := range c.Lines {
			c.Lines[i].Text = ""
		}
	}
	return r
}

// What somebody put in by hand is not passed over.
func TestClassifyRefusesWhatItCannotRead(t *testing.T) {
	src, dst := addrs("10.244.1.5")[0], addrs("10.1.2.3")[0]
	for name, damage := range map[string]func(Ruleset){
		"foreign rule": func(r Ruleset) {
			c := r.Chains[chainClients]
			c.Lines = append([]Line{{ID: "mine"}}, c.Lines...)
			r.Chains[chainClients] = c
		},
		"no chain":  func(r Ruleset) { delete(r.Chains, "policy_team-a") },
		"no set":    func(r Ruleset) { delete(r.Sets, mapClients4) },
		"no table":  func(r Ruleset) { clear(r.Chains) },
		"a circle":  func(r Ruleset) { r.Sets[mapClients4].Elements["10.244.1.0/24"] = "goto " + chainClients },
		"odd value": func(r Ruleset) { r.Sets[mapClients4].Elements["10.244.1.0/24"] = "queue" },
	} {
		want := Render(smallConfig())
		have := withoutTexts(want)
		damage(have)
		if got, err := have.WithTexts(want).Classify(src, dst); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	r := Render(smallConfig())
	if got, err := r.Classify(src, addrs("fd00::1")[0]); err == nil {
		t.Errorf("two families: %+v", got)
	}
	if got, err := r.Classify(src, dst); err != nil || got.Policy != "team-a" || got.Address.String() != "198.51.100.1" || len(got.Steps) < 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

// The kernel says of each element what we would say.
func TestKernelLookup(t *testing.T) {
	k := newKernelTable(t)
	want := renderFew(spreadConfig())
	k.become(want)
	rng := rand.New(rand.NewPCG(3, 4))
	asked := 0
	for _, name := range sorted(want.Sets) {
		s := want.Sets[name]
		keys := sortedKeys(s)
		rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		for _, key := range keys[:min(3, len(keys))] {
			ask := key
			if sp, err := parseSpan(key); err == nil && s.Interval {
				ask = []string{addrText(sp.lo), addrText(sp.hi)}[rng.IntN(2)]
			}
			k.do(func() error {
				value, found, err := k.Lookup(t.Context(), name, ask)
				if err != nil || !found || value != s.Elements[key] {
					t.Errorf("%s of %s: %q, %t, %v, want %q", ask, name, value, found, err, s.Elements[key])
				}
				return nil
			})
			asked++
		}
	}
	if asked < 20 {
		t.Errorf("asked only %d times", asked)
	}
	k.do(func() error {
		if value, found, err := k.Lookup(t.Context(), mapClients4, "192.0.2.77"); found || err != nil {
			t.Errorf("no such client: %q, %t, %v", value, found, err)
		}
		if _, _, err := k.Lookup(t.Context(), "nothing", "192.0.2.77"); err == nil {
			t.Error("no error without the set")
		}
		return nil
	})
}

func FuzzParseElement(f *testing.F) {
	f.Add("table inet egret {\n\tmap m {\n\t\telements = { 10.0.0.0 : goto x }\n\t}\n}")
	f.Add("elements = {")
	f.Fuzz(func(t *testing.T, text string) {
		if value, err := parseElement(text); err != nil && value != "" || strings.Contains(value, "}") {
			t.Errorf("%q, %v", value, err)
		}
	})
}
