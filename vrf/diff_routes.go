package vrf

import (
	"fmt"
	"slices"
)

// routePair identifies what the routes of one table to one next hop need.
type routePair struct {
	table   TableID
	nextHop NextHopID
}

// routeChange is a wanted route that is not there as it should be.
type routeChange struct {
	want, old Route
	left      bool // old is in its place
	had       bool // there was one of ours, maybe it has gone by now
}

// compareRoutes walks through the routes that are and those that should be, both
// in the order of their keys, and finds what is to be put and what to be deleted.
func (p *planner) compareRoutes() (changes []routeChange, gone []Route) {
	have := p.have.Config.Routes
	if !slices.IsSortedFunc(have, compareRoutes) {
		have = slices.SortedFunc(slices.Values(have), compareRoutes)
	}
	i := 0
	for n, old := range have {
		if n > 0 && have[n-1].key() == old.key() {
			continue
		}
		for i < len(p.routes) && compareRoutes(p.routes[i], old) < 0 {
			changes = append(changes, routeChange{want: p.routes[i]})
			i++
		}
		left := old.NextHop == 0 || p.hopExists(old.NextHop)
		wanted := i < len(p.routes) && p.routes[i].key() == old.key()
		switch {
		case wanted && (!left || p.routes[i] != old):
			changes = append(changes, routeChange{want: p.routes[i], old: old, left: left, had: true})
		case !wanted && left:
			gone = append(gone, old)
		}
		if wanted {
			i++
		}
	}
	for ; i < len(p.routes); i++ {
		changes = append(changes, routeChange{want: p.routes[i]})
	}
	return changes, gone
}

// putRoutes adds missing routes and replaces changed ones.
func (p *planner) putRoutes() {
	foreign := make(map[routeKey]bool, len(p.have.Foreign.Routes))
	for _, r := range p.have.Foreign.Routes {
		foreign[r.key()] = true
	}
	var changes []routeChange
	changes, p.routesGone = p.compareRoutes()
	needs := map[routePair][]int{}
	for _, c := range changes {
		hop := c.old.NextHop
		switch planned := p.putRoute(c.want, c.had, foreign[c.want.key()], needs); {
		case !c.left || hop == 0:
		case !planned:
			p.stillInUse[hop] = true
		case hop != c.want.NextHop:
			p.movedOff[hop] = append(p.movedOff[hop], len(p.plan.Ops)-1)
		}
	}
}

// hopExists says that a next hop or group of ours is left; foreign ids count too.
func (p *planner) hopExists(id NextHopID) bool {
	if !p.owner.NextHopIDs.Contains(uint32(id)) {
		return true
	}
	if _, ok := p.groupsLeft[id]; ok {
		return true
	}
	_, ok := p.hopsLeft[id]
	return ok
}

// putRoute plans one route, unless something forbids it.
func (p *planner) putRoute(r Route, replace, foreign bool, shared map[routePair][]int) bool {
	network := p.networkOf[r.Table]
	if p.blocked[network] {
		return false
	}
	hop, ready, err := p.routeHop(r)
	if err == nil && foreign {
		err = fmt.Errorf("a route that is not ours has its place")
	}
	if err != nil {
		p.fail(network, "route %q: %w", r.String(), err)
	}
	if err != nil || !ready {
		return false
	}
	pair := routePair{r.Table, r.NextHop}
	needs, ok := shared[pair]
	if !ok {
		needs = p.after(p.vrfOf[r.Table])
		if hop >= 0 && !slices.Contains(needs, hop) {
			needs = append(needs, hop)
		}
		shared[pair] = needs
	}
	i := p.step(network, PutRoute{Route: r, Replace: replace}, needs)
	if r.Prefix.Bits() == 0 && r.Type != Unicast {
		p.fallbacks[r.Table] = append(p.fallbacks[r.Table], i)
	}
	return true
}

// routeHop finds the step that makes the route's next hop, -1 when there is none
// to wait for.
func (p *planner) routeHop(r Route) (step int, ready bool, err error) {
	switch {
	case r.Type != Unicast && r.NextHop != 0:
		return 0, false, fmt.Errorf("only a unicast route has a next hop")
	case r.Type != Unicast:
		return -1, true, nil
	case r.NextHop == 0:
		return 0, false, fmt.Errorf("no next hop")
	}
	if _, ok := p.groups[r.NextHop]; ok {
		step, ready = p.groupStep[r.NextHop]
		return step, ready, nil
	}
	if _, ok := p.hops[r.NextHop]; ok {
		step, ready = p.hopStep[r.NextHop]
		return step, ready, nil
	}
	return 0, false, fmt.Errorf("its next hop is not wanted itself")
}

// removeRoutes deletes what is no longer wanted and did not go by itself.
func (p *planner) removeRoutes() {
	for _, r := range p.routesGone {
		i := p.step(p.networkOf[r.Table], DeleteRoute{Route: r}, p.ruleDrops[r.Table])
		if r.NextHop != 0 {
			p.movedOff[r.NextHop] = append(p.movedOff[r.NextHop], i)
		}
	}
}
