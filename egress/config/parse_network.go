package config

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/egret-router/egret/egress"
)

// maxNextHops is the highest bound a user may write: the kernel's groups count
// their members in 16 bits.
const maxNextHops = math.MaxUint16

func (p *parser) parseNetworks(raws []RawNetwork) []egress.Network {
	at := path("networks")
	if len(raws) > MaxNetworks {
		p.add(at, "there are %d networks, at most %d are possible", len(raws), MaxNetworks)
	}
	var networks []egress.Network
	for i, raw := range raws {
		networks = append(networks, p.parseNetwork(at.index(i), raw))
	}
	return networks
}

func (p *parser) parseNetwork(at path, raw RawNetwork) egress.Network {
	n := &network{name: raw.Name, at: at, ranges: new(bart.Table[string])}
	p.networkName(n)
	result := egress.Network{
		Name:        raw.Name,
		Table:       p.networkTable(at.key("table"), raw.Table),
		Ports:       p.ports(n, raw),
		MaxNextHops: int(p.integer(at.key("maxNextHops"), raw.MaxNextHops, 0, 0, maxNextHops)),
		OnNoNextHop: egress.NoNextHop(p.oneOf(at.key("onNoNextHop"), raw.OnNoNextHop, string(egress.NoNextHopDrop),
			string(egress.NoNextHopDrop), string(egress.NoNextHopReject), string(egress.NoNextHopFallback))),
		Failback: egress.Failback(p.oneOf(at.key("failback"), raw.Failback, string(egress.FailbackNewFlows),
			string(egress.FailbackNewFlows), string(egress.FailbackNever))),
	}
	result.StaticRoutes = p.staticRoutes(n, raw.StaticRoutes)
	if raw.BGP != nil {
		result.BGP = p.bgp(n, at.key("bgp"), *raw.BGP)
	}
	result.Probes = p.probes(n, raw.Probes)
	result.NextHopProbes, result.NextHopBFD = p.nextHopProbes(n, raw.NextHopProbes, result.Probes)
	if raw.BGP != nil {
		result.BGP.BFD = p.peerSessions(n, at.key("bgp").key("peers"), raw.BGP.Peers, result)
	}
	return result
}

// networkName checks the name, which is a device name too, and registers n.
func (p *parser) networkName(n *network) {
	at := n.at.key("name")
	if !p.name(at, n.name, maxNetworkName) && n.name == "" {
		return
	}
	switch other, taken := p.networks[n.name]; {
	case n.name == egress.ClientsNetwork:
		p.add(at, "%s stands for the clients' side in status, metrics and egret bgp: use another name", quote(n.name))
		return
	case n.name == "lo" || n.name == "all" || n.name == "default":
		p.add(at, "%s cannot be used: the VRF device gets this name, and the kernel has another meaning for it", quote(n.name))
	case taken:
		p.add(at, "%s is the name of %s already", quote(n.name), other.at)
		return
	}
	p.networks[n.name] = n
	p.networkNames = append(p.networkNames, n.name)
}

// hasAddresses says whether addresses of a's family are configured. Without
// any, the ports bring their own, which are unknown here.
func (n *network) hasAddresses(a netip.Addr) bool {
	return slices.ContainsFunc(n.own, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() })
}

func (n *network) isOwn(a netip.Addr) bool {
	return slices.ContainsFunc(n.own, func(p netip.Prefix) bool { return p.Addr() == a })
}

// connected says whether a is on a prefix of one of the ports, as far as known.
func (n *network) connected(a netip.Addr) bool { return containsAddr(n.own, a) || !n.hasAddresses(a) }

// connectedPrefixes lists the prefixes of a's family for messages.
func (n *network) connectedPrefixes(a netip.Addr) string {
	var list []string
	for _, p := range n.own {
		if p.Addr().Is4() == a.Is4() {
			list = append(list, p.Masked().String())
		}
	}
	return strings.Join(list, ", ")
}

// otherHost checks that a can be a host that is not this gateway.
func (p *parser) otherHost(n *network, at path, a netip.Addr) bool {
	switch {
	case a.Is6() && a.IsLinkLocalUnicast():
		p.add(at, "%s is link-local: write the global address", a)
	case notHost(a) != "":
		p.add(at, "%s is %s: a host's unicast address is needed", a, notHost(a))
	case n.isOwn(a):
		p.add(at, "%s is an address of this gateway itself, in this network", a)
	default:
		return true
	}
	return false
}

func (p *parser) staticRoutes(n *network, raws []RawStaticRoute) []egress.StaticRoute {
	var routes []egress.StaticRoute
	seen := map[netip.Prefix]path{}
	for i, raw := range raws {
		at := n.at.key("staticRoutes").index(i)
		prefix, ok := p.prefix(at.key("prefix"), raw.Prefix)
		if !ok {
			continue
		}
		if what := insideSpecial(prefix); what != "" {
			p.add(at.key("prefix"), "%s is %s: such addresses are not routed", prefix, what)
		}
		if first, twice := seen[prefix]; twice {
			p.add(at.key("prefix"), "%s has a route already (%s): give it all next hops", prefix, first)
		} else {
			seen[prefix] = at
			n.routes = append(n.routes, located{at.key("prefix"), prefix})
		}
		hops := at.key("nextHops")
		if len(raw.NextHops) == 0 {
			p.add(hops, "is missing: name at least one gateway")
		}
		routes = append(routes, egress.StaticRoute{Prefix: prefix, NextHops: p.nextHops(n, hops, raw.NextHops, func(at path, a netip.Addr) bool {
			if a.Is4() != prefix.Addr().Is4() {
				p.add(at, "%s is %s, but the route %s is %s", a, family(a), prefix, family(prefix.Addr()))
				return false
			}
			return true
		})})
	}
	return routes
}
