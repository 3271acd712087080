package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
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
		if e, ok := exitOf(cfg, found.Exit, src); ok {
			if e.Fallback {
				return ""
			}
			return prefixExit + e.Name
		}
	}
	return chainDecideDrop
}

// exitOf is the open exit of that name, or the one that a spread of that name
// has for a client.
func exitOf(cfg Config, name string, src netip.Addr) (Exit, bool) {
	find := func(name string) (Exit, bool) {
		i := slices.IndexFunc(cfg.Exits, func(e Exit) bool { return e.Name == name && open(cfg, e) })
		if i < 0 {
			return Exit{}, false
		}
		return cfg.Exits[i], true
	}
	if e, ok := find(name); ok {
		return e, true
	}
	for _, s := range cfg.Spreads {
		if s.Name == name && len(s.Exits) > 0 {
			return find(s.Exits[ClientBucket(src, len(s.Exits))])
		}
	}
	return Exit{}, false
}

// open says whether traffic can take an exit: its pool is there, in a network
// that is there, and the marks fit.
func open(cfg Config, e Exit) bool {
	same := 0
	for _, p := range cfg.Pools {
		if uint32(p.ID) == e.Mark&PoolMask {
			same++
		}
	}
	return same == 1 && e.Mark&0x1fff0fff == e.Mark && e.Mark>>28 == 1 && e.Mark&0x0fff0000 != 0 &&
		slices.ContainsFunc(cfg.Networks, func(n Network) bool { return n.Name == e.Network }) &&
		slices.ContainsFunc(cfg.Pools, func(p Pool) bool {
			return p.Name == e.Pool && p.Network == e.Network && p.ID != 0 && uint32(p.ID) == e.Mark&PoolMask
		})
}

// lookup walks the rendered chain of clients as the kernel does, and gives the
// decision it ends in.
func lookup(t *testing.T, r Ruleset, src, dst netip.Addr) string {
	p := packet{t: t, rules: r, src: src, dst: dst}
	p.walk(chainClients, 0)
	if p.decision == clearMark {
		return ""
	}
	return p.decider
}

// packet is one on its way through the chains.
type packet struct {
	t        *testing.T
	rules    Ruleset
	src, dst netip.Addr
	// decision is the last statement that set the mark, in the chain decider.
	decision, decider string
}

// walk evaluates a chain and those it leads to.
func (p *packet) walk(chain string, depth int) {
	if depth > 8 {
		p.t.Fatalf("the chains go round from %s", chain)
	}
	for _, line := range p.rules.Chains[chain].Lines {
		if strings.HasPrefix(line.Text, "meta mark set") {
			p.decision, p.decider = line.Text, chain
			continue
		}
		verdict := p.evaluate(line.Text)
		word, target, _ := strings.Cut(verdict, " ")
		switch word {
		case "":
			continue
		case "jump", "goto":
			if _, ok := p.rules.Chains[target]; !ok {
				p.t.Fatalf("no chain %s", target)
			}
			p.walk(target, depth+1)
		case "return":
		default:
			p.t.Fatalf("verdict %q in %s", verdict, line.Text)
		}
		if word != "jump" {
			return
		}
	}
}

// evaluate gives the verdict of a rule, "" for none.
func (p *packet) evaluate(text string) string {
	words := strings.Fields(text)
	switch {
	case words[0] == "goto":
		return text
	case strings.HasPrefix(text, ourMark+" vmap @"):
		_, set, _ := strings.Cut(p.decision, " | ")
		return p.rules.Sets[strings.TrimPrefix(words[5], "@")].Elements[set]
	case words[0] == "jhash":
		if (words[1] == "ip") != p.src.Is4() {
			return ""
		}
		n, err := strconv.Atoi(words[4])
		if err != nil || words[6] != "0x73707264" {
			p.t.Fatalf("hash in %s", text)
		}
		return p.rules.Sets[strings.TrimPrefix(words[8], "@")].Elements[strconv.Itoa(ClientBucket(p.src, n))]
	case words[0] == "fib", strings.HasPrefix(text, tcpNotFirst), strings.HasPrefix(text, withoutBeginning), strings.HasPrefix(text, "icmp"), words[0] == "ct":
		return "" // the addresses of the node are in no configuration, and this is a datagram
	case (words[0] == "ip") != p.src.Is4():
		return ""
	}
	a := map[string]netip.Addr{"saddr": p.src, "daddr": p.dst}[words[1]]
	if words[2] == "vmap" {
		value, _ := find(p.rules.Sets[strings.TrimPrefix(words[3], "@")], a)
		return value
	}
	if _, found := find(p.rules.Sets[strings.TrimPrefix(words[2], "@")], a); found {
		return words[3]
	}
	return ""
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
		if seed%2 > 0 {
			cfg = spreadConfig()
			cfg.DropUnmatched = true
		}
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
			if plain, rest, _ := strings.Cut(want, "."); want != "" {
				outcomes[plain]++
				if rest == "second" { // which only spreads lead to
					outcomes["spread"]++
				}
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
	for _, kind := range []string{chainDecideDrop, chainDecideReject, chainDecideUnmatched, prefixExit + "red", prefixExit + "blue", "spread"} {
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
	once := func(name string) bool {
		twice := names[name]
		names[name] = true
		return twice
	}
	cfg.Exits = slices.DeleteFunc(slices.Clone(cfg.Exits), func(e Exit) bool { return once(e.Name) })
	cfg.Spreads = slices.DeleteFunc(slices.Clone(cfg.Spreads), func(s Spread) bool { return once(s.Name) })
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
