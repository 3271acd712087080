package cluster

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"
)

// NotReadyGrace is how long a node may be not ready before its gateways are
// replaced: clients leave one that fails by themselves, at once, so that there is
// no hurry, and a kubelet that restarts is no reason to move.
const NotReadyGrace = time.Minute

// Placement is where a gateway is to be.
type Placement struct {
	// Gateway is namespace/name.
	Gateway   string
	Instances []Instance
}

// Place decides on which nodes each gateway is, in the order of the Snapshot:
//
//   - A node can carry a gateway if its labels match, it is ready, not cordoned,
//     has an address, and the gateway's network has a configuration for it.
//   - An instance on such a node stays where it is.
//   - One on another node is replaced, and then drains; so do those of a deleted
//     gateway, and those beyond the replicas. They go GracePeriod after Draining.
//   - New instances come first: while one was just added, or none of the others is
//     left, nothing begins to drain that the node itself does not force to.
//   - A node that is not ready may still be forwarding: its instance is replaced
//     after NotReadyGrace only, and if a node can take its place; and it does not go
//     (so that its addresses stay its own) before the node is ready, or deleted,
//     which ends it at once.
//   - New ones go to the zones with the fewest of this gateway, there to the nodes
//     with the fewest gateways, and among these to what a hash of both says; but not
//     to where the same gateway was a moment ago, before its blocks there are free.
//
// A gateway that is wrong in itself keeps what it has, and gets nothing new; in a
// Snapshot without any node, which no cluster is, all do.
// Whoever calls writes what differs from Instances into the status, and calls
// again, then and at the time that NextPlace says: what Place decides of its own
// result is the same, or the next step.
func Place(s Snapshot, now time.Time) ([]Placement, []Problem) {
	l := newLookup(&s)
	checked := newChecks(&s, l)
	p := &placer{lookup: l, checks: checked, now: now, load: map[string]int{}, held: map[holding]bool{}}
	for i := range s.Nodes {
		p.nodes = append(p.nodes, &s.Nodes[i])
	}
	for i := range s.Gateways {
		for _, at := range s.Gateways[i].Instances {
			p.load[at.Node]++
		}
	}
	result := make([]Placement, 0, len(s.Gateways))
	for i := range s.Pools {
		for _, a := range s.Pools[i].Allocations {
			p.held[holding{a.Gateway, a.UID, a.Node}] = true
		}
	}
	for i := range s.Gateways {
		g := &s.Gateways[i]
		placement := Placement{g.Key(), g.Instances}
		if len(s.Nodes) > 0 {
			placement.Instances = p.place(g, checked.gateway(g))
		}
		result = append(result, placement)
	}
	return result, sortProblems(p.problems)
}

type placer struct {
	lookup   *lookup
	checks   *checks
	now      time.Time
	nodes    []*Node
	load     map[string]int // instances by node
	held     map[holding]bool
	problems []Problem
}

// holding says that a gateway has blocks for a node.
type holding struct{ gateway, uid, node string }

// NextPlace is when Place may decide otherwise although nothing has changed but
// the time; zero if never.
func NextPlace(s Snapshot, now time.Time) time.Time {
	var next time.Time
	at := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for i := range s.Gateways {
		for _, instance := range s.Gateways[i].Instances {
			if !instance.Draining.IsZero() {
				at(instance.Draining.Add(s.Gateways[i].GracePeriod))
			}
		}
	}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; !n.Ready && !n.NotReadySince.IsZero() {
			at(n.NotReadySince.Add(NotReadyGrace))
		}
	}
	return next
}

// wavers says whether a node became not ready just now.
func (p *placer) wavers(n *Node) bool {
	return !n.Ready && !n.NotReadySince.IsZero() && p.now.Before(n.NotReadySince.Add(NotReadyGrace))
}

// usable says whether a node can carry g. One that wavers can carry what it has.
func (p *placer) usable(g *Gateway, n *Node) bool {
	if n == nil || !n.Ready && !p.wavers(n) || n.Unschedulable || len(n.Ends()) == 0 {
		return false
	}
	selector, err := ParseSelector(g.NodeSelector)
	network := p.lookup.networks[g.Network]
	return err == nil && selector.Matches(n.Labels) && network != nil && network.host(n) >= 0
}

// place decides for one gateway. sound is false if it must get nothing new.
func (p *placer) place(g *Gateway, sound bool) []Instance {
	var settled, doomed []Instance // on usable nodes, and on others
	seen := map[string]bool{}
	for _, at := range g.Instances {
		node := p.lookup.nodes[at.Node]
		switch {
		case node == nil || seen[at.Node]:
		case p.usable(g, node) || !sound:
			settled = append(settled, at)
		default:
			doomed = append(doomed, at)
		}
		seen[at.Node] = true
	}
	if !g.Deleted.IsZero() {
		return byNode(p.left(g, drain(slices.Concat(settled, doomed), g.Deleted)))
	}
	if !sound {
		return byNode(settled)
	}
	settled, surplus := p.wanted(g, settled)
	added, soon := p.add(g, settled, seen)
	active := slices.Concat(settled, added)
	if !soon {
		p.short(g, len(active))
	}
	if len(added) == 0 && !soon {
		surplus = drain(surplus, p.now)
		for i := range doomed {
			node := p.lookup.nodes[doomed[i].Node]
			forced := node.Ready || node.Unschedulable // else it may well come back
			if forced || g.Replicas > 0 && len(active) >= g.Replicas {
				doomed[i] = drain(doomed[i:i+1], p.now)[0]
			}
		}
	}
	return byNode(slices.Concat(active, p.left(g, doomed), p.left(g, surplus)))
}

// left drops instances that have drained long enough. A node that is not ready
// cannot be asked whether it has stopped.
func (p *placer) left(g *Gateway, instances []Instance) []Instance {
	return slices.DeleteFunc(slices.Clone(instances), func(at Instance) bool {
		return !at.Draining.IsZero() && !p.now.Before(at.Draining.Add(g.GracePeriod)) && p.lookup.nodes[at.Node].Ready
	})
}

// wanted divides instances on usable nodes into those that stay, with no end to
// their time, and those beyond the replicas.
func (p *placer) wanted(g *Gateway, settled []Instance) (stay, surplus []Instance) {
	if g.Replicas == 0 || len(settled) <= g.Replicas {
		return drain(settled, time.Time{}), nil
	}
	zones := map[string]int{}
	for _, at := range settled {
		if at.Draining.IsZero() {
			zones[p.zone(at.Node)]++
		}
	}
	// One after the other: first those that drain already, then from the fullest
	// zones, there from the fullest nodes.
	stay = slices.Clone(settled)
	for len(stay) > g.Replicas {
		worst := 0
		for i := range stay {
			if p.leavesFirst(g, stay[i], stay[worst], zones) {
				worst = i
			}
		}
		if stay[worst].Draining.IsZero() {
			zones[p.zone(stay[worst].Node)]--
		}
		surplus = append(surplus, stay[worst])
		stay = slices.Delete(stay, worst, worst+1)
	}
	return drain(stay, time.Time{}), surplus
}

// leavesFirst says whether a is to go rather than b.
func (p *placer) leavesFirst(g *Gateway, a, b Instance, zones map[string]int) bool {
	drains := func(i Instance) int {
		if i.Draining.IsZero() {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(drains(a), drains(b)), cmp.Compare(zones[p.zone(a.Node)], zones[p.zone(b.Node)]),
		cmp.Compare(p.load[a.Node], p.load[b.Node]), cmp.Compare(rank(g, b.Node), rank(g, a.Node)), cmp.Compare(a.Node, b.Node)) > 0
}

// add chooses nodes for what is missing. Nodes in seen are taken, and those that
// the configuration of the network is wrong for are of no use. There may be more
// soon, where the gateway's old blocks are not free yet.
func (p *placer) add(g *Gateway, settled []Instance, seen map[string]bool) (added []Instance, soon bool) {
	zones := map[string]int{}
	for _, at := range settled {
		zones[p.zone(at.Node)]++
	}
	var free []*Node
	held := 0
	for _, n := range p.nodes {
		if seen[n.Name] || !n.Ready || !p.usable(g, n) || !p.checks.host(p.lookup.networks[g.Network], n) {
			continue
		}
		if p.held[holding{g.Key(), g.UID, n.Name}] {
			held++
			continue
		}
		free = append(free, n)
	}
	missing := func() bool { return g.Replicas == 0 || len(settled)+len(added) < g.Replicas }
	for len(free) > 0 && missing() {
		best := 0
		for i, n := range free {
			b := free[best]
			if cmp.Or(cmp.Compare(zones[p.zone(n.Name)], zones[p.zone(b.Name)]), cmp.Compare(p.load[n.Name], p.load[b.Name]),
				cmp.Compare(rank(g, b.Name), rank(g, n.Name)), cmp.Compare(n.Name, b.Name)) < 0 {
				best = i
			}
		}
		name := free[best].Name
		free = slices.Delete(free, best, best+1)
		zones[p.zone(name)]++
		p.load[name]++
		added = append(added, Instance{Node: name})
	}
	return added, held > 0 && missing()
}

// short reports a gateway with fewer instances than it should have.
func (p *placer) short(g *Gateway, active int) {
	r := &reporter{kind: KindGateway, namespace: g.Namespace, name: g.Name}
	switch {
	case active == 0:
		r.add(ReasonUnplaced, "spec.nodeSelector", "no node can carry it: none is ready and schedulable, matches, and has a configuration of network %s", quote(g.Network))
	case active < g.Replicas:
		r.add(ReasonUnplaced, "spec.replicas", "%d are wanted, but only %d nodes are ready and schedulable, match, and have a configuration of network %s", g.Replicas, active, quote(g.Network))
	}
	p.problems = append(p.problems, r.problems...)
}

func (p *placer) zone(node string) string {
	if n := p.lookup.nodes[node]; n != nil {
		return n.Labels[LabelZone]
	}
	return ""
}

// rank orders nodes for a gateway, differently for each.
func rank(g *Gateway, node string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(g.Key() + "\x00" + node))
	return h.Sum64()
}

// drain sets the time of those that have none; the zero time takes it away. The
// instances given stay as they are.
func drain(instances []Instance, at time.Time) []Instance {
	instances = slices.Clone(instances)
	for i := range instances {
		if at.IsZero() || instances[i].Draining.IsZero() {
			instances[i].Draining = at
		}
	}
	return instances
}

func byNode(instances []Instance) []Instance {
	slices.SortFunc(instances, func(a, b Instance) int { return cmp.Compare(a.Node, b.Node) })
	return instances
}
