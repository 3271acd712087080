package egress

import "net/netip"

// orderSweep leaves an order for the watch over conntrack: with what this round
// decided, and at once if a new Spec came into force with it. While the packet
// filter is not in place the order before stays, since a path may still take
// flows that is to be draining.
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
	order := &sweepOrder{round: r.counters.rounds, draining: now}
	var before *judge
	if prev := r.flows.current(); prev != nil {
		before = prev.judge
	}
	if before != nil && !r.changed && r.prev != nil && sameNumbers(r.prev, want) {
		order.judge = before
	} else {
		order.judge = newJudge(r.spec, want, r.compiled.poolIDs, r.ownAddresses(), before)
	}
	r.flows.set(order, r.changed)
}

// sameNumbers says that a judge made for one round is good for the next.
func sameNumbers(a, b *Desired) bool {
	if len(a.Networks) != len(b.Networks) {
		return false
	}
	for i := range a.Networks {
		x, y := &a.Networks[i], &b.Networks[i]
		if x.Name != y.Name || x.Index != y.Index || len(x.Paths) != len(y.Paths) {
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
