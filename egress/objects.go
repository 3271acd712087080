package egress

import (
	"cmp"
	"slices"

	"github.com/egret-router/egret/vrf"
)

// objects collects the next-hop objects and groups of a Desired, each once.
type objects struct {
	ids    *vrf.Allocator
	hops   map[vrf.NextHopID]vrf.NextHop
	groups map[vrf.NextHopID]vrf.Group
	// made are the groups that are ours to fill, not taken over by keep.
	made map[vrf.NextHopID]bool
}

func newObjects(owner vrf.Owner) *objects {
	return &objects{ids: vrf.NewAllocator(vrf.Snapshot{Owner: owner}), hops: map[vrf.NextHopID]vrf.NextHop{},
		groups: map[vrf.NextHopID]vrf.Group{}, made: map[vrf.NextHopID]bool{}}
}

// group returns the id of the group with this key and the given members. Of no
// members it makes a group of one blackhole: fail closed.
func (o *objects) group(key string, members []vrf.NextHop, v6 bool) vrf.NextHopID {
	id := o.ids.Group(key)
	if o.made[id] {
		return id
	}
	if len(members) == 0 {
		members = []vrf.NextHop{{Blackhole: true, IPv6: v6}}
	}
	members = slices.SortedFunc(slices.Values(members), func(a, b vrf.NextHop) int {
		return cmp.Or(a.Gateway.Compare(b.Gateway), cmp.Compare(a.Device, b.Device))
	})
	g := vrf.Group{ID: id}
	for _, m := range members {
		m.ID = o.ids.NextHop(m)
		o.hops[m.ID] = m
		g.Members = append(g.Members, vrf.Member{ID: m.ID, Weight: 1})
	}
	o.groups[id], o.made[id] = g, true
	return id
}

// keep takes objects over from the kernel under the ids they have. They are
// content-addressed as well, so they agree with what group would make.
func (o *objects) keep(k Kept) {
	for _, h := range k.NextHops {
		o.hops[h.ID] = h
	}
	for _, g := range k.Groups {
		if !o.made[g.ID] {
			o.groups[g.ID] = g
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
