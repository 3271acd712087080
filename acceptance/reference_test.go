package acceptance

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
)

// This file has random configurations, and what they mean: obvious and slow, by
// linear scans over the configuration.

// verdict is what a configuration says of a pair of a client and a destination.
type verdict struct {
	outcome string // normal, drop, reject, exit
	policy  string
	rule    *egress.Rule
	// Of an exit: the gateways that its traffic may take, none for unreachable, and
	// how many of them one client uses at most (0 is all).
	gateways []netip.Addr
	bound    int
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// never are destinations that no policy is asked about.
var never = prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8")

// decideSlowly is the reference.
func decideSlowly(spec *egress.Spec, src, dst netip.Addr) verdict {
	if !contains(spec.Clients.Prefixes, src) || contains(spec.Clients.Prefixes, dst) || contains(never, dst) {
		return verdict{outcome: "normal"}
	}
	var policy *egress.Policy
	longest := -1
	for i := range spec.Policies {
		for _, c := range spec.Policies[i].Clients {
			if c.Contains(src) && c.Bits() > longest {
				policy, longest = &spec.Policies[i], c.Bits()
			}
		}
	}
	if policy == nil {
		if spec.Clients.DropUnmatched {
			return verdict{outcome: "drop"}
		}
		return verdict{outcome: "normal"}
	}
	out := verdict{outcome: "normal", policy: policy.Name}
	longest = -1
	for i := range policy.Rules {
		if d := policy.Rules[i].Destination; d.Contains(dst) && d.Bits() > longest {
			out.rule, longest = &policy.Rules[i], d.Bits()
		}
	}
	if out.rule == nil {
		return out
	}
	switch out.rule.Action {
	case egress.ActionDrop:
		out.outcome = "drop"
	case egress.ActionReject:
		out.outcome = "reject"
	case egress.ActionNetwork:
		out.outcome = "exit"
		out.gateways, out.bound = gatewaysSlowly(spec, out.rule, dst)
	}
	return out
}

// gatewaysSlowly are the next hops of a rule: its own, or those of the longest
// route of its network.
func gatewaysSlowly(spec *egress.Spec, rule *egress.Rule, dst netip.Addr) ([]netip.Addr, int) {
	hops, bound := rule.NextHops, rule.MaxNextHops
	for _, n := range spec.Networks {
		if n.Name != rule.Network {
			continue
		}
		if bound == 0 {
			bound = n.MaxNextHops
		}
		longest := -1
		for _, r := range n.StaticRoutes {
			if len(rule.NextHops) == 0 && r.Prefix.Contains(dst) && r.Prefix.Bits() > longest {
				hops, longest = r.NextHops, r.Prefix.Bits()
			}
		}
	}
	var out []netip.Addr
	for _, h := range hops {
		out = append(out, h.Address)
	}
	return out, bound
}

// chance makes configurations and addresses.
type chance struct {
	*rand.Rand
	hopSets [2][]hopChoice
}

type hopChoice struct {
	hops  []egress.NextHop
	bound int
}

func familyOf(v6 bool) lab.Family {
	if v6 {
		return lab.IPv6
	}
	return lab.IPv4
}

// someHops are one to four of the routers.
func (c *chance) someHops(v6 bool) []egress.NextHop {
	var out []egress.NextHop
	for _, i := range c.Perm(lab.FanRouters)[:1+c.IntN(lab.FanRouters)] {
		out = append(out, egress.NextHop{Address: lab.FanRouter(familyOf(v6), i)})
	}
	return out
}

// inside is a random address of a prefix.
func (c *chance) inside(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		if c.IntN(2) == 1 {
			b[bit/8] |= 0x80 >> (bit % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// within is a random prefix of a prefix.
func (c *chance) within(p netip.Prefix) netip.Prefix {
	bits := p.Bits() + c.IntN(p.Addr().BitLen()-p.Bits()+1)
	return netip.PrefixFrom(c.inside(p), bits).Masked()
}

// bases are where destinations are crowded, so that prefixes nest.
var bases = [2][]netip.Prefix{
	prefixes("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/14", "10.0.0.0/20", "10.1.2.0/24", "8.8.0.0/16"),
	prefixes("::/0", "fd00:10::/32", "fd00:10::/44", "fd00:10::/60", "2001:db8:8::/48"),
}

// destination is a prefix for a rule.
func (c *chance) destination(v6 bool) netip.Prefix {
	all := bases[0]
	if v6 {
		all = bases[1]
	}
	for {
		p := all[c.IntN(len(all))]
		if c.IntN(3) > 0 {
			p = c.within(p)
		}
		if !slices.ContainsFunc(ownLinks, func(o netip.Prefix) bool { return o.Contains(p.Addr()) && o.Bits() <= p.Bits() }) {
			return p
		}
	}
}

// config is a random configuration for the fan without probes: every next hop is
// usable.
func (c *chance) config(dropUnmatched bool) *egress.Spec {
	s := &egress.Spec{
		Clients: egress.Clients{Interfaces: []string{"eth0"}, Prefixes: prefixes("10.244.0.0/16", "fd00:244::/32"), DropUnmatched: dropUnmatched},
		Networks: []egress.Network{
			{Name: "red", Ports: []vrf.Port{{Name: "eth1", Addresses: prefixes("172.16.0.1/24", "fd00:16::1/64")}}, Failback: egress.FailbackNewFlows, OnNoNextHop: egress.NoNextHopDrop},
			{Name: "blue", Ports: []vrf.Port{{Name: "eth2", Addresses: prefixes("172.16.0.1/24", "fd00:16::1/64")}}, Failback: egress.FailbackNewFlows, OnNoNextHop: egress.NoNextHopDrop},
		},
		Pools: []egress.Pool{
			{Name: "red-pool", Network: "red", Prefixes: prefixes(fanPool4, fanPool6)},
			{Name: "red-pool2", Network: "red", Prefixes: prefixes(secondPool4, secondPool6)},
			{Name: "blue-pool", Network: "blue", Prefixes: prefixes("203.0.113.0/28", "2001:db8:113::/124")},
		},
		Settings: egress.Settings{Flowtable: true, Ownership: egress.DefaultOwnership()},
	}
	for _, v6 := range []bool{false, true} {
		f := 0
		if v6 {
			f = 1
		}
		c.hopSets[f] = nil
		for range 8 {
			c.hopSets[f] = append(c.hopSets[f], hopChoice{c.someHops(v6), c.IntN(4)})
		}
		routes := map[netip.Prefix]bool{}
		for range 10 {
			p := c.destination(v6)
			if routes[p] {
				continue
			}
			routes[p] = true
			s.Networks[0].StaticRoutes = append(s.Networks[0].StaticRoutes, egress.StaticRoute{Prefix: p, NextHops: c.someHops(v6)})
		}
		blue := netip.MustParseAddr("172.16.0.2")
		if v6 {
			blue = netip.MustParseAddr("fd00:16::2")
		}
		s.Networks[1].StaticRoutes = append(s.Networks[1].StaticRoutes, egress.StaticRoute{Prefix: bases[f][1], NextHops: []egress.NextHop{{Address: blue}}})
	}
	clients := map[netip.Prefix]bool{}
	for i := range 40 {
		p := egress.Policy{Name: fmt.Sprint("p", i)}
		for len(p.Clients) < 1+c.IntN(4) {
			prefix := c.within(s.Clients.Prefixes[c.IntN(2)])
			if prefix.Bits() == s.Clients.Prefixes[0].Bits() || clients[prefix] {
				continue
			}
			clients[prefix] = true
			p.Clients = append(p.Clients, prefix)
		}
		p.Rules = c.rules()
		s.Policies = append(s.Policies, p)
	}
	return s
}

func (c *chance) rules() []egress.Rule {
	var out []egress.Rule
	taken := map[netip.Prefix]bool{}
	for range 2 + c.IntN(20) {
		v6 := c.IntN(2) == 1
		r := egress.Rule{Destination: c.destination(v6)}
		if taken[r.Destination] {
			continue
		}
		taken[r.Destination] = true
		switch n := c.IntN(20); {
		case n < 3:
			r.Action = egress.ActionSkip
		case n < 5:
			r.Action = egress.ActionDrop
		case n < 7:
			r.Action = egress.ActionReject
		default:
			c.target(&r, v6)
		}
		out = append(out, r)
	}
	return out
}

func (c *chance) target(r *egress.Rule, v6 bool) {
	r.Action, r.Network, r.Pool = egress.ActionNetwork, "red", []string{"red-pool", "red-pool2"}[c.IntN(2)]
	switch c.IntN(4) {
	case 0:
		r.Network, r.Pool = "blue", "blue-pool"
	case 1:
		r.MaxNextHops = c.IntN(3)
	default:
		f := 0
		if v6 {
			f = 1
		}
		set := c.hopSets[f][c.IntN(len(c.hopSets[f]))]
		r.NextHops, r.MaxNextHops = set.hops, set.bound
	}
}

// pair is a client and a destination, near what the configuration names.
func (c *chance) pair(s *egress.Spec) (src, dst netip.Addr) {
	v6 := c.IntN(2) == 1
	f := 0
	if v6 {
		f = 1
	}
	src = c.inside(s.Clients.Prefixes[f])
	for range 20 {
		p := s.Policies[c.IntN(len(s.Policies))]
		prefix := p.Clients[c.IntN(len(p.Clients))]
		if prefix.Addr().Is6() == v6 {
			if c.IntN(5) > 0 {
				src = c.inside(prefix)
			}
			break
		}
	}
	for {
		switch c.IntN(10) {
		case 0:
			dst = c.inside(s.Clients.Prefixes[f])
		case 1:
			dst = c.inside(bases[f][0])
		case 2, 3, 4:
			dst = c.inside(c.destination(v6))
		default:
			p := decideSlowly(s, src, c.inside(bases[f][1])).policy
			i := slices.IndexFunc(s.Policies, func(o egress.Policy) bool { return o.Name == p })
			if i < 0 {
				i = c.IntN(len(s.Policies))
			}
			r := s.Policies[i].Rules[c.IntN(len(s.Policies[i].Rules))]
			if r.Destination.Addr().Is6() != v6 {
				continue
			}
			dst = c.inside(r.Destination)
		}
		if !contains(ownLinks, dst) {
			return src, dst
		}
	}
}

// ownLinks are where the gateway has addresses, links and pools, of which the
// reference knows nothing. Multicast is not routed.
var ownLinks = prefixes("172.16.0.0/24", "192.0.2.0/24", "10.244.0.1/32", "fd00:244::1/128", "fd00:16::/64", "fd00:2::/64", "fe80::/10", "ff00::/8", "224.0.0.0/3", "0.0.0.0/8", "127.0.0.0/8", "::/96",
	"198.51.100.0/24", "203.0.113.0/24", "2001:db8:51::/48", "2001:db8:113::/48", "100::/64")

// yaml writes a configuration of config as a file.
func yaml(s *egress.Spec) string {
	var b strings.Builder
	unmatched := "route"
	if s.Clients.DropUnmatched {
		unmatched = "drop"
	}
	fmt.Fprintf(&b, "clients: {interfaces: [eth0], prefixes: %s, unmatched: %s}\nnetworks:\n", list(s.Clients.Prefixes), unmatched)
	for _, n := range s.Networks {
		fmt.Fprintf(&b, "  - name: %s\n    interfaces: [%s]\n    addresses: %s\n    staticRoutes:\n", n.Name, n.Ports[0].Name, list(n.Ports[0].Addresses))
		for _, r := range n.StaticRoutes {
			fmt.Fprintf(&b, "      - {prefix: %q, nextHops: %s}\n", r.Prefix, hopList(r.NextHops))
		}
	}
	b.WriteString("pools:\n")
	for _, p := range s.Pools {
		fmt.Fprintf(&b, "  - {name: %s, network: %s, prefixes: %s}\n", p.Name, p.Network, list(p.Prefixes))
	}
	b.WriteString("policies:\n")
	for _, p := range s.Policies {
		fmt.Fprintf(&b, "  - name: %s\n    clients: %s\n    rules:\n", p.Name, list(p.Clients))
		for _, r := range p.Rules {
			fmt.Fprintf(&b, "      - {destination: %q", r.Destination)
			switch r.Action {
			case egress.ActionDrop, egress.ActionReject:
				fmt.Fprintf(&b, ", action: %s", r.Action)
			case egress.ActionNetwork:
				fmt.Fprintf(&b, ", network: %s, pool: %s", r.Network, r.Pool)
				if len(r.NextHops) > 0 {
					fmt.Fprintf(&b, ", nextHops: %s", hopList(r.NextHops))
				}
				if r.MaxNextHops > 0 {
					fmt.Fprintf(&b, ", maxNextHops: %d", r.MaxNextHops)
				}
			}
			b.WriteString("}\n")
		}
	}
	return b.String()
}

func list[T fmt.Stringer](items []T) string {
	var out []string
	for _, i := range items {
		out = append(out, fmt.Sprintf("%q", i.String()))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func hopList(hops []egress.NextHop) string {
	var out []netip.Addr
	for _, h := range hops {
		out = append(out, h.Address)
	}
	return list(out)
}
