package egress

import (
	"cmp"
	"fmt"
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

// table collects what one network has in the kernel.
type table struct {
	r   *resolver
	n   *Network
	dec *NetworkDecision
	// connected are the prefixes on the network's ports.
	connected []onLink
	routes    []vrf.Route
	seen      map[netip.Addr]*NextHopDecision
	// via are the routes through gateways, which paths copy; routeSets their
	// different sets of next hops, by key in setIndex.
	via       []gatewayRoute
	routeSets []routeSet
	setIndex  map[string]int
	// all are the network's paths by number.
	all       []*path
	recursion recursion
	// namesHops says that a rule names next hops in this network.
	namesHops bool
}

// onLink is a prefix that is directly reachable by a device.
type onLink struct {
	prefix netip.Prefix
	device string
	live   bool
}

// routeSet is the next hops that some routes have in common, those on connected
// prefixes, sorted by address.
type routeSet struct {
	key  string
	v6   bool
	hops []hop
}

// gatewayRoute is a route through the next hops of a set.
type gatewayRoute struct {
	prefix  netip.Prefix
	metric  uint32
	learned bool
	set     int
}

func newTable(r *resolver, n *Network, dec *NetworkDecision) *table {
	t := &table{r: r, n: n, dec: dec, seen: map[netip.Addr]*NextHopDecision{}, setIndex: map[string]int{}}
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

// terminals end a table, so that no packet falls through to another one.
func terminals(table vrf.TableID) []vrf.Route {
	var out []vrf.Route
	for _, p := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		out = append(out, vrf.Route{Table: table, Prefix: p, Metric: metricTerminal, Type: vrf.Unreachable})
	}
	return out
}

// poolRoutes keep unsolicited packets to pool addresses from looping.
func poolRoutes(table vrf.TableID, pools []Pool) []vrf.Route {
	var out []vrf.Route
	for _, p := range pools {
		for _, prefix := range p.Prefixes {
			out = append(out, vrf.Route{Table: table, Prefix: prefix, Metric: metricPool, Type: vrf.Blackhole})
		}
	}
	return out
}

func (t *table) static(s StaticRoute) {
	if t.through(s.Prefix, s.NextHops, metricStatic, false) {
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
		hops := make([]NextHop, 0, 8)
		for _, r := range routes {
			hops = hops[:0]
			for _, a := range r.NextHops {
				hops = append(hops, NextHop{Address: a})
			}
			if t.through(r.Prefix, hops, metricLearned, true) {
				t.dec.LearnedRoutes++
			}
		}
		return
	}
	if kept, ok := t.r.st.Kept[t.n.Name]; ok {
		t.dec.Stale = true
		t.dec.LearnedRoutes = len(kept.Routes)
		t.routes = append(t.routes, t.keep(kept)...)
	}
}

// keep takes routes over from the kernel, and out of their groups the next hops
// that do not work.
func (t *table) keep(k Kept) []vrf.Route {
	usable := func(h vrf.NextHop) bool {
		if h.Blackhole {
			return false
		}
		d, _ := t.gateway(addressOn(h.Gateway, h.Device))
		return d.Usable
	}
	t.r.objects.keep(k, usable)
	for _, h := range k.NextHops {
		if !h.Blackhole {
			d, _ := t.gateway(addressOn(h.Gateway, h.Device))
			d.Routes = len(k.Routes)
		}
	}
	return k.Routes
}

// through adds a route through those of the next hops that are on a connected
// prefix; it reports whether there was one. Next hops that do not work keep
// the route, but not a place in its group.
func (t *table) through(prefix netip.Prefix, hops []NextHop, metric uint32, learned bool) bool {
	i := t.setOf(hops, prefix.Addr().Is6())
	set := &t.routeSets[i]
	for _, h := range set.hops {
		t.seen[h.address()].Routes++
	}
	if len(set.hops) == 0 {
		t.dec.Unresolved++
		return false
	}
	t.via = append(t.via, gatewayRoute{prefix: prefix, metric: metric, learned: learned, set: i})
	return true
}

// setOf finds or makes the set of these next hops.
func (t *table) setOf(hops []NextHop, v6 bool) int {
	var lookup [512]byte
	raw := lookup[:0]
	for _, h := range hops {
		a := h.Address.As16()
		raw = append(append(raw, a[:]...), h.Address.Zone()...)
		raw = append(raw, byte(h.Weight), byte(h.Weight>>8), byte(h.Preference), byte(h.Preference>>8))
	}
	if i, ok := t.setIndex[string(raw)]; ok {
		return i
	}
	set := routeSet{v6: v6}
	var parts []string
	for _, h := range hops {
		for _, via := range t.expand(h) {
			if judged := t.hop(via); judged.known && !contains(set.hops, judged) {
				set.hops = append(set.hops, judged)
				parts = append(parts, fmt.Sprintf("%s%%%s*%d^%d", judged.Gateway, judged.Device, judged.weight, judged.preference))
			}
		}
	}
	slices.Sort(parts)
	set.key = strings.Join(parts, ",")
	slices.SortFunc(set.hops, func(a, b hop) int { return cmp.Or(a.Gateway.Compare(b.Gateway), cmp.Compare(a.Device, b.Device)) })
	t.routeSets = append(t.routeSets, set)
	t.setIndex[string(raw)] = len(t.routeSets) - 1
	return len(t.routeSets) - 1
}

// ownRoutes are the network's routes in its own table, each through all usable
// next hops of its set. The group's name does not change with their health:
// losing one changes the group's content and not the routes that point to it.
func (t *table) ownRoutes() []vrf.Route {
	groups := make([]vrf.NextHopID, len(t.routeSets))
	for i, set := range t.routeSets {
		if len(set.hops) > 0 {
			groups[i] = t.r.objects.group(t.n.Name, pathGroup{key: t.n.Name + "|" + set.key, ordered: set.hops, member: candidates(set.hops, 0)}, set.v6)
		}
	}
	return t.gatewayRoutes(t.dec.Table, groups)
}

// gatewayRoutes are the routes through gateways in a table, by the groups of
// their sets.
func (t *table) gatewayRoutes(table vrf.TableID, groups []vrf.NextHopID) []vrf.Route {
	out := make([]vrf.Route, 0, len(t.via))
	for _, v := range t.via {
		if groups[v.set] != 0 {
			out = append(out, vrf.Route{Table: table, Prefix: v.prefix, Metric: v.metric, Type: vrf.Unicast,
				NextHop: groups[v.set], Learned: v.learned})
		}
	}
	return out
}

// pathRoutes are the routes of a path's table.
func (t *table) pathRoutes(p *path) []vrf.Route {
	if p.asFound != nil {
		return t.keep(p.asFound.Kept)
	}
	table := t.r.tableID(p.number)
	out := append(terminals(table), vrf.Route{Table: table, Prefix: p.marker.prefix(), Metric: metricPool, Type: vrf.Blackhole})
	if p.set.named != nil {
		g := p.groups[0]
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if p.v6 {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return append(out, vrf.Route{Table: table, Prefix: all, Metric: metricStatic, Type: vrf.Unicast,
			NextHop: t.r.objects.group(t.n.Name, g, p.v6)})
	}
	groups := make([]vrf.NextHopID, len(t.routeSets))
	next := 0
	for i, set := range t.routeSets {
		if set.v6 != p.v6 {
			continue
		}
		g := p.groups[next]
		next++
		if len(g.ordered) > 0 {
			groups[i] = t.r.objects.group(t.n.Name, g, p.v6)
		}
	}
	out = append(out, poolRoutes(table, t.r.pools[t.n.Name])...)
	return append(out, t.gatewayRoutes(table, groups)...)
}

// resolve finds the connected prefix a gateway is on, the longest first. A
// link-local gateway with a zone is on that port.
func (t *table) resolve(gw netip.Addr) (onLink, bool) {
	if zone := gw.Zone(); zone != "" {
		if !slices.ContainsFunc(t.n.Ports, func(p vrf.Port) bool { return p.Name == zone }) {
			return onLink{}, false
		}
		l := t.r.st.Links[zone]
		return onLink{device: zone, live: l.Up && l.Carrier}, true
	}
	for _, c := range t.connected {
		if c.prefix.Contains(gw) {
			return c, true
		}
	}
	return onLink{}, false
}

func (t *table) hops() []NextHopDecision {
	out := make([]NextHopDecision, 0, len(t.seen))
	for _, d := range t.seen {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b NextHopDecision) int { return a.Address.Compare(b.Address) })
	return out
}

// usable reports whether traffic of the network can go anywhere: by a next hop
// that works, or, in a network that has and expects none, directly on a link
// with carrier.
func (t *table) usable() bool {
	if t.expectsRoutes() {
		for _, d := range t.seen {
			if d.Usable {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(t.connected, func(c onLink) bool { return c.live })
}

func (t *table) expectsRoutes() bool {
	if len(t.n.StaticRoutes) > 0 || t.namesHops {
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
	for _, d := range t.hops() {
		if d.Device != "" && d.Live && !d.Usable {
			return "no next hop works: " + d.Address.String() + ": " + d.Reason
		}
	}
	if t.dec.StaticRoutes+t.dec.LearnedRoutes > 0 || t.namesHops {
		return "no next hop is usable"
	}
	if t.dec.Unresolved > 0 {
		return "no next hop is on a connected prefix, nor behind another route"
	}
	return "no route learned yet"
}
