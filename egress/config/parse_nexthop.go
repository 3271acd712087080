package config

import (
	"net/netip"
	"slices"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/probes"
)

// Bounds of a next hop's numbers. Linux 6.1 refuses a weight of 256.
const (
	maxWeight     = 255
	maxPreference = 65535
)

// nextHops checks gateways of network n. fits says, and reports, whether an
// address is of a family that can be used.
func (p *parser) nextHops(n *network, at path, raws []RawNextHop, fits func(path, netip.Addr) bool) []egress.NextHop {
	var hops []egress.NextHop
	for i, raw := range raws {
		at := at.index(i)
		a, ok := p.addr(at, raw.Address)
		weight := p.integer(at.key("weight"), raw.Weight, 1, 1, maxWeight)
		preference := p.integer(at.key("preference"), raw.Preference, 0, 0, maxPreference)
		pool, pooled := n.ranges.Lookup(a)
		switch {
		case !ok || !fits(at, a):
		case slices.ContainsFunc(hops, func(h egress.NextHop) bool { return h.Address == a }):
			p.add(at, "%s is listed twice", a)
		case !p.otherHost(n, at, a):
		case !n.connected(a):
			p.dangling(n.at.key("interfaces"), at, "%s is on no connected prefix of %s (%s)", a, n.called(at), n.connectedPrefixes(a))
		case pooled: // known only to rules, which are read after the pools
			p.dangling("pools", at, "%s lies in pool %s: its prefix is discarded inside the network, so the gateway would be out of reach", a, quote(pool))
		default:
			hops = append(hops, egress.NextHop{Address: a, Weight: uint16(weight), Preference: uint16(preference)})
			n.uses = append(n.uses, use{at, a, "its prefix is discarded inside the network, so the gateway would be out of reach"})
		}
	}
	return hops
}

// called names the network in a message about a field, which may be its own.
func (n *network) called(at path) string {
	if len(at) > len(n.at) && at[:len(n.at)] == n.at {
		return "this network"
	}
	return "network " + quote(n.name)
}

// ruleNextHops are the next hops of a rule, those of the destination's family.
// Without any of that family its traffic is dropped.
func (p *parser) ruleNextHops(at path, raw RawRule) []egress.NextHop {
	if len(raw.NextHops) == 0 {
		return nil
	}
	n := p.networks[raw.Network]
	if n == nil {
		return nil // reported
	}
	return p.nextHops(n, at.key("nextHops"), raw.NextHops, func(at path, a netip.Addr) bool {
		d, ok := (&report{}).parsePrefix("", raw.Destination)
		if raw.Destination != "" && ok && d.Addr().Is4() != a.Is4() {
			p.add(at, "%s is %s, but the destination %s is %s", a, family(a), d, family(d.Addr()))
			return false
		}
		return true
	})
}

// forFamily leaves of the rule's next hops those of the destination's family.
// If it has some, but none of that family, its traffic is dropped: only the
// defaults of a rule without a destination can come to that.
func forFamily(rule egress.Rule) egress.Rule {
	if len(rule.NextHops) == 0 {
		return rule
	}
	var hops []egress.NextHop
	for _, h := range rule.NextHops {
		if h.Address.Is4() == rule.Destination.Addr().Is4() {
			hops = append(hops, h)
		}
	}
	rule.NextHops = hops
	if len(hops) == 0 {
		return egress.Rule{Destination: rule.Destination, Action: egress.ActionDrop, Description: rule.Description}
	}
	return rule
}

// nextHopProbes checks the templates of probes of next hops.
func (p *parser) nextHopProbes(n *network, raws []RawNextHopProbe, others []probes.Config) []probes.Config {
	at := n.at.key("nextHopProbes")
	var configs []probes.Config
	for i, raw := range raws {
		at := at.index(i)
		name := raw.Name
		if name == "" {
			name = raw.Type + "-nexthop"
		} else {
			p.name(at.key("name"), name, maxName)
		}
		p.template = true
		c := p.probe(n, at, name, RawProbe{Type: raw.Type, Interval: raw.Interval, AttemptTimeout: raw.AttemptTimeout,
			Rise: raw.Rise, Fall: raw.Fall, HoldDown: raw.HoldDown, Damping: raw.Damping})
		p.template = false
		if !slices.Contains(nextHopProbeTypes(), c.Type) && c.Type != "" {
			p.add(at.key("type"), "%s cannot probe a next hop: use %s", c.Type, alternatives(words(nextHopProbeTypes())))
		}
		for _, o := range slices.Concat(others, configs) {
			if o.Name == c.Name {
				p.add(at.key("name"), "%s is the name of another probe of this network already", quote(name))
			}
		}
		configs = append(configs, c)
	}
	return configs
}

// nextHopProbeTypes are the kinds that need nothing but an address.
func nextHopProbeTypes() []probes.Type { return []probes.Type{probes.ICMP, probes.ARPND} }

func words(types []probes.Type) []string {
	var out []string
	for _, t := range types {
		out = append(out, string(t))
	}
	return out
}
