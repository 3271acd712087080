package config

import (
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/egret-router/egret/egress"
)

func (p *parser) parsePools(raws []RawPool) []egress.Pool {
	at := path("pools")
	if len(raws) > MaxPools {
		p.add(at, "there are %d pools, at most %d are possible", len(raws), MaxPools)
	}
	var pools []egress.Pool
	taken := map[string]path{}
	for i, raw := range raws {
		pools = append(pools, p.parsePool(at.index(i), raw, taken))
	}
	for _, name := range p.networkNames {
		p.networkInPools(p.networks[name])
	}
	return pools
}

func (p *parser) parsePool(at path, raw RawPool, taken map[string]path) egress.Pool {
	pool := egress.Pool{Name: raw.Name, Network: raw.Network}
	pool.PerFlow = p.oneOf(at.key("stickiness"), raw.Stickiness, "client", "client", "flow") == "flow"
	p.name(at.key("name"), raw.Name, maxName)
	n := p.networkNamed(at.key("network"), raw.Network)
	if len(raw.Prefixes) == 0 {
		p.add(at.key("prefixes"), "is missing: name at least one prefix or address")
	}
	for i, s := range raw.Prefixes {
		at := at.key("prefixes").index(i)
		prefix, ok := p.prefix(at, s)
		if !ok {
			continue
		}
		pool.Prefixes = append(pool.Prefixes, prefix)
		if what := overlapsSpecial(prefix); what != "" {
			p.add(at, "%s has %s addresses in it: egress addresses are unicast addresses of the network", prefix, what)
		} else {
			p.reserve(n, at, prefix, raw.Name)
		}
	}
	pool.Advertise = egress.AdvertiseAs(p.oneOf(at.key("advertise"), raw.Advertise, string(egress.AdvertiseBlocks),
		string(egress.AdvertiseBlocks), string(egress.AdvertiseAggregate), string(egress.AdvertiseHosts), string(egress.AdvertiseNone)))
	pool.Attributes = p.attributes(at, RawExport{raw.Communities, raw.MED, raw.LocalPref, raw.Prepend})
	if first, twice := taken[raw.Name]; twice {
		p.add(at.key("name"), "%s is the name of %s already", quote(raw.Name), first)
	} else if raw.Name != "" {
		taken[raw.Name] = at
		p.pools[raw.Name] = &pool
		p.poolNames = append(p.poolNames, raw.Name)
		if n != nil {
			n.pools = append(n.pools, raw.Name)
		}
	}
	return pool
}

// reserve notes that prefix belongs to a pool of n, which may be nil if unknown.
func (p *parser) reserve(n *network, at path, prefix netip.Prefix, pool string) {
	if client, overlap := p.overlappingClients(prefix); overlap {
		p.dangling("clients", at, "%s overlaps %s of clients.prefixes: a client with such an address could leave without being translated", prefix, client)
	}
	if n == nil {
		return
	}
	if n.ranges.OverlapsPrefix(prefix) {
		other, name := overlapping(n.ranges, prefix)
		p.add(at, "%s overlaps %s of pool %s in the same network %s", prefix, other, quote(name), quote(n.name))
		return
	}
	n.ranges.Insert(prefix, pool)
}

// overlapping finds an entry of t that overlaps prefix; there must be one.
func overlapping(t *bart.Table[string], prefix netip.Prefix) (other netip.Prefix, name string) {
	for other, name := range t.Supernets(prefix) {
		return other, name
	}
	for other, name := range t.Subnets(prefix) {
		return other, name
	}
	return other, name
}

// overlappingClients finds one of clients.prefixes that overlaps prefix.
func (p *parser) overlappingClients(prefix netip.Prefix) (netip.Prefix, bool) {
	for other := range p.clientPrefixes.Supernets(prefix) {
		return other, true
	}
	for other := range p.clientPrefixes.Subnets(prefix) {
		return other, true
	}
	return netip.Prefix{}, false
}

// networkInPools checks that nothing a network needs lies in one of its pools:
// inside the network, pool prefixes are discarded, so that unsolicited packets
// cannot loop.
func (p *parser) networkInPools(n *network) {
	for _, use := range n.uses {
		if pool, inside := n.ranges.Lookup(use.addr); inside {
			p.dangling("pools", use.at, "%s lies in pool %s: %s", use.addr, quote(pool), use.why)
		}
	}
	for _, route := range n.routes {
		if pool, inside := n.ranges.LookupPrefix(route.prefix); inside {
			p.dangling("pools", route.at, "%s lies in pool %s: pool addresses come back to this gateway, they are not routed on", route.prefix, quote(pool))
		}
	}
	for _, source := range n.sources {
		if !n.ranges.Contains(source.addr) { // else reported as a use
			p.dangling(n.at.key("interfaces"), source.at, "%s is not an address of this gateway in this network: use one of interfaces[].addresses, or leave it out", source.addr)
		}
	}
}

// networkNamed finds the network that another object refers to.
func (p *parser) networkNamed(at path, name string) *network {
	if !p.required(at, name, "the name of a network") {
		return nil
	}
	n := p.networks[name]
	if n == nil {
		p.dangling("networks", at, "there is no network %s%s", quote(name), suggest(name, p.networkNames))
	}
	return n
}
