package vrf

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Diff plans the steps from have to want. It is pure and deterministic: equal
// content gives an equal plan, whatever its order. Steps come in the order
//
//	evict what of ours is in the way; VRFs, VLANs, tunnels, enslave, up, addresses;
//	next hops, groups, routes, rules that block, lookups, gotos;
//	then removals: gotos, lookups, rules that block, routes, groups, next hops,
//	addresses, release ports, tunnels, VLANs, VRFs
//
// so every step refers only to what exists by then, and nothing is taken away
// before its replacement stands. The planner keeps a model of the links, and
// knows what the kernel does by itself: enslaving flushes IPv6 addresses (those
// of others are put back) and next hops, losing a next hop shrinks groups, and
// losing a group loses routes.
//
// Foreign objects never appear in a plan, except that their IPv6 addresses are
// put back and that the parent of a wanted VLAN is brought up.
func Diff(have Snapshot, want Config) Plan {
	p := newPlanner(have, want)
	p.checkVRFs()
	p.evict()
	p.addVRFs()
	p.addVLANs()
	p.addTunnels()
	p.enslavePorts()
	p.bringUp()
	p.addAddresses()
	p.putNextHops()
	p.putGroups()
	p.putRoutes()
	p.addRules()

	p.removeRules()
	p.removeRoutes()
	p.removeGroups()
	p.removeNextHops()
	p.removeAddresses()
	p.releasePorts()
	p.removeTunnels()
	p.removeVLANs()
	p.removeVRFs()
	return p.finish()
}

// Teardown plans the removal of everything that is ours.
func Teardown(have Snapshot) Plan { return Diff(have, Config{}) }

// planner holds what Diff has found out and planned so far.
type planner struct {
	owner Owner
	have  Snapshot
	plan  Plan

	// The want, without duplicates. vrfs and ports are sorted by name.
	vrfs    []VRF
	ports   []wantPort
	tunnels []TunnelDevice
	loops   []Loop
	hops    map[NextHopID]NextHop
	groups  map[NextHopID]Group
	routes  []Route // sorted by key
	rules   []Rule

	vrfByName  map[string]VRF
	portByName map[string]wantPort
	networkOf  map[TableID]string // wanted VRFs first, else ours that exist, else by their next hops
	vrfOf      map[TableID]string // the wanted VRF with that table, see VRF.Tables
	markOf     map[[2]Mark]string // network of the lookup rule with this mark and mask
	foreignHop map[NextHopID]bool

	// What cannot be had.
	blocked     map[string]bool // networks whose VRF cannot be
	blockedPort map[string]bool

	links linkModel

	// Steps that later ones need. See the methods that fill them.
	last       map[string]int   // the latest step on a device
	cleared    map[string]int   // evictions, by what they made room for
	unblocks   map[string][]int // steps of a network that must succeed before its traffic is let in
	addresses  map[string][]int // addresses put on a device
	hopStep    map[NextHopID]int
	groupStep  map[NextHopID]int
	fallbacks  map[TableID][]int // blocking default routes put into a table
	blockers   map[string][]int  // blocking rules added for a network
	ruleAdds   map[string][]int
	ruleDrops  map[TableID][]int // lookups of a table removed
	jumps      jumpSteps
	lookupsOut map[string][]int    // lookups of a network removed
	movedOff   map[NextHopID][]int // steps that take a group or next hop out of use
	stillInUse map[NextHopID]bool  // by something that had to stay as it was

	lastHop    NextHopID // whether it exists: routes come in runs of one
	lastLeft   bool
	hopsLeft   map[NextHopID]NextHop // next hops of ours that survive the link steps
	groupsLeft map[NextHopID]Group
	groupNet   map[NextHopID]string // the network of a group
	routesGone []Route              // ours, not wanted, and not lost with their next hop
}

// wantPort is a port and the network that wants it.
type wantPort struct {
	Port
	network string
}

// routeKey is what the kernel tells routes apart by.
type routeKey struct {
	table  TableID
	prefix netip.Prefix
	metric uint32
}

func (r Route) key() routeKey { return routeKey{r.Table, r.Prefix, r.Metric} }

func newPlanner(have Snapshot, want Config) *planner {
	p := &planner{
		owner: have.Owner, have: have,
		vrfByName: map[string]VRF{}, portByName: map[string]wantPort{},
		networkOf: map[TableID]string{}, vrfOf: map[TableID]string{}, markOf: map[[2]Mark]string{}, foreignHop: map[NextHopID]bool{},
		blocked: map[string]bool{}, blockedPort: map[string]bool{},
		links: newLinkModel(have.Links),
		last:  map[string]int{}, cleared: map[string]int{}, unblocks: map[string][]int{},
		addresses: map[string][]int{}, hopStep: map[NextHopID]int{}, groupStep: map[NextHopID]int{},
		fallbacks: map[TableID][]int{}, blockers: map[string][]int{}, ruleAdds: map[string][]int{},
		ruleDrops: map[TableID][]int{}, lookupsOut: map[string][]int{}, movedOff: map[NextHopID][]int{}, stillInUse: map[NextHopID]bool{},
	}
	for _, id := range have.Foreign.NextHops {
		p.foreignHop[id] = true
	}
	p.takeVRFs(want.VRFs)
	p.takeTunnels(want)
	p.takeHops(want)
	p.takeRoutes(want.Routes)
	p.adoptTables()
	p.rules = slices.Clone(want.Rules)
	slices.SortFunc(p.rules, compareRules)
	p.rules = slices.Compact(p.rules)
	for _, r := range slices.Concat(p.rules, have.Config.Rules) {
		network, known := p.networkOf[r.Table]
		if _, taken := p.markOf[[2]Mark{r.Mark, r.Mask}]; known && !taken && r.Action == RuleLookup {
			p.markOf[[2]Mark{r.Mark, r.Mask}] = network
		}
	}
	return p
}

// takeVRFs copies the wanted VRFs and ports. Of two that exclude each other the
// first in sorted order is taken.
func (p *planner) takeVRFs(vrfs []VRF) {
	vrfs = slices.Clone(vrfs)
	slices.SortFunc(vrfs, func(a, b VRF) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Index, b.Index))
	})
	for _, v := range vrfs {
		if _, double := p.vrfByName[v.Name]; double {
			p.fail(v.Name, "VRF %q is wanted twice", v.Name)
			continue
		}
		if other, double := p.networkOf[v.Table]; double {
			p.fail(v.Name, "table %d is also network %q's", v.Table, other)
			p.blocked[v.Name] = true
		} else {
			p.networkOf[v.Table] = v.Name
		}
		p.vrfByName[v.Name] = v
		p.vrfs = append(p.vrfs, v)
	}
	for _, v := range p.vrfs {
		for _, table := range slices.Sorted(slices.Values(v.Tables)) {
			if other, double := p.networkOf[table]; double && other != v.Name {
				p.fail(v.Name, "table %d is also network %q's", table, other)
				p.blocked[v.Name] = true
				continue
			}
			p.networkOf[table] = v.Name
		}
		p.takePorts(v)
	}
	maps.Copy(p.vrfOf, p.networkOf)
	slices.SortFunc(p.ports, func(a, b wantPort) int { return cmp.Compare(a.Name, b.Name) })
	for _, v := range p.have.Config.VRFs {
		if _, known := p.networkOf[v.Table]; !known {
			p.networkOf[v.Table] = v.Name
		}
	}
}

// adoptTables finds out whose those tables were that are no VRF's any more: that of
// the devices which the next hops of their routes are on.
func (p *planner) adoptTables() {
	adopted := map[TableID]string{}
	var hops map[NextHopID]string
	last := routePair{}
	for _, r := range p.have.Config.Routes {
		pair := routePair{r.Table, r.NextHop}
		if pair == last {
			continue // as most routes of a table
		}
		last = pair
		if _, known := p.networkOf[r.Table]; known || r.NextHop == 0 {
			continue
		}
		if hops == nil {
			hops = p.networksOfHops()
		}
		if old, ok := adopted[r.Table]; hops[r.NextHop] != "" && (!ok || hops[r.NextHop] < old) {
			adopted[r.Table] = hops[r.NextHop]
		}
	}
	maps.Copy(p.networkOf, adopted)
}

// networksOfHops has the network of every next hop and group that exists.
func (p *planner) networksOfHops() map[NextHopID]string {
	out := map[NextHopID]string{}
	for _, n := range p.have.Config.NextHops {
		out[n.ID] = p.hopNetwork(n)
	}
	for _, g := range p.have.Config.Groups {
		for _, m := range g.Members {
			if network := out[m.ID]; network != "" && (out[g.ID] == "" || network < out[g.ID]) {
				out[g.ID] = network
			}
		}
	}
	return out
}

func (p *planner) takePorts(v VRF) {
	ports := slices.Clone(v.Ports)
	slices.SortStableFunc(ports, func(a, b Port) int { return cmp.Compare(a.Name, b.Name) })
	for _, port := range ports {
		if other, double := p.portByName[port.Name]; double {
			p.fail(v.Name, "port %q is also network %q's", port.Name, other.network)
			p.blockedPort[port.Name] = true // nobody gets it
			continue
		}
		if _, isVRF := p.vrfByName[port.Name]; isVRF || port.Name == "lo" {
			p.fail(v.Name, "port %q cannot be enslaved", port.Name)
			continue
		}
		port.Addresses = slices.Clone(port.Addresses)
		slices.SortFunc(port.Addresses, netip.Prefix.Compare)
		port.Addresses = slices.Compact(port.Addresses)
		w := wantPort{Port: port, network: v.Name}
		p.portByName[port.Name] = w
		p.ports = append(p.ports, w)
	}
}

// takeHops copies the wanted next hops and groups.
func (p *planner) takeHops(want Config) {
	p.hops = make(map[NextHopID]NextHop, len(want.NextHops))
	for _, n := range want.NextHops {
		if old, double := p.hops[n.ID]; double && old != n {
			p.fail(p.hopNetwork(n), "next hop %s is wanted with two contents", hopID(n.ID))
			if n.String() > old.String() { // any choice will do that ignores the order
				continue
			}
		}
		p.hops[n.ID] = n
	}
	p.groups = make(map[NextHopID]Group, len(want.Groups))
	for _, g := range want.Groups {
		if g.Resilient.Buckets == 0 {
			g.Resilient = Resilient{}
		}
		if old, double := p.groups[g.ID]; double && !(slices.Equal(old.Members, g.Members) && old.Resilient == g.Resilient) {
			p.fail("", "group %s is wanted with two contents", hopID(g.ID))
			if g.String() > old.String() {
				continue
			}
		}
		p.groups[g.ID] = g
	}
}

// finish sorts the errors.
func (p *planner) finish() Plan {
	slices.SortFunc(p.plan.Errors, func(a, b NetworkError) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), strings.Compare(a.Err.Error(), b.Err.Error()))
	})
	p.plan.Errors = slices.CompactFunc(p.plan.Errors, func(a, b NetworkError) bool {
		return a.Error() == b.Error()
	})
	return p.plan
}

// fail notes that something of network cannot be had.
func (p *planner) fail(network, format string, args ...any) {
	p.plan.Errors = append(p.plan.Errors, NetworkError{Network: network, Err: fmt.Errorf(format, args...)})
}

// step appends an operation and returns its index. It keeps needs when they are
// sorted already, so that many steps can share one slice.
func (p *planner) step(network string, a Action, needs []int) int {
	if !slices.IsSorted(needs) {
		needs = slices.Clone(needs)
		slices.Sort(needs)
		needs = slices.Compact(needs)
	}
	p.plan.Ops = append(p.plan.Ops, Op{Action: a, Network: network, Needs: needs})
	return len(p.plan.Ops) - 1
}

// deviceStep appends an operation that changes a device: it needs the step
// before it on the same device, and what it brings into play (others).
func (p *planner) deviceStep(network, device string, a Action, others ...string) int {
	var needs []int
	for _, name := range append(others, device) {
		if i, ok := p.last[name]; ok && !slices.Contains(needs, i) {
			needs = append(needs, i)
		}
	}
	i := p.step(network, a, needs)
	p.last[device] = i
	p.unblocks[network] = append(p.unblocks[network], i)
	return i
}

// network of a port or VRF, wanted or existing; "" when it has none.
func (p *planner) deviceNetwork(device string) string {
	if w, ok := p.portByName[device]; ok {
		return w.network
	}
	l, ok := p.links[device]
	switch {
	case !ok:
		return ""
	case p.owner.ownsVRF(l.Link):
		return device
	}
	if master, ok := p.links[l.Master]; ok && p.owner.ownsVRF(master.Link) {
		return l.Master
	}
	return ""
}

func (p *planner) hopNetwork(n NextHop) string { return p.deviceNetwork(n.Device) }

// ruleNetwork is the network that a rule concerns. A goto is for all of them.
func (p *planner) ruleNetwork(r Rule) string {
	switch r.Action {
	case RuleLookup:
		return p.networkOf[r.Table]
	case RuleGoto:
		return ""
	}
	return p.markOf[[2]Mark{r.Mark, r.Mask}]
}
