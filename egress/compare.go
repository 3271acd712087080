package egress

import (
	"context"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// RouteAsker asks the kernel for the way of a packet; *vrf.Kernel is the real
// one.
type RouteAsker interface {
	RouteGet(ctx context.Context, q vrf.RouteQuery) (vrf.RouteAnswer, error)
}

// Compare asks the kernel what it would do with the flow, and notes where that
// is something else. have is the packet filter read back from the kernel, want
// the one that is rendered.
func (e *Explanation) Compare(ctx context.Context, spec *Spec, k RouteAsker, have, want nat.Ruleset) error {
	if !have.Exists {
		e.disagree("the kernel has no packet filter of ours: is the daemon running?")
		return nil
	}
	trace, err := have.WithTexts(want).Classify(e.Flow.Src, e.Flow.Dst)
	if err != nil {
		e.disagree("the packet filter is not the one expected: %v", err)
		return nil
	}
	e.compareFilter(trace)
	if e.decision.Outcome != OutcomeNetwork || trace.Decision != nat.Exits || len(spec.Clients.Interfaces) == 0 {
		return nil
	}
	answer, err := k.RouteGet(ctx, vrf.RouteQuery{Src: e.Flow.Src, Dst: e.Flow.Dst, Mark: vrf.Mark(trace.Mark),
		Interface: spec.Clients.Interfaces[0], Proto: e.Flow.Proto, SrcPort: e.Flow.SrcPort, DstPort: e.Flow.DstPort})
	if err != nil {
		return err
	}
	e.compareRoute(answer)
	return nil
}

func (e *Explanation) disagree(format string, args ...any) {
	e.step("DISAGREEMENT", format, args...)
	e.Disagreements = append(e.Disagreements, e.Steps[len(e.Steps)-1].Text)
}

// expected is the decision of classification that an outcome leads to.
func (e *Explanation) expected() []nat.Decision {
	switch {
	case e.Outcome == OutcomeNetwork && e.mark&markEgress != 0 && e.mark&maskHopSet != markEgress:
		return []nat.Decision{nat.Exits}
	case e.Outcome == OutcomeReject:
		return []nat.Decision{nat.Rejected}
	case e.Outcome == OutcomeNormal:
		return []nat.Decision{nat.Normal}
	}
	return []nat.Decision{nat.Dropped, nat.Unmatched}
}

func (e *Explanation) compareFilter(trace nat.Trace) {
	e.step("kernel: packet filter", "%s%s", trace.Decision, filterText(trace))
	if e.decision.Local {
		return // only the kernel knows its addresses
	}
	if want := e.expected(); !slices.Contains(want, trace.Decision) {
		e.disagree("the packet filter says %s, the configuration %s", trace.Decision, want[0])
		e.Dropped = e.Dropped || trace.Decision != nat.Normal && trace.Decision != nat.Exits
		return
	}
	if trace.Decision != nat.Exits {
		return
	}
	if trace.Mark != uint32(e.mark) {
		e.disagree("the packet filter sets mark %#x, expected is %#x", trace.Mark, uint32(e.mark))
	}
	if e.address.IsValid() && trace.Address != e.address {
		e.disagree("the packet filter translates to %s, expected is %s", trace.Address, e.address)
	}
}

func filterText(t nat.Trace) string {
	if t.Decision != nat.Exits {
		return ""
	}
	text := " by " + t.Exit
	if t.Address.IsValid() {
		text += " as " + t.Address.String()
	}
	return text
}

func (e *Explanation) compareRoute(a vrf.RouteAnswer) {
	if a.Type != vrf.Unicast {
		e.step("kernel: route", "not delivered: %s", routeTypeName(a.Type))
		e.Dropped = true
		if e.routeType == vrf.Unicast {
			e.disagree("the kernel does not deliver the packet (%s), expected is %s", routeTypeName(a.Type), addrNames(e.members))
		}
		return
	}
	e.step("kernel: route", "table %d by %s on %s", a.Table, gatewayName(a.Gateway), a.Device)
	switch {
	case e.routeType != vrf.Unicast:
		e.disagree("the kernel delivers the packet by %s on %s, expected is that it does not (%s)", gatewayName(a.Gateway), a.Device, routeTypeName(e.routeType))
	case a.Table != 0 && a.Table != e.table:
		e.disagree("the kernel finds the route in table %d, expected is %d", a.Table, e.table)
	case len(e.members) > 0 && !slices.Contains(e.members, a.Gateway):
		e.disagree("the kernel takes next hop %s, expected is one of %s", gatewayName(a.Gateway), addrNames(e.members))
	}
}

func gatewayName(a netip.Addr) string {
	if !a.IsValid() {
		return "the link itself"
	}
	return a.String()
}

func routeTypeName(t vrf.RouteType) string {
	switch t {
	case vrf.Unicast:
		return "unicast"
	case vrf.Blackhole:
		return "blackhole"
	case vrf.Unreachable:
		return "unreachable"
	case vrf.Prohibit:
		return "prohibit"
	}
	return "another type"
}
