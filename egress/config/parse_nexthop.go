package config

import (
	"net/netip"
	"slices"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
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

// typeBFD is the kind of nextHopProbes that is a BFD session.
const typeBFD = "bfd"

// Bounds of a BFD session. With a multiplier of 1 every lost packet would be a
// failure.
const (
	DefaultBFDFall = 3
	minBFDFall     = 2
	maxBFDFall     = 255
)

// nextHopProbes checks the templates of probes of next hops.
func (p *parser) nextHopProbes(n *network, raws []RawNextHopProbe, others []probes.Config) (configs []probes.Config, sessions []bfd.Config) {
	taken := map[string]bool{}
	for _, o := range others {
		taken[o.Name] = true
	}
	for i, raw := range raws {
		at := n.at.key("nextHopProbes").index(i)
		name := raw.Name
		if name == "" {
			name = raw.Type + "-nexthop"
		} else {
			p.name(at.key("name"), name, maxName)
		}
		switch {
		case raw.Type == typeBFD && len(sessions) > 0:
			p.add(at.key("type"), "there is a probe of type bfd already: two systems have one session on a link")
		case raw.Type == typeBFD:
			sessions = append(sessions, p.session(n, at, name, raw))
		default:
			configs = append(configs, p.nextHopProbe(n, at, name, raw))
		}
		if full := n.name + "/" + name; taken[full] {
			p.add(at.key("name"), "%s is the name of another probe of this network already", quote(name))
		} else {
			taken[full] = true
		}
	}
	return configs, sessions
}

func (p *parser) nextHopProbe(n *network, at path, name string, raw RawNextHopProbe) probes.Config {
	p.template = true
	c := p.probe(n, at, name, RawProbe{Type: raw.Type, Interval: raw.Interval, AttemptTimeout: raw.AttemptTimeout,
		Rise: raw.Rise, Fall: raw.Fall, HoldDown: raw.HoldDown, Damping: raw.Damping})
	p.template = false
	if !slices.Contains(nextHopProbeTypes(), string(c.Type)) && c.Type != "" {
		p.add(at.key("type"), "%s cannot probe a next hop: use %s", c.Type, alternatives(nextHopProbeTypes()))
	}
	return c
}

// session checks a template of BFD sessions.
func (p *parser) session(n *network, at path, name string, raw RawNextHopProbe) bfd.Config {
	for _, c := range []struct {
		key   string
		given bool
		why   string
	}{
		{"attemptTimeout", raw.AttemptTimeout != "", "there are no attempts; a session is down after fall intervals without a packet"},
		{"rise", raw.Rise != nil, "a session is up when both sides have heard each other"},
		{"holdDown", raw.HoldDown != "", "a session is up when both sides have heard each other"},
		{"damping", raw.Damping != RawDamping{}, "a session is up when both sides have heard each other"},
	} {
		if c.given {
			p.add(at.key(c.key), "is not for probes of type bfd: %s", c.why)
		}
	}
	interval := p.duration(at.key("interval"), raw.Interval, DefaultProbeInterval, bfd.MinInterval, bfd.MaxInterval)
	return bfd.Config{Name: n.name + "/" + name, Device: n.name, DesiredMinTx: interval, RequiredMinRx: interval,
		DetectMult: uint8(p.integer(at.key("fall"), raw.Fall, DefaultBFDFall, minBFDFall, maxBFDFall))}
}

// nextHopProbeTypes are the kinds that need nothing but an address.
func nextHopProbeTypes() []string {
	return []string{string(probes.ICMP), string(probes.ARPND), typeBFD}
}

func words(types []probes.Type) []string {
	var out []string
	for _, t := range types {
		out = append(out, string(t))
	}
	return out
}
