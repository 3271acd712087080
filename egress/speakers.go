package egress

import (
	"net/netip"
	"slices"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/vrf"
)

// bgp is the speakers' configuration. A network that is down advertises
// nothing, but keeps its sessions and what it learned. One that is drained asks
// its routers to prefer others, for as long as it advertises.
func (r *resolver) bgp(d *Desired) []bgp.Config {
	var out []bgp.Config
	for i := range r.spec.Networks {
		n := &r.spec.Networks[i]
		if n.BGP == nil {
			continue
		}
		adopted, ok := r.st.Adopted[n.Name]
		c := bgp.Config{Network: n.Name, Device: n.Name, ASN: n.BGP.ASN, RouterID: n.BGP.RouterID,
			ListenPort: listenPort(n.BGP), Peers: peersOf(n, r.st.Broken), GracefulRestart: n.BGP.GracefulRestart,
			Restarting: ok && adopted.Forwarding}
		for _, p := range r.pools[n.Name] {
			c.Reject = append(c.Reject, p.Prefixes...)
		}
		for _, a := range n.BGP.Advertise {
			c.Reject = append(c.Reject, a.Prefix)
		}
		dec := d.network(n.Name)
		c.Draining = dec.Drain.Stage != drain.None
		if dec.serves() {
			c.Advertise = advertisements(n.BGP.Advertise, r.pools[n.Name])
		}
		out = append(out, c)
	}
	if c, ok := r.clientBGP(d); ok {
		out = append(out, c)
	}
	return out
}

// listenPort is -1 unless we are to wait for a peer's dialling (passive). When
// both sides dial, connections collide (RFC 4271 6.8), and GoBGP may leave the
// losing one open, which the peer then takes for the winner and closes the
// session just established. Where only we dial, every few seconds, nothing can
// collide.
func listenPort(b *BGP) int {
	for _, p := range b.Peers {
		if p.Passive || p.Range.IsValid() {
			return b.ListenPort
		}
	}
	return -1
}

// named keeps unsolicited packets to prefixes that are advertised by name from
// looping; those that are pools' have their route already.
func (t *table) named() {
	if t.n.BGP == nil {
		return
	}
	for _, a := range t.n.BGP.Advertise {
		has := func(r vrf.Route) bool { return r.Prefix == a.Prefix && r.Metric == metricPool }
		if !slices.ContainsFunc(t.routes, has) {
			t.routes = append(t.routes, vrf.Route{Table: t.dec.Table, Prefix: a.Prefix, Metric: metricPool, Type: vrf.Blackhole})
		}
	}
}

// advertisements are the prefixes of a network's pools, each in the form that
// it asks for, and those that are named. A prefix is named once: what the user
// named wins, then the first pool.
func advertisements(named []bgp.Advertisement, pools []Pool) []bgp.Advertisement {
	out := slices.Clone(named)
	seen := map[netip.Prefix]bool{}
	for _, a := range named {
		seen[a.Prefix] = true
	}
	for i, p := range pools {
		for _, prefix := range p.advertised(pools[:i], pools[i+1:]) {
			if !seen[prefix] {
				seen[prefix] = true
				out = append(out, bgp.Advertisement{Prefix: prefix, Attributes: p.Attributes})
			}
		}
	}
	return out
}

// advertised are the prefixes under which a pool is known to the network.
func (p Pool) advertised(before, after []Pool) []netip.Prefix {
	switch p.Advertise {
	case AdvertiseNone:
		return nil
	case AdvertiseHosts:
		var out []netip.Prefix
		v4, v6 := poolAddresses(p.Prefixes)
		for _, a := range slices.Concat(v4, v6) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
		return out
	case AdvertiseAggregate:
		// Pools that say the same about their advertisements are aggregated
		// together; the first of them speaks for all.
		if slices.ContainsFunc(before, p.aggregatesWith) {
			return nil
		}
		all := slices.Clone(p.Prefixes)
		for _, other := range after {
			if p.aggregatesWith(other) {
				all = append(all, other.Prefixes...)
			}
		}
		return aggregate(all)
	}
	return p.Prefixes
}

// advertisedBy tells whether all of the pool is reachable by what is advertised.
func (p Pool) advertisedBy(now map[netip.Prefix]bool) bool {
	parts := p.Prefixes
	if p.Advertise == AdvertiseHosts {
		parts = p.advertised(nil, nil)
	}
	for _, part := range parts {
		covered := now[part]
		for bits := part.Bits() - 1; bits >= 0 && !covered; bits-- {
			covered = now[netip.PrefixFrom(part.Addr(), bits).Masked()]
		}
		if !covered {
			return false
		}
	}
	return len(parts) > 0
}

func (p Pool) aggregatesWith(other Pool) bool {
	return other.Advertise == AdvertiseAggregate && p.Attributes.Equal(other.Attributes)
}

// aggregate returns the fewest prefixes that cover exactly what the given ones
// cover.
func aggregate(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if n := len(out); n > 0 && out[n-1].Bits() <= p.Bits() && out[n-1].Contains(p.Addr()) {
			continue
		}
		out = append(out, p)
		for len(out) > 1 {
			a, b := out[len(out)-2], out[len(out)-1]
			parent := netip.PrefixFrom(a.Addr(), a.Bits()-1)
			if a.Bits() != b.Bits() || a.Bits() == 0 || parent.Masked() != parent || !parent.Contains(b.Addr()) {
				break
			}
			out = append(out[:len(out)-2], parent)
		}
	}
	return out
}

func peerStatus(p bgp.PeerState) PeerStatus {
	return PeerStatus{Address: p.Address, ASN: p.ASN, State: p.State, Since: p.Since,
		LastError: p.LastError, Received: p.Received, Accepted: p.Accepted, Advertised: p.Advertised,
		Flaps: p.Flaps, ImportMissing: p.ImportMissing, Range: p.Range, Description: p.Description,
		Shutdown: p.Shutdown, RouterID: p.RouterID, Capabilities: p.Capabilities, Warning: p.Warning}
}

// Paths lists what BGP peers sent; nothing where the speaker cannot tell.
func (r *Router) Paths(f bgp.Filter) []bgp.Path {
	if s, ok := r.edges.Speaker.(interface{ Paths(bgp.Filter) []bgp.Path }); ok {
		return s.Paths(f)
	}
	return nil
}

// Advertised lists what BGP peers are sent; nothing where the speaker cannot
// tell.
func (r *Router) Advertised(f bgp.Filter) []bgp.AdvertisedPath {
	if s, ok := r.edges.Speaker.(interface {
		Advertised(bgp.Filter) []bgp.AdvertisedPath
	}); ok {
		return s.Advertised(f)
	}
	return nil
}
