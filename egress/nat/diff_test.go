package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// mutate changes a configuration at random, in the ways that users do.
func mutate(rng *rand.Rand, cfg *Config) {
	switch rng.IntN(19) {
	case 0:
		cfg.DropUnmatched = !cfg.DropUnmatched
	case 1:
		cfg.ClientInterfaces = choose(rng, []string{"eth0", "eth3", "eth4"})
	case 2:
		cfg.ClientPrefixes = choose(rng, prefixes("10.244.0.0/16", "10.0.0.0/9", "fd00:244::/64", "fd00::/16", "0.0.0.0/0", "::/0"))
	case 3:
		n := pick(rng, cfg.Networks)
		*n = randomNetwork(rng, n.Name)
	case 4:
		if len(cfg.Networks) > 1 {
			cfg.Networks = slices.Delete(slices.Clone(cfg.Networks), 0, 1)
		} else {
			cfg.Networks = append(slices.Clone(cfg.Networks), randomNetwork(rng, fmt.Sprintf("net%d", rng.IntN(3))))
		}
	case 5:
		network := pick(rng, cfg.Networks).Name
		cfg.Exits = append(slices.Clone(cfg.Exits), randomExit(rng, network, cfg.Pools))
	case 6:
		if len(cfg.Exits) > 1 {
			cfg.Exits = slices.Delete(slices.Clone(cfg.Exits), 0, 1)
		}
	case 7:
		if len(cfg.Policies) > 0 {
			i := rng.IntN(len(cfg.Policies))
			cfg.Policies = slices.Delete(slices.Clone(cfg.Policies), i, i+1)
		}
	case 8, 9:
		randomPool(rng, cfg)
	case 10, 11:
		randomSpread(rng, cfg)
	case 12:
		if len(cfg.Spreads) > 0 {
			cfg.Spreads = slices.Delete(slices.Clone(cfg.Spreads), 0, 1)
		}
	case 13, 14:
		name := fmt.Sprintf("policy %d", rng.IntN(6))
		cfg.Policies = slices.DeleteFunc(slices.Clone(cfg.Policies), func(p Policy) bool { return p.Name == name })
		cfg.Policies = append(cfg.Policies, randomPolicy(rng, name, *cfg))
	default:
		if len(cfg.Policies) > 0 {
			cfg.Policies = slices.Clone(cfg.Policies)
			p := pick(rng, cfg.Policies)
			*p = randomPolicy(rng, p.Name, *cfg)
		}
	}
}

func pick[T any](rng *rand.Rand, s []T) *T { return &s[rng.IntN(len(s))] }

func choose[T any](rng *rand.Rand, s []T) []T {
	shuffled(rng, &s)
	return s[:1+rng.IntN(len(s))]
}

func randomNetwork(rng *rand.Rand, name string) Network {
	n := Network{Name: name, Device: name, Zone: uint16(40001 + rng.IntN(5))}
	n.Ports = choose(rng, []string{"eth1", "eth2", "eth5"})
	for range rng.IntN(5) {
		n.Sources = append(n.Sources, randomPrefix(rng, rng.IntN(2) == 0))
	}
	n.Own = choose(rng, addrs("172.16.0.1", "172.16.0.2", "fd00:16::1", "198.51.100.3"))
	return n
}

func randomExit(rng *rand.Rand, network string, pools []Pool) Exit {
	id := rng.IntN(6)
	pool := pick(rng, pools)
	fate := rng.IntN(4)
	return Exit{Name: fmt.Sprintf("%s.%d", network, id), Network: network, Mark: EgressMark | uint32(1+rng.IntN(5))<<16 | uint32(pool.ID), Pool: pool.Name,
		Fallback: fate == 0, Refuse: Action(fate)}
}

// randomSpread replaces the spread of that name, or adds one.
func randomSpread(rng *rand.Rand, cfg *Config) {
	s := Spread{Name: fmt.Sprintf("spread %d", rng.IntN(4))}
	for range rng.IntN(2) << rng.IntN(4) {
		if len(cfg.Exits) > 0 && rng.IntN(8) > 0 {
			s.Exits = append(s.Exits, pick(rng, cfg.Exits).Name)
		} else {
			s.Exits = append(s.Exits, "gone")
		}
	}
	cfg.Spreads = slices.DeleteFunc(slices.Clone(cfg.Spreads), func(o Spread) bool { return o.Name == s.Name })
	cfg.Spreads = append(cfg.Spreads, s)
}

// randomPool replaces the pool of that name, or adds one.
func randomPool(rng *rand.Rand, cfg *Config) {
	p := Pool{Name: fmt.Sprintf("pool %d", rng.IntN(4)), Network: pick(rng, cfg.Networks).Name, ID: uint16(rng.IntN(6)), PerFlow: rng.IntN(2) == 0}
	p.Pool4 = choose(rng, addrs("198.51.100.1", "198.51.100.2", "198.51.100.3"))[1:]
	p.Pool6 = choose(rng, addrs("2001:db8::1", "2001:db8::2", "2001:db8::3"))[1:]
	cfg.Pools = slices.DeleteFunc(slices.Clone(cfg.Pools), func(o Pool) bool { return o.Name == p.Name })
	cfg.Pools = append(cfg.Pools, p)
}

func randomPolicy(rng *rand.Rand, name string, cfg Config) Policy {
	p := Policy{Name: name}
	for range rng.IntN(5) {
		p.Clients = append(p.Clients, randomPrefix(rng, rng.IntN(2) == 0))
	}
	for range rng.IntN(10) {
		r := Rule{Destination: randomPrefix(rng, rng.IntN(2) == 0), Action: Action(rng.IntN(4))}
		if len(cfg.Exits) > 0 {
			r.Exit = pick(rng, cfg.Exits).Name
		}
		if len(cfg.Spreads) > 0 && rng.IntN(3) == 0 {
			r.Exit = pick(rng, cfg.Spreads).Name
		}
		if !slices.ContainsFunc(p.Rules, func(o Rule) bool { return o.Destination == r.Destination }) {
			p.Rules = append(p.Rules, r)
		}
	}
	return p
}

// randomPrefix is from a small world, so that prefixes nest, meet and repeat.
func randomPrefix(rng *rand.Rand, ipv4 bool) netip.Prefix {
	if ipv4 {
		a := netip.AddrFrom4([4]byte{byte(10 + 245*rng.IntN(2)), byte(rng.IntN(4) * 64), byte(rng.IntN(4) * 85), byte(rng.IntN(4) * 85)})
		return netip.PrefixFrom(a, rng.IntN(33)).Masked()
	}
	var b [16]byte
	if rng.IntN(8) > 0 {
		b = [16]byte{0xfd, 0, 0, byte(rng.IntN(4) * 85), 8: byte(rng.IntN(2) * 255), 15: byte(rng.IntN(3) * 127)}
	} else {
		b = netip.MustParseAddr("::ffff:10.1.2.3").As16()
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), rng.IntN(129)).Masked()
}

// Any edit, applied as a plan, gives the ruleset that rendering from scratch
// gives; the plan back is there too; nothing is left to do.
func TestDiffFollowsRandomEdits(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cfg := overlapConfig()
		have := Ruleset{}
		for step := range 40 {
			mutate(rng, &cfg)
			want := renderFew(cfg)
			guarded, err := DiffGuards(have, want).ApplyTo(have)
			if err != nil {
				t.Fatalf("seed %d step %d: guards: %v", seed, step, err)
			}
			checkOnlyGuards(t, have, guarded, want)
			if rng.IntN(2) == 0 {
				have = guarded
			}
			have = mustApply(t, have, want)
			if rng.IntN(8) == 0 {
				bare, err := RemoveAllButGuards(have).ApplyTo(have)
				if err != nil {
					t.Fatalf("seed %d step %d: remove all but guards: %v", seed, step, err)
				}
				if !Diff(bare, want).Empty() && rng.IntN(2) == 0 {
					have = bare
				}
			}
		}
		mustApply(t, have, Ruleset{})
	}
}

// mustApply applies the difference and gives what comes out.
func mustApply(t *testing.T, have, want Ruleset) Ruleset {
	t.Helper()
	plan := Diff(have, want)
	got, err := plan.ApplyTo(have)
	if err != nil {
		t.Fatalf("%v in\n%s", err, plan)
	}
	if !got.Equal(want) || got.String() != want.String() {
		t.Fatalf("after\n%s\nstill to do\n%s", plan, Diff(got, want))
	}
	if left := Diff(got, want); !left.Empty() {
		t.Fatalf("equal, and still to do\n%s", left)
	}
	return got
}

// checkOnlyGuards holds the promises of DiffGuards: every guard of want is
// there, no guard let go of anything, nothing else changed.
func checkOnlyGuards(t *testing.T, have, got, want Ruleset) {
	t.Helper()
	for name, c := range want.Chains {
		if isGuard(name) && !got.Chains[name].equal(c) {
			t.Fatalf("guard chain %s is not there", name)
		}
	}
	for name, s := range want.Sets {
		if !isGuard(name) {
			continue
		}
		for key := range s.Elements {
			if !covers(got.Sets[name], key) {
				t.Fatalf("guard %s lacks %s", name, key)
			}
		}
	}
	for name, c := range have.Chains {
		if g, ok := got.Chains[name]; !ok || !g.equal(c) {
			t.Fatalf("chain %s was changed", name)
		}
	}
	for name, s := range have.Sets {
		g, ok := got.Sets[name]
		if !ok || !isGuard(name) && !g.equal(s) {
			t.Fatalf("set %s was changed", name)
		}
		for key, value := range s.Elements {
			if !covers(g, key) || !s.Interval && g.Elements[key] != value {
				t.Fatalf("guard %s lost %s", name, key)
			}
		}
	}
}

func covers(s Set, key string) bool {
	if !s.Interval {
		_, ok := s.Elements[key]
		return ok
	}
	want, _ := parseSpan(key)
	for _, have := range spansOf(s) {
		if have.lo.Compare(want.lo) <= 0 && want.hi.Compare(have.hi) <= 0 {
			return true
		}
	}
	return false
}

// One edit of one policy among many touches that policy alone.
func TestDiffIsIncremental(t *testing.T) {
	cfg := bigConfig(200, 20)
	before := Render(cfg)
	edits := map[string]func(*Config){
		"one rule more": func(c *Config) {
			c.Policies[7].Rules = append(c.Policies[7].Rules, rule("11.0.0.0/8", ToExit, "red.0"))
		},
		"one rule less": func(c *Config) { c.Policies[7].Rules = c.Policies[7].Rules[1:] },
		"one client more": func(c *Config) {
			c.Policies[7].Clients = append(c.Policies[7].Clients, prefixes("10.244.255.1/32")...)
		},
		"one source more": func(c *Config) { c.Networks[0].Sources = append(c.Networks[0].Sources, prefixes("203.0.113.0/24")...) },
	}
	for name, edit := range edits {
		cfg := bigConfig(200, 20)
		edit(&cfg)
		ops := 1
		if name == "one source more" {
			ops = 2 // for the guard, and for what comes back
		}
		plan := Diff(before, Render(cfg))
		if len(plan.Ops) != ops || slices.ContainsFunc(plan.Ops, func(o Op) bool { return o.Kind != kindElement }) {
			t.Errorf("%s takes\n%s", name, plan)
		}
	}
}

// bigConfig is many policies of one client network each.
func bigConfig(policies, destinations int) Config {
	cfg := overlapConfig()
	cfg.Pools, cfg.Exits, cfg.Policies = nil, nil, nil
	for i := range 4 {
		pool := Pool{
			Name: fmt.Sprintf("pool-%d", i), Network: "red", ID: uint16(1 + i),
			Pool4: addrs("198.51.100.0", "198.51.100.1"), Pool6: addrs("2001:db8:e::"),
		}
		cfg.Pools = append(cfg.Pools, pool)
		cfg.Exits = append(cfg.Exits, Exit{Name: fmt.Sprintf("red.%d", i), Network: "red", Mark: redMark + uint32(i), Pool: pool.Name})
	}
	for p := range policies {
		policy := Policy{Name: fmt.Sprintf("policy-%d", p), Clients: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(p % 250), byte(p / 250 * 32)}), 28),
		}}
		for d := range destinations {
			policy.Rules = append(policy.Rules, rule(fmt.Sprintf("10.%d.%d.%d/27", d, p%256, p/256*64), ToExit, fmt.Sprintf("red.%d", d%4)))
		}
		cfg.Policies = append(cfg.Policies, policy)
	}
	return cfg
}
