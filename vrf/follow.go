package vrf

import (
	"maps"
	"slices"
)

// ApplyTo is what a Snapshot shows when s was the state before p and every step of p
// has succeeded, so that a table of 100,000 routes need not be read again after each
// change. It is false when p changes links or addresses, whose effects are not
// followed, or when a step does not fit s. s must be as NewSnapshot makes it and stays
// as it is; what p leaves alone is shared with it.
//
// Routes that others have in tables in which p is the first to put something of ours
// are not in it: the next Snapshot finds them.
func (p Plan) ApplyTo(s Snapshot) (Snapshot, bool) {
	f := follower{s: s}
	for _, op := range p.Ops {
		if !f.step(op.Action) {
			return Snapshot{}, false
		}
	}
	return f.finish(), true
}

// follower collects what a plan changes.
type follower struct {
	s      Snapshot
	hops   map[NextHopID]NextHop // all of them, nil as long as none changes
	groups map[NextHopID]Group
	rules  map[Rule]int // how often each is there, nil as long as none changes
	routes map[routeKey]followedRoute
	dead   map[NextHopID]bool // routes of s to these went with them
}

type followedRoute struct {
	Route
	gone bool
}

// step follows one action; false means that it cannot.
func (f *follower) step(action Action) bool {
	switch a := action.(type) {
	case PutNextHop:
		f.loadHops()
		f.hops[a.NextHop.ID] = a.NextHop
	case PutGroup:
		f.loadHops()
		f.groups[a.Group.ID] = shown(a.Group)
	case DeleteNextHop:
		f.loadHops()
		return f.loseHop(a.ID)
	case PutRoute:
		return f.putRoute(a.Route)
	case DeleteRoute:
		return f.deleteRoute(a.Route)
	case AddRule:
		f.loadRules()
		f.rules[a.Rule]++
	case DeleteRule:
		f.loadRules()
		f.rules[a.Rule]--
		return f.rules[a.Rule] >= 0
	default:
		return false
	}
	return true
}

// shown is a group as the kernel shows it.
func shown(g Group) Group {
	g.Members = slices.Clone(g.Members)
	if g.Resilient.Buckets == 0 {
		g.Resilient = Resilient{}
	}
	g.Resilient.IdleTimer = g.Resilient.IdleTimer.Truncate(clockTick)
	g.Resilient.UnbalancedTimer = g.Resilient.UnbalancedTimer.Truncate(clockTick)
	return g
}

func (f *follower) loadHops() {
	if f.hops != nil {
		return
	}
	f.hops, f.groups, f.dead = map[NextHopID]NextHop{}, map[NextHopID]Group{}, map[NextHopID]bool{}
	for _, n := range f.s.Config.NextHops {
		f.hops[n.ID] = n
	}
	for _, g := range f.s.Config.Groups {
		f.groups[g.ID] = g
	}
}

func (f *follower) loadRules() {
	if f.rules != nil {
		return
	}
	f.rules = make(map[Rule]int, len(f.s.Config.Rules))
	for _, r := range f.s.Config.Rules {
		f.rules[r]++
	}
}

// loseHop follows the kernel in what goes with a next hop or group.
func (f *follower) loseHop(id NextHopID) bool {
	lost := []NextHopID{id}
	delete(f.hops, id)
	delete(f.groups, id)
	for _, g := range f.groups {
		members := slices.DeleteFunc(slices.Clone(g.Members), func(m Member) bool { return m.ID == id })
		if len(members) == len(g.Members) {
			continue
		}
		if g.Members = members; len(members) > 0 {
			f.groups[g.ID] = g
			continue
		}
		delete(f.groups, g.ID)
		lost = append(lost, g.ID)
	}
	for _, id := range lost {
		f.dead[id] = true
	}
	for key, r := range f.routes {
		if slices.Contains(lost, r.NextHop) {
			f.routes[key] = followedRoute{gone: true}
		}
	}
	return !slices.ContainsFunc(f.s.Foreign.Routes, func(r Route) bool { return f.dead[r.NextHop] })
}

func (f *follower) putRoute(r Route) bool {
	r.Prefix = r.Prefix.Masked()
	if r.Metric == 0 && r.Prefix.Addr().Is6() {
		r.Metric = ip6DefaultMetric
	}
	if f.routes == nil {
		f.routes = map[routeKey]followedRoute{}
	}
	f.routes[r.key()] = followedRoute{Route: r}
	_, foreign := slices.BinarySearchFunc(f.s.Foreign.Routes, r, compareRoutes)
	return !foreign
}

// deleteRoute deletes what is there as r says it; one that is gone stays so.
func (f *follower) deleteRoute(r Route) bool {
	old, changed := f.routes[r.key()]
	if !changed {
		i, found := slices.BinarySearchFunc(f.s.Config.Routes, r, compareRoutes)
		if !found || f.dead[f.s.Config.Routes[i].NextHop] {
			return true
		}
		old.Route = f.s.Config.Routes[i]
	}
	if f.routes == nil {
		f.routes = map[routeKey]followedRoute{}
	}
	f.routes[r.key()] = followedRoute{gone: true}
	return old.gone || old.Route == r
}

// finish builds the new snapshot out of what has changed.
func (f *follower) finish() Snapshot {
	s := f.s
	if f.hops != nil {
		s.Config.NextHops = sortedByID(f.hops)
		s.Config.Groups = sortedByID(f.groups)
	}
	if f.rules != nil {
		s.Config.Rules = make([]Rule, 0, len(f.rules))
		for r, n := range f.rules {
			s.Config.Rules = append(s.Config.Rules, slices.Repeat([]Rule{r}, n)...)
		}
		slices.SortFunc(s.Config.Rules, compareRules)
		s.Unresolved = f.unresolved(s)
	}
	s.Config.Routes = f.mergeRoutes()
	if len(s.Foreign.Routes) > 0 && (f.rules != nil || len(f.routes) > 0 || len(f.dead) > 0) {
		tables := s.tables()
		s.Foreign.Routes = slices.DeleteFunc(slices.Clone(s.Foreign.Routes), func(r Route) bool { return !tables[r.Table] })
	}
	return s
}

func sortedByID[T any](byID map[NextHopID]T) []T {
	out := make([]T, 0, len(byID))
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		out = append(out, byID[id])
	}
	return out
}

// unresolved are the gotos of s without a target. The rules of others outside of our
// priorities are unknown: gotos to there stay what they were.
func (f *follower) unresolved(s Snapshot) (out []Rule) {
	places := map[rulePlace]bool{}
	for _, list := range [][]Rule{s.Config.Rules, s.Foreign.Rules} {
		for _, r := range list {
			places[r.place()] = true
		}
	}
	for _, r := range s.Config.Rules {
		if r.kind() != jumps || places[r.target()] {
			continue
		}
		if s.Owner.RulePriorities.Contains(r.Target) || slices.Contains(f.s.Unresolved, r) {
			out = append(out, r)
		}
	}
	return out
}

// mergeRoutes is one walk through the routes, none when they are as before.
func (f *follower) mergeRoutes() []Route {
	base := f.s.Config.Routes
	lost := func(r Route) bool { return f.dead[r.NextHop] }
	if len(f.routes) == 0 && (len(f.dead) == 0 || !slices.ContainsFunc(base, lost)) {
		return base
	}
	var put []Route
	for _, r := range f.routes {
		if !r.gone {
			put = append(put, r.Route)
		}
	}
	slices.SortFunc(put, compareRoutes)
	out := make([]Route, 0, len(base)+len(put))
	for _, r := range base {
		if _, changed := f.routes[r.key()]; changed || lost(r) {
			continue
		}
		for len(put) > 0 && compareRoutes(put[0], r) < 0 {
			out, put = append(out, put[0]), put[1:]
		}
		out = append(out, r)
	}
	return append(out, put...)
}
