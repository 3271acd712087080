package egress

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// maxRecursion bounds the routes that one resolution goes through.
const maxRecursion = 8

// recursion resolves next hops that are on no connected prefix through the
// network's other routes (RFC 4271 5.1.3): by the longest one that covers them, to
// its next hops. Default routes do not count: what only they reach goes where
// they lead anyway, and a next hop that vanished must not seem to be there.
type recursion struct {
	t *table
	// routes is nil until the first next hop asks.
	routes *bart.Table[[]NextHop]
	memo   map[netip.Addr][]NextHop
}

// expand gives the gateways on the link that stand for a next hop; the next hop
// itself when it is on the link, or when nothing leads to it.
func (t *table) expand(h NextHop) []NextHop {
	if _, direct := t.resolve(h.Address); direct || h.Address.Zone() != "" {
		return []NextHop{h}
	}
	if t.recursion.routes == nil {
		t.recursion = recursion{t: t, routes: t.allRoutes(), memo: map[netip.Addr][]NextHop{}}
	}
	via, known := t.recursion.memo[h.Address]
	if !known {
		via = t.recursion.gateways(h.Address, nil)
		t.recursion.memo[h.Address] = via
	}
	if len(via) == 0 {
		return []NextHop{h}
	}
	return via
}

// allRoutes are the next hops of the network's routes, static ones before learned
// ones of the same prefix, as the kernel sees them by their metrics.
func (t *table) allRoutes() *bart.Table[[]NextHop] {
	all := new(bart.Table[[]NextHop])
	for _, r := range t.r.st.Learned[t.n.Name] {
		if r.Prefix.Bits() == 0 {
			continue
		}
		hops := make([]NextHop, 0, len(r.NextHops))
		for _, a := range r.NextHops {
			hops = append(hops, NextHop{Address: a})
		}
		all.Insert(r.Prefix, hops)
	}
	for _, s := range t.n.StaticRoutes {
		if s.Prefix.Bits() != 0 {
			all.Insert(s.Prefix, s.NextHops)
		}
	}
	return all
}

// gateways follows routes from an address to gateways on the link. through are
// the addresses on the way to it: a route back to one of them leads nowhere.
func (r *recursion) gateways(a netip.Addr, through []netip.Addr) []NextHop {
	hops, ok := r.routes.Lookup(a)
	if !ok || len(through) >= maxRecursion {
		return nil
	}
	through = append(through, a)
	var out []NextHop
	add := func(h NextHop) {
		if !slices.ContainsFunc(out, func(o NextHop) bool { return o.Address == h.Address }) {
			out = append(out, h)
		}
	}
	for _, h := range hops {
		if _, direct := r.t.resolve(h.Address); direct || h.Address.Zone() != "" {
			add(h)
			continue
		}
		if slices.Contains(through, h.Address) {
			continue
		}
		for _, via := range r.gateways(h.Address, through) {
			add(via)
		}
	}
	return out
}
