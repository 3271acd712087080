package egress

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// randomSpec is a configuration with everything that decides where a flow goes,
// and a state in which some of it does not work.
func randomSpec(rng *rand.Rand) (*Spec, State) {
	spec := &Spec{Settings: Settings{Ownership: DefaultOwnership()},
		Clients: Clients{Interfaces: []string{"eth0"}, Prefixes: parsePrefixes("10.244.0.0/16", "fd00:244::/32"), DropUnmatched: rng.IntN(3) == 0}}
	st := State{Links: map[string]vrf.Link{}, Verdicts: map[string]probes.Verdict{}, Drains: map[string]drain.Record{}}
	for i := range 1 + rng.IntN(3) {
		randomNetwork(rng, spec, &st, i)
	}
	clients := map[netip.Prefix]bool{}
	for i := range 1 + rng.IntN(6) {
		p := Policy{Name: fmt.Sprintf("p%d", i), Missing: rng.IntN(12) == 0}
		for range 1 + rng.IntN(5) {
			if c := randomPrefix(rng, spec.Clients.Prefixes[rng.IntN(2)]); !clients[c] {
				clients[c] = true
				p.Clients = append(p.Clients, c)
			}
		}
		if !p.Missing {
			p.Rules = randomRules(rng, spec)
		}
		spec.Policies = append(spec.Policies, p)
	}
	return spec, st
}

func parsePrefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func randomNetwork(rng *rand.Rand, spec *Spec, st *State, i int) {
	name, port := fmt.Sprintf("n%d", i), fmt.Sprintf("eth%d", i+1)
	st.Links[port] = vrf.Link{Name: port, Up: true, Carrier: rng.IntN(8) > 0}
	n := Network{Name: name, Ports: []vrf.Port{{Name: port, Addresses: parsePrefixes("172.16.0.1/24", "fd00:16::1/64")}},
		MaxNextHops:   rng.IntN(6) % 4,
		NextHopProbes: []probes.Config{{Name: name + "/nh", Network: name, Device: name, Type: probes.ICMP}},
		OnNoNextHop:   []NoNextHop{NoNextHopDrop, NoNextHopReject, NoNextHopFallback}[rng.IntN(3)], Failback: FailbackNewFlows}
	st.Drains[name] = drain.Record{Stage: []drain.Stage{drain.Lowered, drain.Refusing, drain.Withdrawn, 9: drain.None}[rng.IntN(10)]}
	for _, a := range allHops() {
		st.Verdicts[nextHopProbeName(n.NextHopProbes[0], a)] = []probes.Verdict{probes.Up, probes.Up, probes.Up, probes.Down, probes.Unknown}[rng.IntN(5)]
	}
	for _, all := range []string{"20.0.0.0/8", "fd00:20::/32"} {
		for range rng.IntN(4) {
			prefix := randomPrefix(rng, netip.MustParsePrefix(all))
			if !slices.ContainsFunc(n.StaticRoutes, func(s StaticRoute) bool { return s.Prefix == prefix }) {
				n.StaticRoutes = append(n.StaticRoutes, StaticRoute{prefix, randomHops(rng, prefix.Addr().Is6())})
			}
		}
		n.StaticRoutes = append(n.StaticRoutes, StaticRoute{netip.MustParsePrefix(all), randomHops(rng, all[0] == 'f')})
		n.StaticRoutes = slices.CompactFunc(n.StaticRoutes, func(a, b StaticRoute) bool { return a.Prefix == b.Prefix })
	}
	spec.Networks = append(spec.Networks, n)
	for j := range 1 + rng.IntN(2) {
		p := Pool{Name: fmt.Sprintf("%s-pool%d", name, j), Network: name, Prefixes: parsePrefixes(fmt.Sprintf("198.51.%d.0/30", j))}
		if rng.IntN(3) > 0 {
			p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/126", j)))
		}
		spec.Pools = append(spec.Pools, p)
	}
}

// allHops are the gateways of every network, of both families.
func allHops() []netip.Addr {
	var out []netip.Addr
	for i := range 6 {
		out = append(out, netip.MustParseAddr(fmt.Sprintf("172.16.0.1%d", i)), netip.MustParseAddr(fmt.Sprintf("fd00:16::1%d", i)))
	}
	return out
}

func randomHops(rng *rand.Rand, v6 bool) []NextHop {
	all := slices.DeleteFunc(allHops(), func(a netip.Addr) bool { return a.Is6() != v6 })
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var out []NextHop
	for _, a := range all[:1+rng.IntN(len(all))] {
		out = append(out, NextHop{Address: a, Weight: uint16(1 + rng.IntN(3)), Preference: uint16(rng.IntN(3) / 2)})
	}
	return out
}

func randomRules(rng *rand.Rand, spec *Spec) []Rule {
	var rules []Rule
	for range 1 + rng.IntN(10) {
		inside := netip.MustParsePrefix([]string{"0.0.0.0/0", "::/0", "20.0.0.0/8", "fd00:20::/32"}[rng.IntN(4)])
		r := Rule{Destination: randomPrefix(rng, inside),
			Action: []Action{ActionNetwork, ActionNetwork, ActionNetwork, ActionSkip, ActionDrop, ActionReject}[rng.IntN(6)]}
		if rng.IntN(3) == 0 {
			r.Destination = inside
		}
		if slices.ContainsFunc(rules, func(o Rule) bool { return o.Destination == r.Destination }) {
			continue
		}
		if r.Action == ActionNetwork {
			pool := spec.Pools[rng.IntN(len(spec.Pools))]
			r.Network, r.Pool, r.MaxNextHops = pool.Network, pool.Name, rng.IntN(5)%4
			if rng.IntN(2) == 0 {
				r.NextHops = randomHops(rng, r.Destination.Addr().Is6())
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// randomPrefix is in p, often at its edges, so that many nest.
func randomPrefix(rng *rand.Rand, p netip.Prefix) netip.Prefix {
	bits := p.Bits() + rng.IntN(min(20, p.Addr().BitLen()-p.Bits())+1)
	if rng.IntN(6) == 0 {
		bits = p.Addr().BitLen()
	}
	return netip.PrefixFrom(randomAddr(rng, p), bits).Masked()
}

// randomAddr is in p. Its bits beyond the prefix are few different ones, so that
// addresses meet.
func randomAddr(rng *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		if i < p.Bits()+4 || rng.IntN(16) == 0 {
			b[i/8] |= byte(rng.IntN(2)) << (7 - i%8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
