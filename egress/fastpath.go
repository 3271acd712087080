package egress

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// loseHops takes next hops whose probes have just gone down out of their groups,
// one message for each group, before the round that works out all the rest: with
// 100,000 routes that takes a hundred times as long. It uses what the round
// before decided, and does what the next one will decide.
func (r *Router) loseHops(ctx context.Context) {
	if r.prev == nil || r.kernelDirty.Load() {
		return // what we know of the kernel may be old: the round comes first
	}
	verdicts := r.verdicts()
	r.takeOut(ctx, func(network string, h hop) bool { return r.down(network, h, verdicts) })
}

// loseGone does the same with next hops that no route leads to any more, as when
// a BGP session ended: one message ends forwarding to them, however many routes
// have to go after it.
func (r *Router) loseGone(ctx context.Context, st *State) {
	if r.prev == nil || r.kernelDirty.Load() {
		return
	}
	gone := map[string]map[netip.Addr]bool{} // network -> the gateways that are left
	for i := range r.spec.Networks {
		n := &r.spec.Networks[i]
		routes, synced := st.Learned[n.Name]
		if n.BGP == nil || !synced || sameSlice(routes, r.learnedBefore[n.Name]) {
			continue
		}
		r.learnedBefore[n.Name] = routes
		if left, ok := r.gatewaysLeft(n, routes); ok {
			gone[n.Name] = left
		}
	}
	if len(gone) > 0 {
		r.takeOut(ctx, func(network string, h hop) bool { return gone[network] != nil && !gone[network][h.address()] })
	}
}

// sameSlice says that both are the same piece of memory: what a speaker reports
// is never changed.
func sameSlice(a, b []bgp.Route) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// gatewaysLeft are the gateways that something leads to. It does not know where
// there are next hops beyond the link, whose gateways take longer to find.
func (r *Router) gatewaysLeft(n *Network, routes []bgp.Route) (left map[netip.Addr]bool, ok bool) {
	left = map[netip.Addr]bool{}
	add := func(hops []NextHop) {
		for _, h := range hops {
			left[h.Address] = true
		}
	}
	for _, s := range n.StaticRoutes {
		add(s.NextHops)
	}
	for _, p := range r.spec.Policies {
		for _, rule := range p.Rules {
			if rule.Network == n.Name {
				add(rule.NextHops)
			}
		}
	}
	known := map[netip.Addr]bool{}
	if dec := r.prev.network(n.Name); dec != nil {
		for _, h := range dec.NextHops {
			known[h.Address] = h.Device != ""
		}
	}
	for i := range routes {
		for _, a := range routes[i].NextHops {
			if !left[a] && !known[a] {
				return nil, false // new, or beyond the link
			}
			left[a] = true
		}
	}
	return left, true
}

// takeOut takes next hops out of the groups that the round before wanted.
func (r *Router) takeOut(ctx context.Context, lost func(network string, h hop) bool) {
	groups := r.prev.objects.without(lost)
	if len(groups) == 0 {
		return
	}
	have := map[vrf.NextHopID]bool{}
	for _, h := range r.have.Config.NextHops {
		have[h.ID] = true
	}
	var plan vrf.Plan
	for _, g := range groups {
		if !slices.ContainsFunc(g.Members, func(m vrf.Member) bool { return !have[m.ID] }) {
			plan.Ops = append(plan.Ops, vrf.Op{Action: vrf.PutGroup{Group: g.Group, Replace: true}, Network: g.network})
		}
	}
	if plan.Empty() {
		return
	}
	res := r.edges.Kernel.Apply(ctx, plan)
	r.counters.ops += uint64(res.Applied)
	if err := res.Err(); err != nil {
		r.kernelDirty.Store(true)
		r.log.Warn("next hops could not be taken out of their groups at once", "err", err)
		return
	}
	r.follow(plan)
	r.tell.reachedBy(plan)
	r.log.Info("took next hops out of their groups", "groups", len(plan.Ops))
}

// down says whether a probe of a next hop says that it is down.
func (r *Router) down(network string, h hop, verdicts map[string]probes.Verdict) bool {
	for _, n := range r.spec.Networks {
		if n.Name != network {
			continue
		}
		for _, name := range n.hopProbes(h.address()) {
			if verdicts[name] == probes.Down {
				return true
			}
		}
	}
	return false
}

// follow keeps the snapshot true after a plan of ours has been carried out; what
// has effects that only the kernel knows is read again.
func (r *Router) follow(plan vrf.Plan) {
	have, ok := plan.ApplyTo(r.have)
	if !ok {
		r.kernelDirty.Store(true)
		return
	}
	r.have = have
}

// changedGroup is a group with other members, and its network.
type changedGroup struct {
	vrf.Group
	network string
}

// without gives the groups that change when next hops are lost, sorted by id.
func (o *objects) without(lost func(network string, h hop) bool) []changedGroup {
	judged := map[hopOf]bool{}
	var out []changedGroup
	for id, g := range o.made {
		changed := false
		ordered := slices.Clone(g.ordered)
		for i, h := range ordered {
			key := hopOf{g.network, h.NextHop}
			gone, known := judged[key]
			if !known {
				gone = h.usable && lost(g.network, h)
				judged[key] = gone
			}
			if gone {
				ordered[i].usable, changed = false, true
			}
		}
		if !changed {
			continue
		}
		next := g.pathGroup
		next.ordered = ordered
		next.member = keepSlots(g.member, ordered, g.bound)
		if group := o.fill(id, next, g.v6); !slices.Equal(group.Members, o.groups[id].Members) {
			out = append(out, changedGroup{group, g.network})
		}
	}
	slices.SortFunc(out, func(a, b changedGroup) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// hopOf is a next hop of a network.
type hopOf struct {
	network string
	hop     vrf.NextHop
}
