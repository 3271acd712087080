package egress

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/egret-router/egret/vrf"
)

// idleTimer is how long a bucket of a group must be without traffic before it
// may move to a next hop that returned.
const idleTimer = 2 * time.Minute

// objects collects the next-hop objects and groups of a Desired, each once.
type objects struct {
	ids    *vrf.Allocator
	hops   map[vrf.NextHopID]vrf.NextHop
	groups map[vrf.NextHopID]vrf.Group
	// made are the groups that are ours to fill, not taken over by keep.
	made map[vrf.NextHopID]*filledGroup
}

// filledGroup says how a group came to its members, so that the loss of one can
// be answered without resolving everything.
type filledGroup struct {
	network string
	v6      bool
	pathGroup
}

func newObjects(owner vrf.Owner) *objects {
	o := &objects{ids: vrf.NewAllocator(vrf.Snapshot{Owner: owner}), hops: map[vrf.NextHopID]vrf.NextHop{},
		groups: map[vrf.NextHopID]vrf.Group{}, made: map[vrf.NextHopID]*filledGroup{}}
	// Always there, so that a group can fail closed in one message.
	o.blackhole(false)
	o.blackhole(true)
	return o
}

// groupID is the id of the group with this key, of at most so many members. A
// group cannot change its kind, so the kind is part of its name.
func (o *objects) groupID(key string, possible int) vrf.NextHopID {
	if b := buckets(possible); b > 0 {
		key += "|" + string(rune('a'+bits.Len16(b)))
	}
	return o.ids.Group(key)
}

// buckets is the size of a group's hash table: none for a group that never has
// more than one member, else enough for an even load.
func buckets(possible int) uint16 {
	if possible <= 1 {
		return 0
	}
	n := 128
	for n < 16*possible && n < 1<<15 {
		n *= 2
	}
	return uint16(n)
}

// group makes a group once and returns its id.
func (o *objects) group(network string, g pathGroup, v6 bool) vrf.NextHopID {
	id := o.groupID(g.key, len(g.ordered))
	if o.made[id] == nil {
		o.made[id] = &filledGroup{network, v6, g}
		o.groups[id] = o.fill(id, g, v6)
	}
	return id
}

// fill is the group for the kernel. Of no members it is one blackhole: fail
// closed.
func (o *objects) fill(id vrf.NextHopID, from pathGroup, v6 bool) vrf.Group {
	g := vrf.Group{ID: id, Resilient: resilient(len(from.ordered))}
	members := slices.SortedFunc(slices.Values(from.member), func(a, b hop) int {
		return cmp.Or(a.Gateway.Compare(b.Gateway), cmp.Compare(a.Device, b.Device))
	})
	for _, m := range members {
		g.Members = append(g.Members, vrf.Member{ID: o.hop(m.NextHop), Weight: m.weight})
	}
	if len(members) == 0 {
		g.Members = o.blackhole(v6)
	}
	return g
}

func resilient(possible int) vrf.Resilient {
	b := buckets(possible)
	if b == 0 {
		return vrf.Resilient{}
	}
	return vrf.Resilient{Buckets: b, IdleTimer: idleTimer}
}

func (o *objects) hop(h vrf.NextHop) vrf.NextHopID {
	h.ID = 0
	h.ID = o.ids.NextHop(h)
	o.hops[h.ID] = h
	return h.ID
}

func (o *objects) blackhole(v6 bool) []vrf.Member {
	return []vrf.Member{{ID: o.hop(vrf.NextHop{Blackhole: true, IPv6: v6}), Weight: 1}}
}

// keep takes objects over from the kernel under the ids they have, without the
// next hops that are not usable. They are content-addressed as well, so they
// agree with what group would make.
func (o *objects) keep(k Kept, usable func(vrf.NextHop) bool) {
	hops := make(map[vrf.NextHopID]vrf.NextHop, len(k.NextHops))
	for _, h := range k.NextHops {
		hops[h.ID] = h
	}
	for _, g := range k.Groups {
		if o.made[g.ID] != nil {
			continue
		}
		v6 := false
		g.Members = slices.DeleteFunc(slices.Clone(g.Members), func(m vrf.Member) bool {
			v6 = v6 || hops[m.ID].IPv6
			return !usable(hops[m.ID])
		})
		if len(g.Members) == 0 {
			g.Members = o.blackhole(v6)
		}
		for _, m := range g.Members {
			if h, ok := hops[m.ID]; ok {
				o.hops[m.ID] = h
			}
		}
		o.groups[g.ID] = g
	}
	for _, r := range k.Routes {
		if h, ok := hops[r.NextHop]; ok {
			o.hops[h.ID] = h
		}
	}
}

// all returns everything collected, sorted by id.
func (o *objects) all() ([]vrf.NextHop, []vrf.Group) {
	hops := make([]vrf.NextHop, 0, len(o.hops))
	for _, h := range o.hops {
		hops = append(hops, h)
	}
	groups := make([]vrf.Group, 0, len(o.groups))
	for _, g := range o.groups {
		groups = append(groups, g)
	}
	slices.SortFunc(hops, func(a, b vrf.NextHop) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(groups, func(a, b vrf.Group) int { return cmp.Compare(a.ID, b.ID) })
	return hops, groups
}
