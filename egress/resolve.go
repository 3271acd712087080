package egress

import (
	"cmp"
	"slices"

	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// Resolve decides what should exist, from what the user asked and what was
// observed. It is pure and total: whatever the State, the result fails closed.
func Resolve(spec *Spec, st State) Desired { return compile(spec).resolve(st) }

// resolve is Resolve for a Spec that was compiled before.
func (c *compiled) resolve(st State) Desired {
	spec := c.spec
	held := make(map[string]uint16, len(st.Adopted))
	for name, a := range st.Adopted {
		held[name] = a.Index
	}
	names := make([]string, 0, len(spec.Networks))
	for _, n := range spec.Networks {
		names = append(names, n.Name)
	}
	reserved := make([]uint16, 0, len(st.Paths))
	for _, p := range st.Paths {
		reserved = append(reserved, p.Number)
	}
	r := resolver{compiled: c, st: st, own: spec.Settings.Ownership,
		indexes: assignIndexes(names, held, reserved...), objects: newObjects(spec.Settings.Ownership.Owner())}
	r.numbers = newNumbers(r.indexes, st.Paths)
	d := Desired{Networks: make([]NetworkDecision, 0, len(spec.Networks)), sets: map[string]map[uint16]bool{}}
	// By name: the order of the file must not decide who gets which id.
	networks := slices.SortedFunc(slices.Values(spec.Networks), func(a, b Network) int { return cmp.Compare(a.Name, b.Name) })
	for i := range networks {
		d.Networks = append(d.Networks, r.network(&d, &networks[i]))
	}
	d.Kernel.Routes = append(d.Kernel.Routes, r.returns()...)
	d.Kernel.NextHops, d.Kernel.Groups = r.objects.all()
	d.objects = r.objects
	d.Kernel.Rules = append(d.Kernel.Rules, commonRules(spec)...)
	for _, v6 := range []bool{false, true} {
		d.Kernel.Rules = append(d.Kernel.Rules, dispatchRules(r.destinations[family(v6)], v6, r.own.RulePriorities.First)...)
	}
	d.NAT = r.nat(&d)
	d.BGP = r.bgp(&d)
	if c := spec.Clients.BGP; c != nil {
		d.BFD = append(d.BFD, c.BFD...)
	}
	d.Sysctls = sysctls(spec)
	return d
}

// resolver is one run of Resolve.
type resolver struct {
	*compiled
	st      State
	own     Ownership
	indexes map[string]uint16
	numbers *numbers
	objects *objects
	// destinations are the marks and their tables by family.
	destinations [2][]destination
	// exits and spreads go to the packet filter.
	exits   []exitDecision
	spreads []spreadDecision
}

// family indexes arrays of two.
func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// network decides on one network and adds its kernel objects and probes to d.
func (r *resolver) network(d *Desired, n *Network) NetworkDecision {
	index := r.indexes[n.Name]
	dec := NetworkDecision{Name: n.Name, Index: index, Table: n.Table,
		Zone: r.own.ZoneBase + index, Mark: hopSetMark(index), Drain: r.st.Drains[n.Name]}
	if dec.Table == 0 {
		dec.Table = r.tableID(index)
	}
	t := newTable(r, n, &dec)
	t.namesHops = slices.ContainsFunc(r.sets[n.Name], func(s *hopSet) bool { return s.named != nil })
	t.routes = append(terminals(dec.Table), poolRoutes(dec.Table, r.pools[n.Name])...)
	t.named()
	for _, s := range n.StaticRoutes {
		t.static(s)
	}
	t.learned()
	t.routes = append(t.routes, t.ownRoutes()...)
	sets := t.paths(r.sets[n.Name])
	vrfDevice := vrf.VRF{Name: n.Name, Index: index, Table: dec.Table, Ports: n.Ports}
	for _, p := range t.all {
		if p.number != 0 {
			vrfDevice.Tables = append(vrfDevice.Tables, r.tableID(p.number))
			t.routes = append(t.routes, t.pathRoutes(p)...)
		}
	}
	d.Kernel.VRFs = append(d.Kernel.VRFs, vrfDevice)
	d.Kernel.Routes = append(d.Kernel.Routes, t.routes...)
	dec.NextHops = t.hops()
	dec.Paths = t.pathDecisions()

	dec.Up, dec.Reason = r.judge(n, t)
	d.Kernel.Rules = append(d.Kernel.Rules, t.blockingRules()...)
	r.lookups(t)
	r.wayOut(t, sets)
	for _, v6 := range []bool{false, true} {
		d.sets[(&hopSet{network: n.Name, v6: v6}).key()] = map[uint16]bool{index: true}
	}
	for key, s := range sets {
		d.sets[key] = map[uint16]bool{}
		if s.network {
			d.sets[key][index] = true
		}
		for _, p := range s.buckets {
			d.sets[key][p.number] = true
		}
	}
	d.Probes = append(d.Probes, n.Probes...)
	d.Probes = append(d.Probes, t.nextHopProbes()...)
	d.BFD = append(d.BFD, t.nextHopBFD()...)
	d.BFD = append(d.BFD, n.peerBFD()...)
	return dec
}

// lookups adds the network's and its paths' marks to the dispatch.
func (r *resolver) lookups(t *table) {
	for _, v6 := range []bool{false, true} {
		r.destinations[family(v6)] = append(r.destinations[family(v6)], destination{t.dec.Index, t.dec.Table})
	}
	for _, p := range t.all {
		if p.number != 0 {
			r.destinations[family(p.v6)] = append(r.destinations[family(p.v6)], destination{p.number, r.tableID(p.number)})
		}
	}
}

// judge decides whether a network may carry policy traffic. Unknown verdicts
// change nothing: an adopted network goes on as the kernel has it, a new one
// is down until proven.
func (r *resolver) judge(n *Network, t *table) (up bool, reason string) {
	if !t.usable() {
		return false, t.unusable()
	}
	switch verdict, who := r.verdict(n); verdict {
	case probes.Down:
		return false, "probe " + who + " is down"
	case probes.Unknown:
		if r.st.Adopted[n.Name].Forwarding {
			return true, "probe " + who + " has no verdict yet; the kernel was forwarding"
		}
		return false, "probe " + who + " has no verdict yet"
	}
	return true, ""
}

// verdict combines a network's probes: all must be up; the first that is not
// is named.
func (r *resolver) verdict(n *Network) (probes.Verdict, string) {
	unknown := ""
	for _, p := range n.Probes {
		switch r.st.Verdicts[p.Name] {
		case probes.Down:
			return probes.Down, p.Name
		case probes.Unknown:
			unknown = cmp.Or(unknown, p.Name)
		}
	}
	if unknown != "" {
		return probes.Unknown, unknown
	}
	return probes.Up, ""
}

// tableMain is RT_TABLE_MAIN.
const tableMain vrf.TableID = 254

// commonRules are there for all networks: replies go to the client side, and
// policy traffic that no network's rule took goes nowhere.
func commonRules(spec *Spec) []vrf.Rule {
	first := spec.Settings.Ownership.RulePriorities.First
	back := spec.Clients.ReturnTable
	if back == 0 {
		back = tableMain
	}
	var out []vrf.Rule
	for _, v6 := range []bool{false, true} {
		out = append(out,
			vrf.Rule{Priority: first + prioReturn, IPv6: v6, Mark: markReturn, Mask: markReturn, Action: vrf.RuleLookup, Table: back},
			vrf.Rule{Priority: first + prioCatch, IPv6: v6, Mark: markEgress, Mask: markEgress, Action: vrf.RuleUnreachable})
	}
	return out
}

// blockingRules hold the policy traffic of a network that is down, and that of
// paths without a next hop whose clients are to be told. The lookups stay behind
// them, so that going down and coming up are few messages.
func (t *table) blockingRules() []vrf.Rule {
	var out []vrf.Rule
	action := vrf.RuleBlackhole
	if t.n.OnNoNextHop == NoNextHopReject {
		action = vrf.RuleProhibit
	}
	block := func(number uint16, v6 bool) {
		out = append(out, vrf.Rule{Priority: t.r.own.RulePriorities.First + prioBlocked, IPv6: v6,
			Mark: hopSetMark(number), Mask: maskHopSet, Action: action})
	}
	if !t.dec.Up {
		block(t.dec.Index, false)
		block(t.dec.Index, true)
	}
	for _, p := range t.all {
		if p.number != 0 && (!t.dec.Up || !p.usable && action == vrf.RuleProhibit) {
			block(p.number, p.v6)
		}
	}
	return out
}

func poolsByNetwork(pools []Pool) map[string][]Pool {
	out := map[string][]Pool{}
	for _, p := range pools {
		out[p.Network] = append(out[p.Network], p)
	}
	return out
}
