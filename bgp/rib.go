package bgp

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
)

// defaultLocalPref is the LOCAL_PREF of a path that came without one.
const defaultLocalPref = 100

// candidate is what of one received path matters for choosing among them.
type candidate struct {
	nextHop    netip.Addr
	localPref  uint32
	asPathLen  int
	neighborAS uint32
	origin     uint8
	med        uint32
	// loop is true when our own ASN is in the AS path (RFC 4271 9.1.2).
	loop  bool
	attrs attributesHandle
}

// rib keeps what the peers of one network announced and derives the routes from
// it. It is not safe for concurrent use.
type rib struct {
	peers map[netip.Addr]*adjIn
	// never are martians, our own prefixes and the rejected ones.
	never  []netip.Prefix
	routes map[netip.Prefix]Route
	// singles are the next hops of routes that have one.
	singles map[netip.Addr][]netip.Addr
	// dirty are the prefixes whose route differs from the one in sorted.
	dirty  map[netip.Prefix]struct{}
	sorted []Route
	// scratch is choose's, to spare an allocation for each path.
	scratch []contender
}

func newRIB() *rib {
	return &rib{
		peers:  map[netip.Addr]*adjIn{},
		never:  martians(),
		routes: map[netip.Prefix]Route{}, singles: map[netip.Addr][]netip.Addr{},
		dirty: map[netip.Prefix]struct{}{},
	}
}

// setPeer adds a peer or changes the policy of one.
func (r *rib) setPeer(addr netip.Addr, policy peerPolicy) {
	in := r.peers[addr]
	if in == nil {
		in = &adjIn{paths: map[netip.Prefix]received{}, more: map[netip.Prefix][]received{}}
		r.peers[addr] = in
	} else if reflect.DeepEqual(in.peer, policy) {
		return
	}
	in.peer, in.rules = policy, compileRules(policy.rules)
	r.refilter(in)
}

// setNever replaces the prefixes that no peer may announce, nor parts of them.
func (r *rib) setNever(prefixes []netip.Prefix) {
	never := append(martians(), prefixes...)
	if slices.Equal(never, r.never) {
		return
	}
	r.never = never
	for _, in := range r.peers {
		r.refilter(in)
	}
}

func (r *rib) removePeer(addr netip.Addr) {
	r.clear(addr)
	delete(r.peers, addr)
}

// clear forgets all paths of a peer.
func (r *rib) clear(addr netip.Addr) {
	if in := r.peers[addr]; in != nil {
		for _, k := range in.keys() {
			r.withdraw(addr, k)
		}
	}
}

func (r *rib) announce(addr netip.Addr, k pathKey, c candidate) {
	in := r.peers[addr]
	if in == nil {
		return
	}
	in.version++
	old, had := in.get(k)
	if !had {
		in.count[familyOf(k.prefix.Addr())]++
	}
	now := received{candidate: c, verdict: r.judge(in, k.prefix, c), id: k.id}
	in.put(k, now)
	if old.accepted {
		in.accepted--
	}
	if now.accepted {
		in.accepted++
	}
	if (old.accepted || now.accepted) && old != now {
		r.choose(k.prefix)
	}
}

func (r *rib) withdraw(addr netip.Addr, k pathKey) {
	in := r.peers[addr]
	if in == nil {
		return
	}
	in.version++
	old, had := in.get(k)
	if !had {
		return
	}
	in.remove(k)
	in.count[familyOf(k.prefix.Addr())]--
	if old.accepted {
		in.accepted--
		r.choose(k.prefix)
	}
}

// version identifies the state of a peer's mirror.
func (r *rib) version(addr netip.Addr) uint64 {
	if in := r.peers[addr]; in != nil {
		return in.version
	}
	return 0
}

// replace makes the mirror of a peer what a listing said, unless the mirror
// moved on since version was taken, before the listing: then it does nothing and
// returns false.
func (r *rib) replace(addr netip.Addr, version uint64, listing map[pathKey]candidate) bool {
	in := r.peers[addr]
	if in == nil || in.version != version {
		return in == nil
	}
	for _, k := range in.keys() {
		if _, ok := listing[k]; !ok {
			r.withdraw(addr, k)
		}
	}
	for k, c := range listing {
		r.announce(addr, k, c)
	}
	return true
}

// judge decides on a path: nobody's rules let in what must never be.
func (r *rib) judge(in *adjIn, p netip.Prefix, c candidate) verdict {
	if c.loop || within(p, r.never) || !usableNextHop(p, c.nextHop) ||
		in.peer.localASN != 0 && c.attributes().hasASN(in.peer.localASN) {
		return verdict{}
	}
	// RFC 4271 5.1.5: an external peer's LOCAL_PREF is to be ignored.
	if !in.peer.internal {
		c.localPref = defaultLocalPref
	}
	return judge(in.rules, p, c)
}

func (r *rib) refilter(in *adjIn) {
	for _, k := range in.keys() {
		path, _ := in.get(k)
		now := r.judge(in, k.prefix, path.candidate)
		if now == path.verdict {
			continue
		}
		if path.accepted {
			in.accepted--
		}
		if now.accepted {
			in.accepted++
		}
		path.verdict = now
		in.put(k, path)
		r.choose(k.prefix)
	}
}

// maxSingles bounds rib.singles; what is in use stays with its routes.
const maxSingles = 1024

// single is the list of one next hop, shared by all routes that have it.
func (r *rib) single(hop netip.Addr) []netip.Addr {
	list := r.singles[hop]
	if list == nil {
		if len(r.singles) >= maxSingles {
			clear(r.singles)
		}
		list = []netip.Addr{hop}
		r.singles[hop] = list
	}
	return list
}

// choose derives the route of a prefix anew.
func (r *rib) choose(p netip.Prefix) {
	paths := r.scratch[:0]
	for _, in := range r.peers {
		first, ok := in.paths[p]
		if !ok {
			continue
		}
		if first.accepted {
			paths = append(paths, contender{first, in.peer.internal})
		}
		for _, path := range in.more[p] {
			if path.accepted {
				paths = append(paths, contender{path, in.peer.internal})
			}
		}
	}
	r.scratch = paths
	old, had := r.routes[p]
	var hops []netip.Addr
	if len(paths) == 1 { // the most frequent case by far
		hops = r.single(paths[0].nextHop)
	} else {
		hops = bestNextHops(paths)
	}
	if had && slices.Equal(old.NextHops, hops) || !had && hops == nil {
		return
	}
	if hops == nil {
		delete(r.routes, p)
	} else {
		r.routes[p] = Route{Prefix: p, NextHops: hops}
	}
	r.dirty[p] = struct{}{}
}

// snapshot returns the routes, sorted. The result is shared and never changed.
func (r *rib) snapshot() []Route {
	if len(r.dirty) == 0 {
		return r.sorted
	}
	r.sorted = merge(r.sorted, slices.SortedFunc(maps.Keys(r.dirty), comparePrefix), r.routes)
	clear(r.dirty)
	return r.sorted
}

// merge returns sorted with the routes of the prefixes in dirty replaced by
// those of now, or left out where now has none.
func merge(sorted []Route, dirty []netip.Prefix, now map[netip.Prefix]Route) []Route {
	out := make([]Route, 0, len(now))
	for _, route := range sorted {
		for len(dirty) > 0 && comparePrefix(dirty[0], route.Prefix) < 0 {
			if changed, ok := now[dirty[0]]; ok {
				out = append(out, changed)
			}
			dirty = dirty[1:]
		}
		if len(dirty) > 0 && dirty[0] == route.Prefix {
			continue
		}
		out = append(out, route)
	}
	for _, p := range dirty {
		if changed, ok := now[p]; ok {
			out = append(out, changed)
		}
	}
	return out
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// contender is an accepted path on its way through the selection.
type contender struct {
	received
	internal bool
}

// bestNextHops chooses among the accepted paths of one prefix and returns the
// next hops of all that are equally good, sorted: RFC 4271 9.1.2.2 up to and
// with the preference of eBGP over iBGP. The tie breakers after it (IGP metric,
// router id, peer address) would only make one path out of several equal ones.
// Equal means equal AS path lengths, also through different neighbour ASes.
func bestNextHops(paths []contender) []netip.Addr {
	if len(paths) == 0 {
		return nil
	}
	keepBest(&paths, func(a, b contender) int { return compareBool(a.stale, b.stale) })
	keepBest(&paths, func(a, b contender) int { return cmp.Compare(b.pref, a.pref) })
	keepBest(&paths, func(a, b contender) int { return cmp.Compare(a.asPathLen, b.asPathLen) })
	keepBest(&paths, func(a, b contender) int { return cmp.Compare(a.origin, b.origin) })
	// The MED only compares paths of one neighbour AS.
	lowest := map[uint32]uint32{}
	for _, c := range paths {
		if med, ok := lowest[c.neighborAS]; !ok || c.med < med {
			lowest[c.neighborAS] = c.med
		}
	}
	paths = slices.DeleteFunc(paths, func(c contender) bool { return c.med > lowest[c.neighborAS] })
	keepBest(&paths, func(a, b contender) int { return compareBool(a.internal, b.internal) })
	hops := make([]netip.Addr, 0, len(paths))
	for _, c := range paths {
		hops = append(hops, c.nextHop)
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	return slices.Compact(hops)
}

// compareBool has false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// keepBest removes what is worse than the best; less than zero means that a is
// the better one.
func keepBest(paths *[]contender, compare func(a, b contender) int) {
	best := slices.MinFunc(*paths, compare)
	*paths = slices.DeleteFunc(*paths, func(c contender) bool { return compare(c, best) > 0 })
}
