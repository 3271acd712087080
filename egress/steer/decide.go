package steer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/vrf"
)

// Desired is what should exist on a node.
type Desired struct {
	Kernel  vrf.Config
	Filter  nat.Ruleset
	Sysctls []sysctl.Setting
	// Sets are the sets of gateways, by number.
	Sets     []Set
	Gateways []GatewayDecision
	// MTU is that of the tunnel.
	MTU int
	// Problems is what of the Config cannot be had; what it concerns is blocked.
	Problems []string
	marks    marks
	former   []uint32 // see Observed
	// routing is what Kernel came from: two that are the same have the same Kernel.
	routing *madeRouting
}

// Set is a set of gateways with a mark and a table.
type Set struct {
	Number uint16
	Mark   uint32
	// Members are the gateways that it is of, by ID; "" for each that the Config does
	// not know any more. Live are those that its flows can go to.
	Members, Live []string
	// Active sets take new flows. Lost ones have nowhere to go: their flows are
	// treated as new ones.
	Active, Lost bool
	markers      []netip.Addr
	hops         []vrf.NextHop
}

// GatewayDecision is what is thought of a gateway.
type GatewayDecision struct {
	Gateway
	Health Health
	// Usable gateways take new flows, Carrying ones keep those they have.
	Usable, Carrying bool
	Reason           string
	// Clients counts those that bounded rules have given it, once for each choice.
	Clients int
	hop     vrf.NextHop // without id and family
}

// Decide says what should exist, from what is wanted and what was observed. It is
// pure, total, and does not depend on the order of anything.
func Decide(cfg Config, obs Observed) Desired { return new(Memo).Decide(cfg, obs) }

// Decide is the function Decide, quicker where little has changed since the last call.
func (m *Memo) Decide(cfg Config, obs Observed) Desired {
	mk, err := marksFor(cfg.MarkMask)
	if m.mask != mk.mask {
		*m = Memo{}
	}
	d := decider{cfg: normal(cfg), obs: obs, memo: m, made: Memo{mask: mk.mask, policies: map[string]madePolicy{}, sets: map[uint16]madeSet{}},
		marks: mk, gateways: map[string]*GatewayDecision{}, taken: map[uint16]bool{}, sets: map[string]*Set{}}
	if err != nil {
		d.problems = append(d.problems, fmt.Sprintf("%v: %#x is used", err, DefaultMarkMask))
	}
	d.tunnel()
	d.judge()
	d.policies()
	d.choices()
	d.keepOld()
	out := Desired{Gateways: d.decisions(), MTU: d.cfg.Tunnel.MTU, Problems: d.problems, marks: d.marks, former: obs.Former}
	out.Sets = append(slices.Collect(valuesOf(d.sets)), d.old...)
	slices.SortFunc(out.Sets, func(a, b Set) int { return cmp.Compare(a.Number, b.Number) })
	out.routing = d.routing(out.Sets)
	out.Kernel = out.routing.config
	out.Filter = d.filter(out.Sets)
	out.Sysctls = d.sysctls()
	slices.Sort(out.Problems)
	d.made.routing = out.routing
	*m = d.made // what is in use no more is forgotten
	return out
}

type decider struct {
	cfg      Config
	obs      Observed
	marks    marks
	memo     *Memo
	made     Memo // for the next call
	problems []string
	gateways map[string]*GatewayDecision
	taken    map[uint16]bool
	sets     map[string]*Set // active, by their members
	old      []Set
	rules    []policyChain
	spreads  map[string]*spread // by name
}

// judge decides on each gateway.
func (d *decider) judge() {
	inUse := map[vrf.NextHop]bool{}
	for _, s := range d.obs.Sets {
		for _, h := range s.Hops {
			inUse[h] = true
		}
	}
	for _, g := range d.cfg.Gateways {
		if d.gateways[g.ID] != nil {
			continue
		}
		dec := &GatewayDecision{Gateway: g, Health: d.obs.Health[g.ID]}
		d.gateways[g.ID] = dec
		hop, ok := d.hop(g)
		dec.hop = hop
		switch {
		case !ok:
			dec.Reason = "no tunnel leads there: no end of it is of a family that this node has"
		case dec.Health == Down:
			dec.Reason = "it does not answer, or says that it failed"
		case g.Draining || dec.Health == Draining:
			dec.Carrying, dec.Reason = true, "it is draining"
		case dec.Health == Ready:
			dec.Usable, dec.Carrying = true, true
		case inUse[hop]:
			dec.Usable, dec.Carrying, dec.Reason = true, true, "it was not heard of yet, and was in use"
		default:
			dec.Reason = "it was not heard of yet"
		}
	}
}

func (d *decider) decisions() []GatewayDecision {
	out := make([]GatewayDecision, 0, len(d.gateways))
	for _, g := range d.gateways {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b GatewayDecision) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// hop is the next hop to a gateway. IPv4 outside is preferred: its header is smaller.
func (d *decider) hop(g Gateway) (vrf.NextHop, bool) {
	if g.Here {
		return vrf.NextHop{Device: d.cfg.Tunnel.Loop}, true
	}
	for _, ipv4 := range []bool{true, false} {
		far, near := ofFamily(g.Endpoints, ipv4), ofFamily(d.cfg.Tunnel.Local, ipv4)
		if far.IsValid() && (near.IsValid() || len(d.cfg.Tunnel.Local) == 0) {
			return vrf.NextHop{Device: d.cfg.Tunnel.Device, Tunnel: vrf.Tunnel{Endpoint: far, Source: near, VNI: d.cfg.Tunnel.VNI}}, true
		}
	}
	return vrf.NextHop{}, false
}

func ofFamily(list []netip.Addr, ipv4 bool) netip.Addr {
	for _, a := range list {
		if a.Is4() == ipv4 {
			return a
		}
	}
	return netip.Addr{}
}

// usable are the gateways of a rule that take new flows.
func (d *decider) usable(r Rule) []string {
	var all, here []string
	for _, id := range r.Gateways {
		g := d.gateways[id]
		if g == nil || !g.Usable || slices.Contains(all, id) {
			continue
		}
		all = append(all, id)
		if g.Here {
			here = append(here, id)
		}
	}
	if r.PreferLocal && len(here) > 0 {
		return here
	}
	return all
}

// set finds or makes the active set of exactly these gateways. It is false when there
// is no number left.
func (d *decider) set(members []string) (*Set, bool) {
	key := strings.Join(members, "\x00")
	if s := d.sets[key]; s != nil {
		return s, true
	}
	s := Set{Members: members, Live: members, Active: true}
	for _, id := range members {
		s.markers = append(s.markers, markerOf(id))
		if h := d.gateways[id].hop; !slices.Contains(s.hops, h) {
			s.hops = append(s.hops, h)
		}
	}
	slices.SortFunc(s.markers, netip.Addr.Compare)
	number, ok := d.number(s, key)
	if !ok {
		return nil, false
	}
	s.Number, s.Mark = number, d.marks.of(number)
	d.taken[number] = true
	d.sets[key] = &s
	return &s, true
}

// number is that of the kernel's set of the same gateways, if none of them was lost
// since (its place has not been taken by others), or all. Otherwise it is a new one:
// flows that moved away from a gateway stay where they are when it returns.
func (d *decider) number(s Set, key string) (uint16, bool) {
	for _, wholly := range []bool{true, false} {
		for _, k := range d.obs.Sets {
			if d.taken[k.Number] || k.Number > d.marks.highest || !slices.Equal(k.Markers, s.markers) {
				continue
			}
			if wholly && sameHops(k.Hops, s.hops) || !wholly && len(k.Hops) == 0 {
				return k.Number, true
			}
		}
	}
	used := map[uint16]bool{}
	for _, k := range d.obs.Sets {
		used[k.Number] = true
	}
	n := uint16(hash64(key)%uint64(d.marks.highest)) + 1
	for range d.marks.highest {
		if !used[n] && !d.taken[n] {
			return n, true
		}
		n = n%d.marks.highest + 1
	}
	return 0, false
}

func sameHops(a, b []vrf.NextHop) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(h vrf.NextHop) bool { return !slices.Contains(b, h) })
}

// keepOld keeps the sets of the kernel that take no new flows, until they have none.
// Of their gateways, those go that are down; none comes back.
func (d *decider) keepOld() {
	known := map[netip.Addr]*GatewayDecision{}
	for _, g := range d.gateways {
		known[markerOf(g.ID)] = g
	}
	for _, k := range d.obs.Sets {
		if d.taken[k.Number] || d.obs.Empty[k.Number] || k.Number > d.marks.highest {
			continue // the last: of another mask, nothing finds it any more
		}
		s := Set{Number: k.Number, Mark: d.marks.of(k.Number), markers: k.Markers}
		for _, m := range k.Markers {
			g := known[m]
			if g == nil {
				s.Members = append(s.Members, "")
				continue
			}
			s.Members = append(s.Members, g.ID)
			if g.Carrying && slices.Contains(k.Hops, g.hop) {
				s.Live = append(s.Live, g.ID)
				if !slices.Contains(s.hops, g.hop) {
					s.hops = append(s.hops, g.hop)
				}
			}
		}
		slices.Sort(s.Members)
		slices.Sort(s.Live)
		s.Lost = len(s.hops) == 0
		d.taken[k.Number] = true
		d.old = append(d.old, s)
	}
}

func valuesOf(m map[string]*Set) func(func(Set) bool) {
	return func(yield func(Set) bool) {
		for _, s := range m {
			if !yield(*s) {
				return
			}
		}
	}
}
