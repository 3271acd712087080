package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// decide says what should become of a new flow from a client, straight from
// the configuration: "" is the normal way.
func decide(cfg Config, src, dst netip.Addr) string {
	in := func(prefixes []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if in(cfg.ClientPrefixes, dst) || in(prefixes(neverClassified...), dst) || !in(cfg.ClientPrefixes, src) {
		return ""
	}
	var policy *Policy
	best := -1
	for i, p := range cfg.Policies {
		for _, c := range p.Clients {
			if c.Contains(src) && c.Bits() > best {
				policy, best = &cfg.Policies[i], c.Bits()
			}
		}
	}
	if policy == nil {
		if cfg.DropUnmatched {
			return chainDecideUnmatched
		}
		return ""
	}
	found := Rule{Action: Skip}
	best = -1
	for _, r := range policy.Rules {
		if r.Destination.Contains(dst) && r.Destination.Bits() > best {
			found, best = r, r.Destination.Bits()
		}
	}
	switch found.Action {
	case Skip:
		return ""
	case Reject:
		return chainDecideReject
	case ToExit:
		for _, e := range cfg.Exits {
			if e.Name == found.Exit && slices.ContainsFunc(cfg.Networks, func(n Network) bool { return n.Name == e.Network }) {
				return prefixExit + e.Name
			}
		}
	}
	return chainDecideDrop
}

// lookup walks the rendered chain of clients as the kernel does, and gives the
// decision it ends in.
func lookup(t *testing.T, r Ruleset, src, dst netip.Addr) string {
	chain := chainClients
	for depth := 0; depth < 5; depth++ {
		next, done := step(t, r, chain, src, dst)
		if done {
			return ""
		}
		if next == "" {
			return ""
		}
		if strings.HasPrefix(next, "decide_") || strings.HasPrefix(next, prefixExit) {
			return next
		}
		chain = next
	}
	t.Fatalf("the chains go round from %s", chain)
	return ""
}

// step evaluates one chain: the chain it goes to, or that it returns.
func step(t *testing.T, r Ruleset, chain string, src, dst netip.Addr) (string, bool) {
	for _, line := range r.Chains[chain].Lines {
		words := strings.Fields(line.Text)
		if line.Text == clearMark || words[0] == "fib" {
			continue // the addresses of the node are in no configuration
		}
		if (words[0] == "ip") != src.Is4() {
			continue
		}
		a := map[string]netip.Addr{"saddr": src, "daddr": dst}[words[1]]
		set, verdict := words[2], words[3]
		if words[2] == "vmap" {
			set, verdict = words[3], ""
		}
		value, found := find(r.Sets[strings.TrimPrefix(set, "@")], a)
		if verdict != "" {
			value = verdict
		}
		switch {
		case !found:
		case value == "return":
			return "", true
		case strings.HasPrefix(value, "goto "):
			return strings.TrimPrefix(value, "goto "), false
		default:
			t.Fatalf("%q in %s", value, line.Text)
		}
	}
	return "", true
}

func find(s Set, a netip.Addr) (string, bool) {
	for key, value := range s.Elements {
		if sp, err := parseSpan(key); err == nil && sp.lo.Compare(a) <= 0 && a.Compare(sp.hi) <= 0 {
			return value, true
		}
	}
	return "", false
}

// Ten thousand and more flows go where the configuration says, through random
// configurations.
func TestClassificationMatchesReference(t *testing.T) {
	flows := 0
	outcomes := map[string]int{}
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 12))
		cfg := actionsConfig()
		for range seed {
			mutate(rng, &cfg)
		}
		tidy(&cfg)
		r := renderFew(cfg)
		if seed%3 > 0 {
			cfg.ClientPrefixes = prefixes("10.64.0.0/10", "10.244.0.0/16", "fd00:55::/32", "fd00:244::/64")
			r = renderFew(cfg)
		}
		for range 800 {
			src, dst := randomFlow(rng, cfg)
			if src.Is4() != dst.Is4() {
				continue
			}
			flows++
			want, got := decide(cfg, src, dst), lookup(t, r, src, dst)
			if plain, _, _ := strings.Cut(want, "."); want != "" {
				outcomes[plain]++
			}
			if got != want {
				t.Fatalf("seed %d: %s to %s: got %q, want %q\n%+v", seed, src, dst, got, want, cfg.Policies)
			}
		}
	}
	t.Log(flows, outcomes)
	if flows < 10000 {
		t.Errorf("only %d flows", flows)
	}
	for _, kind := range []string{chainDecideDrop, chainDecideReject, chainDecideUnmatched, prefixExit + "red", prefixExit + "blue"} {
		if outcomes[kind] < 20 {
			t.Errorf("only %d flows end in %s", outcomes[kind], kind)
		}
	}
}

// randomFlow is one at the edge of what a policy says, or of another one.
func randomFlow(rng *rand.Rand, cfg Config) (netip.Addr, netip.Addr) {
	var clients, destinations []netip.Prefix
	if len(cfg.Policies) > 0 {
		p := pick(rng, cfg.Policies)
		clients = append(clients, p.Clients...)
		for _, r := range append(p.Rules, pick(rng, cfg.Policies).Rules...) {
			destinations = append(destinations, r.Destination)
		}
	}
	clients = append(clients, *pick(rng, cfg.ClientPrefixes))
	destinations = append(destinations, *pick(rng, cfg.ClientPrefixes))
	return *pick(rng, edges(clients)), *pick(rng, edges(destinations))
}

// tidy takes out what validation does not let through, and what has no one
// right answer: the same client or name twice.
func tidy(cfg *Config) {
	clients, names := map[netip.Prefix]bool{}, map[string]bool{}
	for i := range cfg.Policies {
		p := &cfg.Policies[i]
		p.Clients = slices.DeleteFunc(slices.Clone(p.Clients), func(c netip.Prefix) bool {
			twice := clients[c]
			clients[c] = true
			return twice
		})
	}
	cfg.Exits = slices.DeleteFunc(slices.Clone(cfg.Exits), func(e Exit) bool {
		twice := names[e.Name]
		names[e.Name] = true
		return twice
	})
}

func BenchmarkRender(b *testing.B) {
	for _, size := range []struct{ policies, destinations int }{{100, 10}, {1000, 100}} {
		cfg := bigConfig(size.policies, size.destinations)
		b.Run(fmt.Sprintf("%dx%d", size.policies, size.destinations), func(b *testing.B) {
			for b.Loop() {
				Render(cfg)
			}
		})
	}
}

// One edit of one policy: what a round costs when something changed.
func BenchmarkEdit(b *testing.B) {
	before := bigConfig(1000, 100)
	have := Render(before)
	after := bigConfig(1000, 100)
	after.Policies[500].Rules[50].Action = Drop
	b.Run("diff", func(b *testing.B) {
		want := Render(after)
		for b.Loop() {
			if n := len(Diff(have, want).Ops); n != 2 {
				b.Fatalf("%d operations", n)
			}
		}
	})
	b.Run("render+diff", func(b *testing.B) {
		r, cfgs := NewRenderer(), []Config{after, before}
		have := r.Render(before)
		for i := 0; b.Loop(); i++ {
			want := r.Render(cfgs[i%2])
			if n := len(Diff(have, want).Ops); n != 2 {
				b.Fatalf("%d operations", n)
			}
			have = want
		}
	})
}

func BenchmarkBuckets(b *testing.B) {
	for _, n := range []int{2, 16, 256, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			pool := poolOf(n)
			for b.Loop() {
				Buckets(pool, bucketCount(n))
			}
		})
	}
}
