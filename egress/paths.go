package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// maxGeneration is the highest generation of a path: 4 bits of its marker.
const maxGeneration = 15

// clientBuckets is how many buckets clients are spread over among the anchors
// of a hop set; more for sets of more than 16 next hops.
func clientBuckets(anchors int) int {
	n := 64
	for n < 4*anchors && n < 1024 {
		n *= 2
	}
	return n
}

// path is one choice of next hops of a hop set: a number, a mark, a table.
type path struct {
	set    *hopSet
	anchor netip.Addr // invalid: the only path of its set
	marker marker
	number uint16
	// active paths take new flows.
	active bool
	// usable means that traffic can go somewhere.
	usable bool
	// asFound are the routes of a path that no rule accounts for any more: they
	// stay as the kernel has them.
	asFound *AdoptedPath
	v6      bool
	// groups are the next hops of the path's groups by key.
	groups []pathGroup
}

// pathGroup is one group of a path: its possible next hops in the order of
// preference, and those that are in it.
type pathGroup struct {
	key             string
	ordered, member []hop
	bound           int
}

// setPaths are the active paths of a hop set, by bucket of clients. A set that
// needs none is the network itself: buckets is nil.
type setPaths struct {
	buckets []*path
	// network means: use the network's own mark.
	network bool
}

// paths decides on all paths of one network: which exist, who is in their
// groups, and which are for new flows.
func (t *table) paths(sets []*hopSet) map[string]setPaths {
	out := make(map[string]setPaths, len(sets))
	taken := map[marker]bool{}
	for _, s := range sets {
		out[s.key()] = t.setPaths(s, taken)
	}
	for i := range t.r.st.Paths {
		a := &t.r.st.Paths[i]
		if a.Marker.network == t.dec.Index && !taken[a.Marker] && !t.r.st.Drained[a.Number] {
			t.all = append(t.all, t.abandoned(a))
		}
	}
	slices.SortFunc(t.all, func(a, b *path) int { return cmp.Compare(a.number, b.number) })
	return out
}

func (t *table) setPaths(s *hopSet, taken map[marker]bool) setPaths {
	if s.plain() {
		return setPaths{network: true}
	}
	anchors := t.anchors(s)
	if s.named == nil && len(anchors) == 0 {
		return setPaths{network: true} // no route has more next hops than the bound
	}
	if len(anchors) == 0 {
		return setPaths{buckets: []*path{t.path(s, netip.Addr{}, taken)}}
	}
	byAnchor := make(map[netip.Addr]*path, len(anchors))
	for _, a := range anchors {
		byAnchor[a] = t.path(s, a, taken)
	}
	var out setPaths
	for _, a := range nat.Buckets(anchors, clientBuckets(len(anchors))) {
		out.buckets = append(out.buckets, byAnchor[a])
	}
	return out
}

// anchors are the next hops that paths begin at; none if one path does for all
// clients, because the bound takes in every next hop.
func (t *table) anchors(s *hopSet) []netip.Addr {
	if s.bound == 0 {
		return nil
	}
	if s.named == nil {
		return t.routeAnchors(s)
	}
	byPreference := map[uint16][]netip.Addr{}
	for _, h := range s.named {
		byPreference[h.Preference] = append(byPreference[h.Preference], h.Address)
	}
	preferences := make([]uint16, 0, len(byPreference))
	for p := range byPreference {
		preferences = append(preferences, p)
	}
	slices.SortFunc(preferences, func(a, b uint16) int { return cmp.Compare(b, a) })
	for _, p := range preferences {
		if len(byPreference[p]) > s.bound {
			return byPreference[p]
		}
	}
	return nil
}

// routeAnchors are all next hops of the network's routes, if a route has more
// of them than the bound.
func (t *table) routeAnchors(s *hopSet) []netip.Addr {
	more := false
	seen := map[netip.Addr]bool{}
	for _, set := range t.routeSets {
		if set.v6 != s.v6 {
			continue
		}
		more = more || len(set.hops) > s.bound
		for _, h := range set.hops {
			seen[h.Gateway] = true
		}
	}
	if !more {
		return nil
	}
	out := make([]netip.Addr, 0, len(seen))
	for a := range seen {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// path finds or makes the active path of a set and an anchor, and keeps the
// older generations that may still have flows.
func (t *table) path(s *hopSet, anchor netip.Addr, taken map[marker]bool) *path {
	// The key of a set over routes names no next hop: it stays when they change.
	identity := s.key()
	if anchor.IsValid() {
		identity += "@" + anchor.String()
	}
	hash := hash48(identity)
	var have []*path
	used := map[uint8]bool{}
	for i := range t.r.st.Paths {
		a := &t.r.st.Paths[i]
		if a.Marker.network != t.dec.Index || a.Marker.hash != hash {
			continue
		}
		used[a.Marker.generation], taken[a.Marker] = true, true
		p := &path{set: s, anchor: anchor, marker: a.Marker, number: a.Number, v6: s.v6}
		t.fill(p, identity)
		have = append(have, p)
	}
	active := t.choose(s, anchor, identity, have, used, taken)
	for _, p := range have {
		if p != active && !t.r.st.Drained[p.number] {
			t.all = append(t.all, p)
		}
	}
	active.active = true
	t.all = append(t.all, active)
	return active
}

// choose takes the first generation whose groups are what they should be. If
// none is, new flows get a new one, unless failback is off or all are taken:
// then the first goes on, and takes in what it lacks.
func (t *table) choose(s *hopSet, anchor netip.Addr, identity string, have []*path, used map[uint8]bool, taken map[marker]bool) *path {
	slices.SortFunc(have, func(a, b *path) int { return cmp.Compare(a.marker.generation, b.marker.generation) })
	for _, p := range have {
		if p.ideal() {
			return p
		}
	}
	if len(have) == 0 || t.n.Failback != FailbackNever {
		for g := uint8(0); g <= maxGeneration; g++ {
			if used[g] {
				continue
			}
			m := marker{network: t.dec.Index, generation: g, hash: hash48(identity)}
			number, ok := t.r.numbers.take(fmt.Sprintf("%s#%d", identity, g))
			if !ok {
				break
			}
			taken[m] = true
			p := &path{set: s, anchor: anchor, marker: m, number: number, v6: s.v6}
			t.fill(p, identity)
			return p
		}
	}
	if len(have) == 0 {
		t.dec.Exhausted++
		return &path{set: s, anchor: anchor, v6: s.v6} // number 0: its traffic is dropped
	}
	p := have[0]
	for i := range p.groups {
		g := &p.groups[i]
		g.member = grow(g.member, candidates(g.ordered, g.bound), g.bound)
	}
	return p
}

// fill decides who is in the groups of a path.
func (t *table) fill(p *path, identity string) {
	table := fmt.Sprintf("%s#%d", identity, p.marker.generation)
	if p.set.named != nil {
		hops := make([]hop, 0, len(p.set.named))
		for _, h := range p.set.named {
			hops = append(hops, t.hop(h))
		}
		p.groups = []pathGroup{t.pathGroup("path|"+table, fromAnchor(hops, p.anchor), p.set.bound)}
	} else {
		for _, set := range t.routeSets {
			if set.v6 == p.set.v6 {
				p.groups = append(p.groups, t.pathGroup("path|"+table+"|"+set.key, fromAnchor(set.hops, p.anchor), p.set.bound))
			}
		}
	}
	for _, g := range p.groups {
		p.usable = p.usable || len(g.member) > 0
	}
}

func (t *table) pathGroup(key string, ordered []hop, bound int) pathGroup {
	g := pathGroup{key: key, ordered: knownHops(ordered), bound: bound}
	var current []hop
	for _, m := range t.r.st.Members[t.r.objects.groupID(key, len(g.ordered))] {
		current = append(current, hop{NextHop: m})
	}
	g.member = keepSlots(current, g.ordered, bound)
	return g
}

// ideal says that every group of the path has the next hops that it would get
// if it were new.
func (p *path) ideal() bool {
	for _, g := range p.groups {
		if !sameHops(g.member, candidates(g.ordered, g.bound)) {
			return false
		}
	}
	return true
}

// abandoned is a path that no rule accounts for any more, for its flows. It
// loses next hops, but nobody stands in for them.
func (t *table) abandoned(a *AdoptedPath) *path {
	return &path{marker: a.Marker, number: a.Number, asFound: a, v6: a.V6, usable: true}
}

// tableID is the routing table of a path or network number.
func (r *resolver) tableID(number uint16) vrf.TableID {
	return r.own.TableBase + vrf.TableID(number)
}
