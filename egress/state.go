package egress

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// State is what was observed when Resolve is called. It is a plain value: the
// loop gathers it, `egret plan` gathers it, tests write it down.
type State struct {
	// Links are the links of the namespace by name.
	Links map[string]vrf.Link
	// Adopted are the networks the kernel already has, by name.
	Adopted map[string]Adopted
	// Learned are the routes of the networks whose speaker is in sync. A network
	// that is missing here keeps the learned routes the kernel has (Kept).
	Learned map[string][]bgp.Route
	// Kept are the kernel's learned routes of adopted networks, verbatim.
	Kept map[string]Kept
	// Verdicts are the probes' judgements by probe name; missing is Unknown.
	Verdicts map[string]probes.Verdict
	// Broken are the BFD sessions that were up and are down, and why, by name.
	Broken map[string]string
	// Paths are the paths the kernel has, by number.
	Paths []AdoptedPath
	// Members are the next hops in the kernel's groups, without ids and
	// blackholes.
	Members map[vrf.NextHopID][]vrf.NextHop
	// InUse are the gateways in the kernel's groups.
	InUse map[hopKey]bool
	// Drained are the numbers of paths that are known to have no flows.
	Drained map[uint16]bool
	// Drains are the networks that are drained, by name.
	Drains map[string]drain.Record
	// Flowtables says that this kernel can offload flows.
	Flowtables bool
}

// AdoptedPath is a path found in the kernel, recognised by the marker in its
// table.
type AdoptedPath struct {
	Number uint16
	Marker marker
	V6     bool
	// Kept are its routes with their groups, verbatim.
	Kept
}

// Adopted is a network found in the kernel, recognised by its VRF's alias.
type Adopted struct {
	Index uint16
	Table vrf.TableID
	// Forwarding is true when the kernel sends the network's policy traffic to
	// its table, false when a blocking rule holds it. It stands for the last
	// verdict of a daemon that is gone.
	Forwarding bool
}

// Kept are learned routes taken over from the kernel as they are, with the
// next-hop objects they need, until the speaker is in sync.
type Kept struct {
	NextHops []vrf.NextHop
	Groups   []vrf.Group
	Routes   []vrf.Route
}

// Observe turns a kernel snapshot into the kernel's part of a State.
func Observe(have vrf.Snapshot, own Ownership) State {
	st := State{
		Links:    make(map[string]vrf.Link, len(have.Links)),
		Adopted:  make(map[string]Adopted, len(have.Config.VRFs)),
		Learned:  map[string][]bgp.Route{},
		Kept:     map[string]Kept{},
		Verdicts: map[string]probes.Verdict{},
	}
	for _, l := range have.Links {
		st.Links[l.Name] = l
	}
	byTable := make(map[vrf.TableID]string, len(have.Config.VRFs))
	for _, v := range have.Config.VRFs {
		st.Adopted[v.Name] = Adopted{Index: v.Index, Table: v.Table,
			Forwarding: forwarding(have.Config.Rules, hopSetMark(v.Index), v.Table, own)}
		byTable[v.Table] = v.Name
	}
	kept := newKeeper(have.Config)
	paths := map[vrf.TableID]*AdoptedPath{}
	for _, r := range have.Config.Routes {
		if m, ok := markerOf(r.Prefix); ok && r.Table > own.TableBase && r.Table <= own.TableBase+maxIndex && byTable[r.Table] == "" {
			paths[r.Table] = &AdoptedPath{Number: uint16(r.Table - own.TableBase), Marker: m}
		}
	}
	for _, r := range have.Config.Routes {
		if name, ok := byTable[r.Table]; ok && r.Learned {
			st.Kept[name] = kept.add(st.Kept[name], r)
		}
		if p := paths[r.Table]; p != nil {
			p.Kept = kept.add(p.Kept, r)
			p.V6 = p.V6 || r.Type == vrf.Unicast && r.Prefix.Addr().Is6()
		}
	}
	for _, p := range paths {
		st.Paths = append(st.Paths, *p)
	}
	slices.SortFunc(st.Paths, func(a, b AdoptedPath) int { return cmp.Compare(a.Number, b.Number) })
	st.members(kept)
	return st
}

// members notes who is in which group.
func (st *State) members(k keeper) {
	st.Members = make(map[vrf.NextHopID][]vrf.NextHop, len(k.groups))
	st.InUse = map[hopKey]bool{}
	for id, g := range k.groups {
		for _, m := range g.Members {
			h, ok := k.hops[m.ID]
			if !ok || h.Blackhole {
				continue
			}
			h.ID = 0
			st.Members[id] = append(st.Members[id], h)
			st.InUse[hopKey{h.Gateway, h.Device}] = true
		}
	}
}

// forwarding reports whether rules send mark to table in at least one family
// and block it in none.
func forwarding(rules []vrf.Rule, mark vrf.Mark, table vrf.TableID, own Ownership) bool {
	lookup := false
	for _, r := range rules {
		if r.Mark != mark {
			continue
		}
		switch {
		case r.Action == vrf.RuleLookup && r.Table == table:
			lookup = true
		case r.Action != vrf.RuleLookup:
			return false
		}
	}
	return lookup
}

// keeper collects the next-hop objects behind routes, each once per network.
type keeper struct {
	hops   map[vrf.NextHopID]vrf.NextHop
	groups map[vrf.NextHopID]vrf.Group
}

func newKeeper(have vrf.Config) keeper {
	k := keeper{hops: make(map[vrf.NextHopID]vrf.NextHop, len(have.NextHops)),
		groups: make(map[vrf.NextHopID]vrf.Group, len(have.Groups))}
	for _, h := range have.NextHops {
		k.hops[h.ID] = h
	}
	for _, g := range have.Groups {
		k.groups[g.ID] = g
	}
	return k
}

func (k keeper) add(to Kept, r vrf.Route) Kept {
	if n := len(to.Routes); n > 0 && to.Routes[n-1].NextHop == r.NextHop {
		// as most routes
	} else if g, ok := k.groups[r.NextHop]; ok {
		if !hasGroup(to.Groups, g.ID) {
			to.Groups = append(to.Groups, g)
			for _, m := range g.Members {
				if h, ok := k.hops[m.ID]; ok && !hasHop(to.NextHops, h.ID) {
					to.NextHops = append(to.NextHops, h)
				}
			}
		}
	} else if h, ok := k.hops[r.NextHop]; ok && !hasHop(to.NextHops, h.ID) {
		to.NextHops = append(to.NextHops, h)
	}
	to.Routes = append(to.Routes, r)
	return to
}

// A network has few groups (one per distinct set of next hops), so a scan is
// cheaper than a map per network.
func hasGroup(gs []vrf.Group, id vrf.NextHopID) bool {
	return slices.ContainsFunc(gs, func(g vrf.Group) bool { return g.ID == id })
}

func hasHop(hs []vrf.NextHop, id vrf.NextHopID) bool {
	return slices.ContainsFunc(hs, func(h vrf.NextHop) bool { return h.ID == id })
}

// linkAddresses are the addresses on a link, without prefix lengths.
func linkAddresses(l vrf.Link) []netip.Addr {
	out := make([]netip.Addr, 0, len(l.Addresses))
	for _, a := range l.Addresses {
		out = append(out, a.Prefix.Addr())
	}
	return out
}
