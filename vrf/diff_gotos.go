package vrf

import (
	"cmp"
	"slices"
)

// ruleKind is what a rule does, as far as the order of steps is concerned.
type ruleKind int

const (
	blocks ruleKind = iota
	looksUp
	jumps
)

func (r Rule) kind() ruleKind {
	switch r.Action {
	case RuleLookup:
		return looksUp
	case RuleGoto:
		return jumps
	}
	return blocks
}

// rulePlace is where a goto can lead: the kernel goes on at the first rule of that
// priority. IPv4 and IPv6 have separate lists.
type rulePlace struct {
	priority uint32
	ipv6     bool
}

func (r Rule) place() rulePlace  { return rulePlace{r.Priority, r.IPv6} }
func (r Rule) target() rulePlace { return rulePlace{r.Target, r.IPv6} }

// overlaps says that there are packets which match both rules.
func (r Rule) overlaps(o Rule) bool {
	return r.IPv6 == o.IPv6 && (r.Mark^o.Mark)&r.Mask&o.Mask == 0
}

// ruleStep is a rule and the step that adds or deletes it.
type ruleStep struct {
	rule Rule
	step int
}

// overlapping are the steps of the rules that packets of r may meet.
func overlapping(list []ruleStep, r Rule) (steps []int) {
	for _, s := range list {
		if s.rule.overlaps(r) {
			steps = append(steps, s.step)
		}
	}
	return steps
}

// jumpSteps is what the planner knows about rules and the gotos over them.
type jumpSteps struct {
	wanted   map[Rule]bool
	stays    map[Rule]bool      // wanted, and in the kernel as it should be
	targeted map[rulePlace]bool // by a wanted goto
	kept     map[rulePlace]bool // places with a rule that stays

	added []ruleStep // lookups and what blocks
	gotos []ruleStep // gotos added
	gone  []ruleStep // gotos deleted
}

// prepareRules works out which rules stay, and leaves out the wanted gotos that can
// have no target.
func (p *planner) prepareRules() {
	j := &p.jumps
	have := make(map[Rule]bool, len(p.have.Config.Rules))
	for _, r := range p.have.Config.Rules {
		have[r] = true
	}
	p.dropLostGotos(have)
	j.wanted = make(map[Rule]bool, len(p.rules))
	for _, r := range p.rules {
		j.wanted[r] = true
	}
	again := p.rulesAgain()
	j.stays, j.kept = map[Rule]bool{}, map[rulePlace]bool{}
	for r := range have {
		if j.wanted[r] && !again[r] {
			j.stays[r], j.kept[r.place()] = true, true
		}
	}
}

// dropLostGotos refuses gotos that lead backwards or to where no rule will be. As
// targets lie ahead, what is behind is decided first.
func (p *planner) dropLostGotos(have map[Rule]bool) {
	p.jumps.targeted = map[rulePlace]bool{}
	standing := map[rulePlace]bool{}
	drop := map[Rule]bool{}
	for _, r := range slices.Backward(p.rules) {
		if r.kind() == jumps && (r.Target <= r.Priority || !standing[r.target()]) {
			p.fail("", "rule %q: there is no rule to go to", r)
			drop[r] = true
			continue
		}
		if have[r] || p.addable(r) {
			standing[r.place()] = true
			if r.kind() == jumps {
				p.jumps.targeted[r.target()] = true
			}
		}
	}
	if len(drop) > 0 {
		p.rules = slices.DeleteFunc(p.rules, func(r Rule) bool { return drop[r] })
	}
}

// rulesAgain are the rules that have to be added once more and then deleted, although
// they are wanted. They are gotos that the kernel skips in spite of their target, and
// those in danger of being deleted instead of another: the kernel deletes the first
// rule, in the order in which they were added, that has what the request says, and
// it looks neither at the target of a goto nor at a mark or mask of 0.
func (p *planner) rulesAgain() map[Rule]bool {
	again := map[Rule]bool{}
	places := map[rulePlace]bool{}
	groups := map[Rule][]Rule{}
	for _, r := range p.have.Config.Rules {
		places[r.place()] = true
		alike := r
		alike.Mark, alike.Mask, alike.Target = 0, 0, 0
		groups[alike] = append(groups[alike], r)
	}
	for _, r := range p.have.Unresolved {
		again[r] = places[r.target()] // else the kernel finds the target when that is added
	}
	for _, group := range groups {
		if len(group) > 1 && p.confusing(group) {
			for _, r := range group {
				again[r] = true
			}
		}
	}
	return again
}

// confusing says that one of the rules is to be deleted, and that the kernel might
// take another for it.
func (p *planner) confusing(group []Rule) bool {
	seen := map[Rule]bool{}
	for _, r := range group {
		goes := !p.jumps.wanted[r] || seen[r]
		seen[r] = true
		if goes && slices.ContainsFunc(group, func(o Rule) bool {
			return o != r && (r.Mark == 0 || r.Mark == o.Mark) && (r.Mask == 0 || r.Mask == o.Mask)
		}) {
			return true
		}
	}
	return false
}

// addGoto adds a goto once everything stands that its packets may meet: else it
// would take them past a lookup that they still need.
func (p *planner) addGoto(r Rule) {
	if !p.addable(r) {
		return
	}
	needs := slices.Concat(overlapping(p.jumps.added, r), overlapping(p.jumps.gotos, r))
	if !p.jumps.kept[r.target()] {
		needs = append(needs, p.addedAt(r.target())...)
	}
	p.jumps.gotos = append(p.jumps.gotos, ruleStep{r, p.step("", AddRule{Rule: r}, needs)})
}

func (p *planner) addedAt(place rulePlace) (steps []int) {
	for _, list := range [][]ruleStep{p.jumps.added, p.jumps.gotos} {
		for _, s := range list {
			if s.rule.place() == place {
				steps = append(steps, s.step)
			}
		}
	}
	return steps
}

// rulesGone are the rules to delete: not wanted, doubles, and those that were added
// once more. The less a request says the later it comes, see rulesAgain.
func (p *planner) rulesGone() (gone []Rule) {
	seen := map[Rule]bool{}
	for _, r := range p.have.Config.Rules {
		if !p.jumps.stays[r] || seen[r] {
			gone = append(gone, r)
		}
		seen[r] = true
	}
	gone = slices.DeleteFunc(gone, func(r Rule) bool {
		return p.jumps.wanted[r] && !p.jumps.stays[r] && !p.addable(r)
	})
	slices.SortFunc(gone, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.silence(), b.silence()), compareRules(a, b))
	})
	return gone
}

// silence orders rules by how little a request to delete them says.
func (r Rule) silence() int {
	switch {
	case r.Mark != 0:
		return 0
	case r.Mask != 0:
		return 1
	}
	return 2
}

// targetNeeds is what has to happen before the place of a rule may be empty: the
// gotos to it are deleted, or another rule stands there.
func (p *planner) targetNeeds(r Rule) (needs []int) {
	for _, s := range p.jumps.gone {
		if s.rule.target() == r.place() {
			needs = append(needs, s.step)
		}
	}
	if p.jumps.targeted[r.place()] && !p.jumps.kept[r.place()] {
		needs = append(needs, p.addedAt(r.place())...)
	}
	return needs
}

// removeGoto deletes a goto once everything stands that its packets need instead.
func (p *planner) removeGoto(r Rule, needs []int) {
	needs = slices.Concat(needs, overlapping(p.jumps.added, r), overlapping(p.jumps.gotos, r))
	p.jumps.gone = append(p.jumps.gone, ruleStep{r, p.step("", DeleteRule{Rule: r}, needs)})
}
