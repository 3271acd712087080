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

// putRoutes adds missing routes and replaces changed ones.
func (p *planner) putRoutes() {
	left := make(map[routeKey]Route, len(p.have.Config.Routes))
	had := make(map[routeKey]bool)
	for _, r := range p.have.Config.Routes {
		if r.NextHop == 0 || p.hopExists(r.NextHop) {
			left[r.key()] = r
		} else {
			had[r.key()] = true
		}
	}
	foreign := make(map[routeKey]bool, len(p.have.Foreign.Routes))
	for _, r := range p.have.Foreign.Routes {
		foreign[r.key()] = true
	}
	var missing []Route
	for key, r := range p.routes {
		if left[key] != r {
			missing = append(missing, r)
		}
	}
	slices.SortFunc(missing, compareRoutes)
	needs := map[routePair][]int{}
	for _, r := range missing {
		old, exists := left[r.key()]
		if p.putRoute(r, exists || had[r.key()], foreign[r.key()], needs) {
			if i := len(p.plan.Ops) - 1; exists && old.NextHop != 0 && old.NextHop != r.NextHop {
				p.movedOff[old.NextHop] = append(p.movedOff[old.NextHop], i)
			}
		} else if exists {
			p.stillInUse[old.NextHop] = true
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
		needs = p.after(p.vrfOf(r.Table))
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

// vrfOf is the wanted VRF device with that table, or "".
func (p *planner) vrfOf(table TableID) string {
	v := p.vrfByName[p.networkOf[table]]
	if v.Table != table {
		return ""
	}
	return v.Name
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
	var gone []Route
	for _, r := range p.have.Config.Routes {
		if _, wanted := p.routes[r.key()]; !wanted && (r.NextHop == 0 || p.hopExists(r.NextHop)) {
			gone = append(gone, r)
		}
	}
	slices.SortFunc(gone, compareRoutes)
	for _, r := range gone {
		i := p.step(p.networkOf[r.Table], DeleteRoute{Route: r}, p.ruleDrops[r.Table])
		if r.NextHop != 0 {
			p.movedOff[r.NextHop] = append(p.movedOff[r.NextHop], i)
		}
	}
}

// addRules adds what is missing: what blocks comes first, so that a lookup never
// stands without what catches its traffic when the table has no answer.
func (p *planner) addRules() {
	have := map[Rule]bool{}
	for _, r := range p.have.Config.Rules {
		have[r] = true
	}
	p.reportForeignRules()
	for _, blocking := range []bool{true, false} {
		for _, r := range p.rules {
			if !have[r] && blocking == (r.Action != RuleLookup) {
				p.addRule(r)
			}
		}
	}
}

func (p *planner) addRule(r Rule) {
	network := p.ruleNetwork(r)
	if !p.owner.RulePriorities.Contains(r.Priority) {
		p.fail(network, "rule %q: the priority is not in %d-%d", r, p.owner.RulePriorities.First, p.owner.RulePriorities.Last)
		return
	}
	if r.Action != RuleLookup {
		i := p.step(network, AddRule{Rule: r}, nil)
		p.blockers[network] = append(p.blockers[network], i)
		p.ruleAdds[network] = append(p.ruleAdds[network], i)
		return
	}
	if p.blocked[network] || p.foreignRuleAt(r) {
		return
	}
	needs := slices.Concat(p.after(p.vrfOf(r.Table)), p.fallbacks[r.Table], p.blockers[""])
	if network != "" {
		needs = append(needs, p.blockers[network]...)
	}
	p.ruleAdds[network] = append(p.ruleAdds[network], p.step(network, AddRule{Rule: r}, needs))
}

// reportForeignRules complains about rules of others at the priorities of ours.
// They forbid the lookups there; what blocks is added in any case.
func (p *planner) reportForeignRules() {
	for _, r := range p.rules {
		if p.foreignRuleAt(r) {
			p.fail(p.ruleNetwork(r), "rule %q: priority %d has a rule that is not ours", r, r.Priority)
		}
	}
}

func (p *planner) foreignRuleAt(r Rule) bool {
	return slices.ContainsFunc(p.have.Foreign.Rules, func(f Rule) bool {
		return f.Priority == r.Priority && f.IPv6 == r.IPv6
	})
}

// removeRules deletes what is no longer wanted, and doubles: lookups first, then
// what blocks, the catch-all (the highest priority number) last.
func (p *planner) removeRules() {
	wanted := map[Rule]bool{}
	for _, r := range p.rules {
		wanted[r] = true
	}
	seen := map[Rule]bool{}
	var gone []Rule
	for _, r := range p.have.Config.Rules {
		if !wanted[r] || seen[r] {
			gone = append(gone, r)
		}
		seen[r] = true
	}
	slices.SortFunc(gone, compareRules)
	for _, blocking := range []bool{false, true} {
		for _, r := range gone {
			if blocking == (r.Action != RuleLookup) {
				p.removeRule(r, wanted[r])
			}
		}
	}
}

// removeRule deletes a rule once what replaces it stands. A rule that blocks a
// network goes only when everything its traffic needs has succeeded; as long as
// the network cannot be, it stays.
func (p *planner) removeRule(r Rule, double bool) {
	network := p.ruleNetwork(r)
	needs := slices.Concat(p.ruleAdds[network], p.ruleAdds[""])
	if r.Action == RuleLookup || double {
		i := p.step(network, DeleteRule{Rule: r}, needs)
		p.ruleDrops[r.Table] = append(p.ruleDrops[r.Table], i)
		return
	}
	if p.blocked[network] {
		return
	}
	p.step(network, DeleteRule{Rule: r}, append(needs, p.unblocks[network]...))
}
