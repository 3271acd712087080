package egress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// Flow is the first packet of a flow from a client.
type Flow struct {
	Src, Dst         netip.Addr
	Proto            uint8 // IANA number; 0 leaves it open
	SrcPort, DstPort uint16
}

// Explanation is what becomes of a flow, step by step.
type Explanation struct {
	Flow  Flow          `json:"flow"`
	Steps []ExplainStep `json:"steps"`
	// Outcome is the decision of the configuration; Dropped says that the traffic
	// is discarded, by it or because nothing it could take works.
	Outcome Outcome `json:"outcome"`
	Dropped bool    `json:"dropped"`
	// Disagreements are where the kernel does something else.
	Disagreements []string `json:"disagreements,omitempty"`

	// What the comparison with the kernel needs.
	decision  Decision
	exit      string
	mark      vrf.Mark
	table     vrf.TableID
	members   []netip.Addr
	address   netip.Addr
	routeType vrf.RouteType
}

// ExplainStep is one step of an Explanation.
type ExplainStep struct {
	What string `json:"what"`
	Text string `json:"text"`
}

func (e *Explanation) step(what, format string, args ...any) {
	e.Steps = append(e.Steps, ExplainStep{what, fmt.Sprintf(format, args...)})
}

// Explain follows a new flow through the configuration and what follows from it
// now. It is pure; Compare asks the kernel.
func Explain(spec *Spec, st State, d *Desired, flow Flow) *Explanation {
	e := &Explanation{Flow: flow}
	var own []netip.Addr
	for _, l := range st.Links {
		own = append(own, linkAddresses(l)...)
	}
	dec := newDecider(spec, own).decide(flow.Src, flow.Dst)
	e.decision, e.Outcome = dec, dec.Outcome
	if dec.Policy != nil {
		e.step("client", "%s is a client of policy %s by %s", flow.Src, dec.Policy.Name, dec.Client)
	}
	if dec.Rule != nil {
		e.step("rule", "%s", ruleText(dec.Rule))
	}
	e.step("decision", "%s: %s", dec.Outcome, dec.Reason)
	switch dec.Outcome {
	case OutcomeNetwork:
		x := explainer{e: e, spec: spec, st: st, d: d, rule: dec.Rule}
		x.network()
	case OutcomeDrop, OutcomeReject:
		e.Dropped = true
	}
	return e
}

func ruleText(r *Rule) string {
	text := r.Destination.String()
	switch r.Action {
	case ActionNetwork:
		text += " to network " + r.Network + " as " + r.Pool
	default:
		text += ": " + string(r.Action)
	}
	if len(r.NextHops) > 0 {
		text += " by " + hopNames(r.NextHops)
	}
	if r.MaxNextHops > 0 {
		text += fmt.Sprintf(", at most %d next hops for a client", r.MaxNextHops)
	}
	if r.Description != "" {
		text += " (" + r.Description + ")"
	}
	return text
}

func hopNames(hops []NextHop) string {
	out := make([]string, 0, len(hops))
	for _, h := range hops {
		out = append(out, h.Address.String())
	}
	return strings.Join(out, ", ")
}

func addrNames(addresses []netip.Addr) string {
	out := make([]string, 0, len(addresses))
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// explainer explains a flow that goes to a network.
type explainer struct {
	e    *Explanation
	spec *Spec
	st   State
	d    *Desired
	rule *Rule
	dec  *NetworkDecision
	net  *Network
}

func (x *explainer) network() {
	x.dec = x.d.network(x.rule.Network)
	i := slices.IndexFunc(x.spec.Networks, func(n Network) bool { return n.Name == x.rule.Network })
	x.net = &x.spec.Networks[i]
	c := compile(x.spec)
	set := setOf(*x.rule, x.net.MaxNextHops)
	number, exit := x.choose(c, set)
	x.e.mark = exitMark(number, c.poolIDs[x.rule.Pool])
	x.e.table = x.dec.Table
	for _, p := range x.dec.Paths {
		if p.Number == number {
			x.e.table = p.Table
		}
	}
	if x.refused(exit) {
		return
	}
	x.health()
	x.route()
	x.pool()
}

// choose finds the exit that the packet filter sends the client to.
func (x *explainer) choose(c *compiled, set *hopSet) (number uint16, exit nat.Exit) {
	x.e.exit = c.target(*x.rule, x.net.MaxNextHops)
	if set.plain() {
		x.e.step("hop set", "the routes of network %s: table %d, mark %#x", x.dec.Name, x.dec.Table, uint32(x.dec.Mark))
	} else {
		for _, s := range x.d.NAT.Spreads {
			if s.Name == x.e.exit && len(s.Exits) > 0 {
				bucket := nat.ClientBucket(x.e.Flow.Src, len(s.Exits))
				x.e.exit = s.Exits[bucket]
				x.e.step("bucket", "the client is in bucket %d of %d", bucket, len(s.Exits))
				break
			}
		}
	}
	number = x.dec.Index
	for _, e := range x.d.NAT.Exits {
		if e.Name == x.e.exit {
			number, _ = markParts(e.Mark)
			exit = e
		}
	}
	for _, p := range x.dec.Paths {
		if p.Number != number || number == 0 {
			continue
		}
		text := fmt.Sprintf("path %d: table %d, mark %#x", p.Number, p.Table, uint32(p.Mark))
		if p.Named {
			text += ", next hops in use " + addrNames(p.Members)
			if spare := without(p.Ordered, p.Members); len(spare) > 0 {
				text += ", not in use " + addrNames(spare)
			}
		}
		x.e.step("path", "%s", text)
	}
	if number == 0 {
		x.e.Dropped = true
		x.e.step("path", "no number is left for this path: its traffic is dropped")
	}
	return number, exit
}

// refused tells of an exit that takes no new flows.
func (x *explainer) refused(exit nat.Exit) bool {
	if d := x.dec.Drain; d.Stage != drain.None {
		x.e.step("drain", "network %s is drained: %s", x.dec.Name, drainReason(d))
	}
	switch {
	case exit.Fallback && x.dec.Drain.Refuses():
		x.e.Outcome = OutcomeNormal
		x.e.step("fallback", "onNoNextHop is fallback: new flows are routed normally, untranslated; established ones stay")
	case exit.Fallback:
		x.e.Outcome = OutcomeNormal
		x.e.step("fallback", "no next hop works, and onNoNextHop is fallback: new flows are routed normally, untranslated")
	case exit.Mark == 0:
		return false // it is closed
	case exit.Refuse == nat.Reject:
		x.e.Outcome, x.e.Dropped = OutcomeReject, true
		x.e.step("refused", "new flows are rejected (ICMP prohibited); established ones stay")
	case exit.Refuse == nat.Drop:
		x.e.Outcome, x.e.Dropped = OutcomeDrop, true
		x.e.step("refused", "new flows are dropped; established ones stay")
	default:
		return false
	}
	return true
}

func without(all, some []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(some, a) })
}

// health tells of the network and of its next hops.
func (x *explainer) health() {
	if x.dec.Up {
		x.e.step("network", "%s is up%s", x.dec.Name, because(x.dec.Reason))
	} else {
		x.e.Dropped = true
		x.e.routeType = vrf.Blackhole
		what := "dropped"
		if x.net.OnNoNextHop == NoNextHopReject {
			x.e.routeType, what = vrf.Prohibit, "rejected (ICMP prohibited)"
		}
		x.e.step("network", "%s is down, its traffic is %s%s", x.dec.Name, what, because(x.dec.Reason))
	}
	for _, h := range x.dec.NextHops {
		if h.Address.Is4() != x.e.Flow.Dst.Is4() {
			continue
		}
		state := "usable"
		if !h.Usable {
			state = "not usable"
		}
		x.e.step("next hop", "%s on %s: %s%s", h.Address, cmp.Or(h.Device, "no device"), state, because(h.Reason))
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// route finds the longest prefix in the table.
func (x *explainer) route() {
	if x.e.routeType != 0 {
		return // blocked before any table
	}
	var best *vrf.Route
	for i := range x.d.Kernel.Routes {
		r := &x.d.Kernel.Routes[i]
		if r.Table != x.e.table || !r.Prefix.Contains(x.e.Flow.Dst) {
			continue
		}
		if best == nil || r.Prefix.Bits() > best.Prefix.Bits() || r.Prefix.Bits() == best.Prefix.Bits() && r.Metric < best.Metric {
			best = r
		}
	}
	if best == nil || best.Type != vrf.Unicast {
		if x.connected() {
			x.e.step("route", "the destination is on a link of network %s", x.dec.Name)
			x.e.routeType = vrf.Unicast
			return
		}
		x.e.Dropped, x.e.routeType = true, vrf.Unreachable
		if best != nil {
			x.e.routeType = best.Type
		}
		x.e.step("route", "table %d has no route to %s: unreachable", x.e.table, x.e.Flow.Dst)
		return
	}
	x.e.routeType = vrf.Unicast
	x.e.members = x.memberAddresses(best.NextHop)
	if len(x.e.members) == 0 {
		x.e.Dropped, x.e.routeType = true, vrf.Blackhole
		x.e.step("route", "%s in table %d: no next hop of it works, dropped", best.Prefix, x.e.table)
		return
	}
	x.e.step("route", "%s in table %d by group %d: %s", best.Prefix, x.e.table, best.NextHop, addrNames(x.e.members))
}

// connected says that the destination is on a link of the network, in whose own
// table the kernel has a route for it.
func (x *explainer) connected() bool {
	if x.e.table != x.dec.Table {
		return false
	}
	for _, p := range x.net.Ports {
		for _, a := range x.st.Links[p.Name].Addresses {
			if a.Prefix.Masked().Contains(x.e.Flow.Dst) {
				return true
			}
		}
	}
	return false
}

func (x *explainer) memberAddresses(id vrf.NextHopID) []netip.Addr {
	var out []netip.Addr
	for _, g := range x.d.Kernel.Groups {
		if g.ID != id {
			continue
		}
		for _, m := range g.Members {
			for _, h := range x.d.Kernel.NextHops {
				if h.ID == m.ID && h.Gateway.IsValid() {
					out = append(out, h.Gateway)
				}
			}
		}
	}
	return out
}

// pool tells which address the client gets, and who knows of it.
func (x *explainer) pool() {
	i := slices.IndexFunc(x.d.NAT.Pools, func(p nat.Pool) bool { return p.Name == x.rule.Pool })
	p := x.d.NAT.Pools[i]
	addresses := p.Pool4
	if x.e.Flow.Src.Is6() {
		addresses = p.Pool6
	}
	switch {
	case len(addresses) == 0:
		x.e.Dropped = true
		x.e.step("pool", "%s has no %s address: dropped", p.Name, familyName(x.e.Flow.Src.Is6()))
		return
	case p.PerFlow:
		x.e.step("pool", "%s: one of %d addresses by flow", p.Name, len(addresses))
	default:
		x.e.address = nat.ClientAddress(addresses, x.e.Flow.Src)
		x.e.step("pool", "%s: %s of %d addresses", p.Name, x.e.address, len(addresses))
	}
	for _, c := range x.d.BGP {
		if c.Network != x.dec.Name {
			continue
		}
		var told []string
		for _, a := range c.Advertise {
			if x.e.address.IsValid() && a.Prefix.Contains(x.e.address) {
				told = append(told, a.Prefix.String())
			}
		}
		if len(told) > 0 {
			x.e.step("advertised", "%s, to %s", strings.Join(told, ", "), peerNames(c.Peers))
		} else if x.e.address.IsValid() {
			x.e.step("advertised", "no: the address is not advertised now")
		}
	}
}

func peerNames(peers []bgp.Peer) string {
	out := make([]string, 0, len(peers))
	for _, p := range peers {
		out = append(out, p.Address.String())
	}
	return strings.Join(out, ", ")
}
