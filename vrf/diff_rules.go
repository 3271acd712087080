package vrf

import (
	"slices"
)

// addRules adds what is missing: what blocks comes first, so that a lookup never
// stands without what catches its traffic when the table has no answer; gotos come
// last, from the highest priority number down, so that their targets stand.
func (p *planner) addRules() {
	p.reportForeignRules()
	p.prepareRules()
	for _, kind := range []ruleKind{blocks, looksUp} {
		for _, r := range p.rules {
			if r.kind() == kind && !p.jumps.stays[r] {
				p.addRule(r)
			}
		}
	}
	for _, r := range slices.Backward(p.rules) {
		if r.kind() == jumps && !p.jumps.stays[r] {
			p.addGoto(r)
		}
	}
}

func (p *planner) addRule(r Rule) {
	network := p.ruleNetwork(r)
	if !p.addable(r) {
		return
	}
	if r.kind() == blocks {
		i := p.step(network, AddRule{Rule: r}, nil)
		p.blockers[network] = append(p.blockers[network], i)
		p.noteRule(r, i)
		return
	}
	needs := slices.Concat(p.after(p.vrfOf[r.Table]), p.fallbacks[r.Table], p.blockers[""])
	if network != "" {
		needs = append(needs, p.blockers[network]...)
	}
	p.noteRule(r, p.step(network, AddRule{Rule: r}, needs))
}

func (p *planner) noteRule(r Rule, step int) {
	network := p.ruleNetwork(r)
	p.ruleAdds[network] = append(p.ruleAdds[network], step)
	p.jumps.added = append(p.jumps.added, ruleStep{r, step})
}

// addable says that nothing forbids a rule. What forbids it has been told.
func (p *planner) addable(r Rule) bool {
	switch {
	case !p.owner.RulePriorities.Contains(r.Priority):
		return false
	case r.kind() == blocks:
		return true
	}
	return !p.blocked[p.ruleNetwork(r)] && !p.foreignRuleAt(r)
}

// reportForeignRules complains about rules of others at the priorities of ours, and
// about priorities that are not ours. They forbid the lookups and gotos there; what
// blocks is added in any case.
func (p *planner) reportForeignRules() {
	for _, r := range p.rules {
		if !p.owner.RulePriorities.Contains(r.Priority) {
			p.fail(p.ruleNetwork(r), "rule %q: the priority is not in %d-%d", r, p.owner.RulePriorities.First, p.owner.RulePriorities.Last)
		}
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

// removeRules deletes what is no longer wanted, and doubles: gotos first, then
// lookups, then what blocks, the catch-all (the highest priority number) last.
func (p *planner) removeRules() {
	gone := p.rulesGone()
	for _, kind := range []ruleKind{jumps, looksUp, blocks} {
		for _, r := range gone {
			if r.kind() == kind {
				p.removeRule(r)
			}
		}
	}
}

// removeRule deletes a rule once what replaces it stands. A lookup goes only after
// the gotos have changed that bring traffic to it. A rule that blocks goes only
// after the lookups that it backs, and when everything that the traffic of its
// network needs has succeeded; as long as the network cannot be, it stays.
func (p *planner) removeRule(r Rule) {
	network := p.ruleNetwork(r)
	needs := p.targetNeeds(r)
	if r.kind() == jumps {
		p.removeGoto(r, needs)
		return
	}
	needs = slices.Concat(needs, p.ruleAdds[network], p.ruleAdds[""], overlapping(p.jumps.gotos, r))
	if r.kind() == looksUp {
		i := p.step(network, DeleteRule{Rule: r}, append(needs, overlapping(p.jumps.gone, r)...))
		p.ruleDrops[r.Table] = append(p.ruleDrops[r.Table], i)
		p.lookupsOut[network] = append(p.lookupsOut[network], i)
		return
	}
	if p.jumps.wanted[r] { // a double
		p.step(network, DeleteRule{Rule: r}, needs)
		return
	}
	if p.blocked[network] {
		return
	}
	for of, lookups := range p.lookupsOut {
		if network == "" || of == network {
			needs = append(needs, lookups...)
		}
	}
	p.step(network, DeleteRule{Rule: r}, append(needs, p.unblocks[network]...))
}
