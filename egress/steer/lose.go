package steer

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/vrf"
)

// loseGateways takes gateways that have just gone down out of the groups of their
// sets, one message for each group, before the round works out all the rest. It uses
// what the round before decided.
func (a *Agent) loseGateways(ctx context.Context, health map[string]Health) {
	if a.prev == nil || a.kernelDirty.Load() {
		return // what we know of the kernel may be old: the round comes first
	}
	plan := lose(a.prev, a.have, health)
	if plan.Empty() {
		return
	}
	res := a.edges.Kernel.Apply(ctx, plan)
	a.ops += uint64(res.Applied)
	have, ok := plan.ApplyTo(a.have)
	if len(res.Errors) > 0 || !ok {
		a.kernelDirty.Store(true)
		a.log.Warn("gateways could not be taken out of their sets at once", "err", res.Err())
		return
	}
	a.saw(have)
	a.log.Info("took gateways out of their sets", "groups", len(plan.Ops))
}

// lose plans the loss of gateways that have been in use.
func lose(prev *Desired, have vrf.Snapshot, health map[string]Health) vrf.Plan {
	hopOf := map[string]vrf.NextHop{}
	lost := map[string]bool{}
	for _, g := range prev.Gateways {
		hopOf[g.ID] = g.hop
		lost[g.ID] = g.Carrying && health[g.ID] == Down
	}
	ids := map[vrf.NextHop]vrf.NextHopID{}
	for _, h := range have.Config.NextHops {
		id := h.ID
		h.ID = 0
		ids[h] = id
	}
	var plan vrf.Plan
	for _, s := range prev.Sets {
		if !slices.ContainsFunc(s.Live, func(id string) bool { return lost[id] }) {
			continue
		}
		left := s
		left.hops = nil
		for _, id := range s.Live {
			if h := hopOf[id]; !lost[id] && !slices.Contains(left.hops, h) {
				left.hops = append(left.hops, h)
			}
		}
		if sameHops(left.hops, s.hops) {
			continue // another gateway is at the same end
		}
		for _, v6 := range []bool{false, true} {
			g := groupOf(left, v6, func(h vrf.NextHop) vrf.NextHopID { return ids[h] })
			g.ID = groupIn(have, s, v6)
			if g.ID != 0 && !slices.ContainsFunc(g.Members, func(m vrf.Member) bool { return m.ID == 0 }) {
				plan.Ops = append(plan.Ops, vrf.Op{Action: vrf.PutGroup{Group: g, Replace: true}})
			}
		}
	}
	return plan
}

// groupIn is the group of a set in the kernel, 0 if there is none.
func groupIn(have vrf.Snapshot, s Set, v6 bool) vrf.NextHopID {
	for _, r := range have.Config.Routes {
		if r.Table == tableBase+vrf.TableID(s.Number) && r.Type == vrf.Unicast && r.Prefix.Addr().Is6() == v6 {
			return r.NextHop
		}
	}
	return 0
}

// sweep is what conntrack said last.
type sweep struct {
	round  uint64 // begun after this round
	counts map[uint16]int
	mask   uint32   // of the marks that counted
	former []uint32 // whose flows it has ended
	at     time.Time
}

// note remembers since when sets take no new flows.
func (a *Agent) note(cfg *Config, want *Desired, inPlace bool) {
	old := map[uint16]bool{}
	for _, s := range want.Sets {
		if !s.Active {
			old[s.Number] = true
			if _, known := a.retired[s.Number]; !known && inPlace {
				a.retired[s.Number] = a.rounds + 1
			}
		}
	}
	for number := range a.retired {
		if !old[number] {
			delete(a.retired, number)
		}
	}
	o := &order{round: a.rounds + 1, marks: want.marks}
	if inPlace {
		o.former, o.of = want.former, podSources(cfg)
	}
	o.needed = len(old) > 0 || len(o.former) > 0
	a.orders.Store(o)
}

// empty are the sets that a sweep found without flows after they had been retired.
func (a *Agent) empty() map[uint16]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[uint16]bool{}
	for number, since := range a.retired {
		if a.swept.counts != nil && a.swept.round >= since && a.swept.counts[number] == 0 {
			out[number] = true
		}
	}
	return out
}

// order says what the next sweep is for.
type order struct {
	round  uint64
	needed bool
	marks  marks
	// former are the bits of other marks: flows with them end that begin at one of
	// our pods.
	former []uint32
	of     func(netip.Addr) bool
}

// former are the bits of other masks whose flows no sweep has ended yet.
func (a *Agent) former(m marks) []uint32 {
	bits := former(a.have.Config, m)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.swept.mask != m.mask {
		return bits
	}
	return slices.DeleteFunc(bits, func(b uint32) bool { return slices.Contains(a.swept.former, b) })
}

// endFormer ends the flows that have marks of another mask.
func (a *Agent) endFormer(ctx context.Context, o *order) error {
	for _, bit := range o.former {
		_, err := a.edges.Flows.Sweep(ctx, bit, bit, func(f flows.Flow) bool { return f.Mark&o.marks.ours == 0 && o.of(f.Src) })
		if err != nil {
			return err
		}
	}
	return nil
}

// sweeps counts the flows of the sets, periodically while one is old.
func (a *Agent) sweeps(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.Sweep(ctx)
	}
}

// Sweep counts the flows of the sets once, if there is one that takes no new ones.
func (a *Agent) Sweep(ctx context.Context) {
	o := a.orders.Load()
	if o == nil || !o.needed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	m := o.marks
	res, err := a.edges.Flows.Sweep(ctx, m.ours, m.ours, func(flows.Flow) bool { return false })
	if err == nil {
		err = a.endFormer(ctx, o)
	}
	if err != nil || res.Unlisted > 0 {
		if ctx.Err() == nil {
			a.log.Warn("sweep of conntrack failed", "err", err, "marks not listed", res.Unlisted)
		}
		return
	}
	counts := map[uint16]int{}
	for mark, n := range res.ByMark {
		counts[m.number(mark)] += n
	}
	a.mu.Lock()
	a.swept = sweep{round: o.round, counts: counts, mask: m.mask, former: o.former, at: time.Now()}
	a.mu.Unlock()
	a.fire()
}
