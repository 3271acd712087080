package egress

import (
	"cmp"
	"context"
	"slices"

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
	groups := r.prev.objects.without(func(network string, h hop) bool { return r.down(network, h, verdicts) })
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
