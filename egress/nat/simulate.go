package nat

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ApplyTo carries the plan out on a value, as the kernel does on the table: an
// operation that refers to something that is not there, or takes away something
// that is in use, fails, and then nothing is changed. What the plan does not
// touch is shared with r, which stays as it is.
func (p Plan) ApplyTo(r Ruleset) (Ruleset, error) {
	out := simulation{Ruleset: r.fork(), own: map[string]bool{}}
	for i, op := range p.Ops {
		if err := op.applyTo(&out); err != nil {
			return r, fmt.Errorf("apply %q: %w", op, err)
		}
		if i+1 < len(p.Ops) && op.sameSet(p.Ops[i+1]) {
			continue
		}
		// Elements that come one after the other are looked at together: each alone
		// would be compared with all.
		if err := out.checkOverlaps(op); err != nil {
			return r, fmt.Errorf("apply %q: %w", op, err)
		}
	}
	return out.Ruleset, nil
}

// simulation is a ruleset that a plan is carried out on.
type simulation struct {
	Ruleset
	own map[string]bool // sets whose elements are not shared
}

// elements gives the elements of a set to change.
func (r *simulation) elements(name string) map[string]string {
	s := r.Sets[name]
	if !r.own[name] {
		if s.Elements = maps.Clone(s.Elements); s.Elements == nil {
			s.Elements = map[string]string{}
		}
		r.Sets[name], r.own[name] = s, true
	}
	return s.Elements
}

// checkOverlaps fails if intervals of the set of an added element overlap.
func (r *simulation) checkOverlaps(op Op) error {
	if op.Kind != kindElement || op.Verb != verbAdd || !r.Sets[op.Name].Interval {
		return nil
	}
	return r.Sets[op.Name].checkOverlaps()
}

func (o Op) applyTo(r *simulation) error {
	if !r.Exists && (o.Verb != verbAdd || o.Kind != kindTable) {
		return fmt.Errorf("no table")
	}
	switch o.Kind {
	case kindTable:
		if o.Verb == verbDelete {
			*r = simulation{Ruleset: newRuleset(), own: map[string]bool{}}
			r.Exists = false
			return nil
		}
		r.Exists, r.Dormant = true, false
	case kindChain:
		return o.applyChain(r)
	case kindRule:
		c, ok := r.Chains[o.Name]
		if !ok {
			return fmt.Errorf("no chain %q", o.Name)
		}
		if err := o.Line.check(&r.Ruleset); err != nil {
			return err
		}
		c.Lines = append(c.Lines[:len(c.Lines):len(c.Lines)], o.Line)
		r.Chains[o.Name] = c
	case "set", "map":
		return o.applySet(r)
	case kindElement:
		return o.applyElement(r)
	case kindCounter:
		if o.Verb == verbDelete {
			if !r.Counters[o.Name] || r.uses(`counter name "`+o.Name+`"`) {
				return fmt.Errorf("no counter %q, or in use", o.Name)
			}
			delete(r.Counters, o.Name)
			return nil
		}
		r.Counters[o.Name] = true
	case kindFlowtable:
		return o.applyFlowtable(&r.Ruleset)
	default:
		key := o.Kind + " " + o.Name
		if _, ok := r.Extra[key]; !ok {
			return fmt.Errorf("no %s", key)
		}
		delete(r.Extra, key)
	}
	return nil
}

func (o Op) applyChain(r *simulation) error {
	c, ok := r.Chains[o.Name]
	switch {
	case o.Verb == verbAdd && ok:
		return fmt.Errorf("chain is there already")
	case o.Verb == verbAdd:
		r.Chains[o.Name] = Chain{Base: o.Base}
	case !ok:
		return fmt.Errorf("no such chain")
	case o.Verb == verbFlush:
		c.Lines = nil
		r.Chains[o.Name] = c
	case r.chainInUse(o.Name):
		return fmt.Errorf("chain is in use")
	default:
		delete(r.Chains, o.Name)
	}
	return nil
}

func (o Op) applySet(r *simulation) error {
	s, ok := r.Sets[o.Name]
	switch {
	case o.Verb == verbAdd && ok:
		return fmt.Errorf("set is there already")
	case o.Verb == verbAdd:
		s = o.Set
		s.Elements = map[string]string{}
		r.Sets[o.Name], r.own[o.Name] = s, true
	case !ok || s.kind() != o.Kind:
		return fmt.Errorf("no such set")
	case o.Verb == verbFlush:
		s.Elements = map[string]string{}
		r.Sets[o.Name], r.own[o.Name] = s, true
	case r.uses("@" + o.Name):
		return fmt.Errorf("set is in use")
	default:
		delete(r.Sets, o.Name)
		delete(r.own, o.Name)
	}
	return nil
}

func (o Op) applyElement(r *simulation) error {
	s, ok := r.Sets[o.Name]
	if !ok {
		return fmt.Errorf("no such set")
	}
	_, there := s.Elements[o.Key]
	if o.Verb == verbDelete {
		if !there {
			return fmt.Errorf("no such element")
		}
		delete(r.elements(o.Name), o.Key)
		return nil
	}
	if there {
		return fmt.Errorf("element is there already")
	}
	if _, chain, ok := strings.Cut(o.Value, " "); ok {
		if _, ok := r.Chains[chain]; !ok {
			return fmt.Errorf("no chain %q", chain)
		}
	}
	r.elements(o.Name)[o.Key] = o.Value
	return nil
}

func (s Set) checkOverlaps() error {
	spans := make([]span, 0, len(s.Elements))
	for key := range s.Elements {
		sp, err := parseSpan(key)
		if err != nil {
			return err
		}
		spans = append(spans, sp)
	}
	slices.SortFunc(spans, func(a, b span) int { return a.lo.Compare(b.lo) })
	for i := 1; i < len(spans); i++ {
		if !spans[i-1].hi.Less(spans[i].lo) {
			return fmt.Errorf("%s overlaps %s", spans[i-1], spans[i])
		}
	}
	return nil
}

var usedCounter = regexp.MustCompile(`counter name "([^"]+)"`)

// check says whether everything a rule refers to is there.
func (l Line) check(r *Ruleset) error {
	for _, m := range references.FindAllStringSubmatch(l.Text, -1) {
		_, flows := r.Flowtables[m[1]]
		if _, ok := r.Sets[m[1]]; m[1] != "" && !ok && !flows {
			return fmt.Errorf("no set %q", m[1])
		}
		if _, ok := r.Chains[m[2]]; m[2] != "" && !ok {
			return fmt.Errorf("no chain %q", m[2])
		}
	}
	for _, m := range usedCounter.FindAllStringSubmatch(l.Text, -1) {
		if !r.Counters[m[1]] {
			return fmt.Errorf("no counter %q", m[1])
		}
	}
	return nil
}

// uses says whether a rule has the text as a whole word.
func (r *Ruleset) uses(text string) bool {
	word, item := text+" ", text+","
	for _, c := range r.Chains {
		for _, l := range c.Lines {
			if strings.HasSuffix(l.Text, text) || strings.Contains(l.Text, word) || strings.Contains(l.Text, item) {
				return true
			}
		}
	}
	return false
}

func (r *Ruleset) chainInUse(name string) bool {
	byGoto, byJump := "goto "+name, "jump "+name
	for _, s := range r.Sets {
		if s.Value != "verdict" {
			continue
		}
		for _, value := range s.Elements {
			if value == byGoto || value == byJump {
				return true
			}
		}
	}
	return r.uses(byGoto) || r.uses(byJump)
}
