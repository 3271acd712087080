package egress

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/vrf"
)

// Route metrics in a network's table: lower wins for the same prefix.
const (
	metricPool    = 5
	metricStatic  = 10
	metricLearned = 20
	// metricTerminal is what the kernel's VRF documentation recommends for the
	// route that ends the table (Documentation/networking/vrf.rst).
	metricTerminal = 4278198272
)

// table collects the routes of one network.
type table struct {
	r   *resolver
	n   *Network
	dec *NetworkDecision
	// connected are the prefixes on the network's ports.
	connected []onLink
	routes    []vrf.Route
	seen      map[netip.Addr]*NextHopDecision
	// alive counts routes with at least one live next hop.
	alive int
}

// onLink is a prefix that is directly reachable by a device.
type onLink struct {
	prefix netip.Prefix
	device string
	live   bool
}

func newTable(r *resolver, n *Network, dec *NetworkDecision) *table {
	t := &table{r: r, n: n, dec: dec, seen: map[netip.Addr]*NextHopDecision{}}
	for _, p := range n.Ports {
		l := r.st.Links[p.Name]
		live := l.Up && l.Carrier
		for _, a := range p.Addresses {
			t.connected = append(t.connected, onLink{a.Masked(), p.Name, live})
		}
		for _, a := range l.Addresses {
			if !a.Prefix.Addr().IsLinkLocalUnicast() {
				t.connected = append(t.connected, onLink{a.Prefix.Masked(), p.Name, live})
			}
		}
	}
	slices.SortFunc(t.connected, func(a, b onLink) int {
		return cmp.Or(cmp.Compare(b.prefix.Bits(), a.prefix.Bits()), a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.device, b.device))
	})
	t.connected = slices.Compact(t.connected)
	return t
}

// terminal ends the table, so that no packet falls through to another one.
func (t *table) terminal() {
	for _, p := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		t.routes = append(t.routes, vrf.Route{Table: t.dec.Table, Prefix: p, Metric: metricTerminal, Type: vrf.Unreachable})
	}
}

// pool keeps unsolicited packets to pool addresses from looping.
func (t *table) pool(p Pool) {
	for _, prefix := range p.Prefixes {
		t.routes = append(t.routes, vrf.Route{Table: t.dec.Table, Prefix: prefix, Metric: metricPool, Type: vrf.Blackhole})
	}
}

func (t *table) static(s StaticRoute) {
	gateways := make([]netip.Addr, 0, len(s.NextHops))
	for _, h := range s.NextHops {
		gateways = append(gateways, h.Address)
	}
	if t.via(s.Prefix, gateways, metricStatic, false) {
		t.dec.StaticRoutes++
	}
}

// learned adds the speaker's routes, or keeps the kernel's while the speaker
// is not in sync after a restart.
func (t *table) learned() {
	if t.n.BGP == nil {
		return
	}
	routes, synced := t.r.st.Learned[t.n.Name]
	if synced {
		for _, r := range routes {
			if t.via(r.Prefix, r.NextHops, metricLearned, true) {
				t.dec.LearnedRoutes++
			}
		}
		return
	}
	kept, ok := t.r.st.Kept[t.n.Name]
	if !ok {
		return
	}
	t.dec.Stale = true
	t.dec.LearnedRoutes = len(kept.Routes)
	t.routes = append(t.routes, kept.Routes...)
	t.r.objects.keep(kept)
	for _, h := range kept.NextHops {
		if h.Blackhole {
			continue
		}
		t.see(h.Gateway, h.Device, true).Routes = len(kept.Routes)
		t.alive = max(t.alive, 1)
	}
}

// via adds a route through those of the gateways that are on a connected
// prefix; it reports whether there was one. Gateways without carrier keep the
// route, but not a place in its group.
func (t *table) via(prefix netip.Prefix, gateways []netip.Addr, metric uint32, learned bool) bool {
	var known []vrf.NextHop
	var live []vrf.NextHop
	for _, gw := range gateways {
		on, ok := t.resolve(gw)
		if !ok {
			t.see(gw, "", false).Reason = "on no connected prefix of the network"
			continue
		}
		hop := vrf.NextHop{Gateway: gw, Device: on.device, IPv6: gw.Is6()}
		known = append(known, hop)
		dec := t.see(gw, on.device, on.live)
		dec.Routes++
		if on.live {
			live = append(live, hop)
		} else {
			dec.Reason = "no carrier"
		}
	}
	if len(known) == 0 {
		t.dec.Unresolved++
		return false
	}
	if len(live) > 0 {
		t.alive++
	}
	if n := t.n.MaxNextHops; n > 0 && len(live) > n {
		live = live[:n]
	}
	group := t.r.objects.group(t.groupKey(known), live, prefix.Addr().Is6())
	t.routes = append(t.routes, vrf.Route{Table: t.dec.Table, Prefix: prefix, Metric: metric,
		Type: vrf.Unicast, NextHop: group, Learned: learned})
	return true
}

// groupKey names a group by its network and all its possible members, so that
// losing one changes the group's content and not the routes that point to it.
func (t *table) groupKey(hops []vrf.NextHop) string {
	parts := make([]string, 0, len(hops))
	for _, h := range hops {
		parts = append(parts, h.Gateway.String()+"%"+h.Device)
	}
	slices.Sort(parts)
	return t.n.Name + "|" + strings.Join(parts, ",")
}

// resolve finds the connected prefix a gateway is on, the longest first.
func (t *table) resolve(gw netip.Addr) (onLink, bool) {
	for _, c := range t.connected {
		if c.prefix.Contains(gw) {
			return c, true
		}
	}
	return onLink{}, false
}

func (t *table) see(gw netip.Addr, device string, live bool) *NextHopDecision {
	d := t.seen[gw]
	if d == nil {
		d = &NextHopDecision{Address: gw, Device: device, Live: live}
		t.seen[gw] = d
	}
	return d
}

func (t *table) hops() []NextHopDecision {
	out := make([]NextHopDecision, 0, len(t.seen))
	for _, d := range t.seen {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b NextHopDecision) int { return a.Address.Compare(b.Address) })
	return out
}

// usable reports whether traffic of the network can go anywhere: by a route
// with a live next hop, or, in a network that has and expects no routes,
// directly on a link with carrier.
func (t *table) usable() bool {
	if t.expectsRoutes() {
		return t.alive > 0
	}
	return slices.ContainsFunc(t.connected, func(c onLink) bool { return c.live })
}

func (t *table) expectsRoutes() bool {
	if len(t.n.StaticRoutes) > 0 {
		return true
	}
	if t.n.BGP == nil {
		return false
	}
	for _, p := range t.n.BGP.Peers {
		if len(p.Import) > 0 {
			return true
		}
	}
	return false
}

// unusable says why, for people.
func (t *table) unusable() string {
	for _, p := range t.n.Ports {
		l, ok := t.r.st.Links[p.Name]
		switch {
		case !ok && p.VLAN == nil:
			return "interface " + p.Name + " does not exist"
		case ok && !l.Up:
			return "interface " + p.Name + " is not up yet"
		case ok && !l.Carrier:
			return "interface " + p.Name + " has no carrier"
		}
	}
	if t.dec.StaticRoutes+t.dec.LearnedRoutes > 0 {
		return "no route has a live next hop"
	}
	if t.dec.Unresolved > 0 {
		return "no next hop is on a connected prefix"
	}
	return "no route learned yet"
}
