package egress

import (
	"fmt"
	"net/netip"
	"slices"
)

// pathDecisions tell about the paths.
func (t *table) pathDecisions() []PathDecision {
	out := make([]PathDecision, 0, len(t.all))
	for _, p := range t.all {
		d := PathDecision{Number: p.number, Table: t.r.tableID(p.number), Mark: hopSetMark(p.number), V6: p.v6,
			Generation: p.marker.generation, Active: p.active, Usable: p.usable, Anchor: p.anchor}
		if p.set != nil {
			d.Bound, d.Named = p.set.bound, p.set.named != nil
		}
		if d.Named && len(p.groups) > 0 {
			for _, h := range p.groups[0].ordered {
				d.Ordered = append(d.Ordered, h.Gateway)
			}
			for _, h := range p.groups[0].member {
				d.Members = append(d.Members, h.Gateway)
			}
		}
		out = append(out, d)
	}
	return out
}

func nextHopStatuses(dec *NetworkDecision) []NextHopStatus {
	used := map[netip.Addr]int{}
	for _, p := range dec.Paths {
		for _, a := range p.Members {
			used[a]++
		}
	}
	out := make([]NextHopStatus, 0, len(dec.NextHops))
	for _, h := range dec.NextHops {
		out = append(out, NextHopStatus{Address: h.Address, Device: h.Device, Live: h.Live, Usable: h.Usable,
			Routes: h.Routes, Paths: used[h.Address], Reason: h.Reason})
	}
	return out
}

func pathStatuses(dec *NetworkDecision, flows *sweepResult) []PathStatus {
	out := make([]PathStatus, 0, len(dec.Paths))
	for _, p := range dec.Paths {
		s := PathStatus{Number: p.Number, Table: uint32(p.Table), Mark: fmt.Sprintf("%#x", uint32(p.Mark)), IPv6: p.V6,
			State: "draining", Usable: p.Usable, NextHops: p.Members}
		if p.Active {
			s.State = "active"
		}
		if flows != nil {
			s.Flows = flows.counts[p.Number]
		}
		for _, a := range p.Ordered {
			if !slices.Contains(p.Members, a) {
				s.Spare = append(s.Spare, a)
			}
		}
		out = append(out, s)
	}
	return out
}
