package egress

import (
	"maps"
	"net/netip"

	"github.com/egret-router/egret/egress/drain"
)

// orderSweep leaves an order for the watch over conntrack: with what this round
// decided, and at once if a new Spec came into force with it or a drain went on.
// While the packet filter is not in place the order before stays, since a path
// or a network may still take flows that is to be draining.
func (r *Router) orderSweep(want *Desired, rep *report) {
	if rep.filter != nil {
		return
	}
	now := map[uint16]bool{}
	for _, n := range want.Networks {
		for _, p := range n.Paths {
			if p.Number == 0 || p.Active {
				continue
			}
			now[p.Number] = true
			if _, known := r.draining[p.Number]; !known {
				r.draining[p.Number] = r.counters.rounds
			}
		}
	}
	for number := range r.draining {
		if !now[number] {
			delete(r.draining, number)
		}
	}
	order := &sweepOrder{round: r.counters.rounds, draining: now, stages: r.drainStages(want)}
	var before *judge
	prev := r.flows.current()
	if prev != nil {
		before = prev.judge
	}
	if before != nil && !r.changed && r.prev != nil && sameNumbers(r.prev, want) {
		order.judge = before
	} else {
		order.judge = newJudge(r.spec, want, r.compiled.poolIDs, r.ownAddresses(), before)
	}
	r.flows.set(order, r.changed || prev == nil && len(order.stages) > 0 || prev != nil && !maps.Equal(prev.stages, order.stages))
}

// drainStages are those of the networks that are drained. Those that refuse new
// flows do so since this round, if not before.
func (r *Router) drainStages(want *Desired) map[string]drain.Stage {
	out := map[string]drain.Stage{}
	for _, n := range want.Networks {
		if n.Drain.Stage != drain.None {
			out[n.Name] = n.Drain.Stage
		}
		if _, known := r.refusing[n.Name]; !known && n.Drain.Refuses() {
			r.refusing[n.Name] = r.counters.rounds
		}
	}
	for name := range r.refusing {
		if out[name] != drain.Refusing && out[name] != drain.Withdrawn {
			delete(r.refusing, name)
		}
	}
	return out
}

// sameNumbers says that a judge made for one round is good for the next.
func sameNumbers(a, b *Desired) bool {
	if len(a.Networks) != len(b.Networks) {
		return false
	}
	for i := range a.Networks {
		x, y := &a.Networks[i], &b.Networks[i]
		if x.Name != y.Name || x.Index != y.Index || x.Up != y.Up || x.Drain.Stage != y.Drain.Stage || x.Drain.Cut != y.Drain.Cut || len(x.Paths) != len(y.Paths) {
			return false
		}
		for j := range x.Paths {
			if x.Paths[j].Number != y.Paths[j].Number || x.Paths[j].Active != y.Paths[j].Active {
				return false
			}
		}
	}
	return true
}

// drained are the paths that a sweep found empty after they had become
// draining.
func (r *Router) drained() map[uint16]bool {
	res := r.flows.latest()
	if res == nil {
		return nil
	}
	out := map[uint16]bool{}
	for number := range res.drained {
		if since, ok := r.draining[number]; ok && res.round >= since {
			out[number] = true
		}
	}
	return out
}

// ownAddresses are all addresses of this node.
func (r *Router) ownAddresses() []netip.Addr {
	var out []netip.Addr
	for _, l := range r.have.Links {
		out = append(out, linkAddresses(l)...)
	}
	return out
}
