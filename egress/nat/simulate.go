package nat

import (
	"fmt"
	"regexp"
	"strings"
)

// ApplyTo carries the plan out on a value, as the kernel does on the table: an
// operation that refers to something that is not there, or takes away something
// that is in use, fails, and then nothing is changed.
func (p Plan) ApplyTo(r Ruleset) (Ruleset, error) {
	out := r.Clone()
	for _, op := range p.Ops {
		if err := op.applyTo(&out); err != nil {
			return r, fmt.Errorf("apply %q: %w", op, err)
		}
	}
	return out, nil
}

func (o Op) applyTo(r *Ruleset) error {
	if !r.Exists && (o.Verb != verbAdd || o.Kind != kindTable) {
		return fmt.Errorf("no table")
	}
	switch o.Kind {
	case kindTable:
		if o.Verb == verbDelete {
			*r = Ruleset{}.Clone()
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
		if err := o.Line.check(r); err != nil {
			return err
		}
		c.Lines = append(c.Lines, o.Line)
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
		return o.applyFlowtable(r)
	default:
		key := o.Kind + " " + o.Name
		if _, ok := r.Extra[key]; !ok {
			return fmt.Errorf("no %s", key)
		}
		delete(r.Extra, key)
	}
	return nil
}

func (o Op) applyChain(r *Ruleset) error {
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

func (o Op) applySet(r *Ruleset) error {
	s, ok := r.Sets[o.Name]
	switch {
	case o.Verb == verbAdd && ok:
		return fmt.Errorf("set is there already")
	case o.Verb == verbAdd:
		s = o.Set
		s.Elements = map[string]string{}
		r.Sets[o.Name] = s
	case !ok || s.kind() != o.Kind:
		return fmt.Errorf("no such set")
	case o.Verb == verbFlush:
		clear(s.Elements)
	case r.uses("@" + o.Name):
		return fmt.Errorf("set is in use")
	default:
		delete(r.Sets, o.Name)
	}
	return nil
}

func (o Op) applyElement(r *Ruleset) error {
	s, ok := r.Sets[o.Name]
	if !ok {
		return fmt.Errorf("no such set")
	}
	_, there := s.Elements[o.Key]
	if o.Verb == verbDelete {
		if !there {
			return fmt.Errorf("no such element")
		}
		delete(s.Elements, o.Key)
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
	if s.Interval {
		if err := s.checkOverlap(o.Key); err != nil {
			return err
		}
	}
	s.Elements[o.Key] = o.Value
	return nil
}

func (s Set) checkOverlap(key string) error {
	added, err := parseSpan(key)
	if err != nil {
		return err
	}
	for other := range s.Elements {
		o, err := parseSpan(other)
		if err != nil {
			return err
		}
		if !o.hi.Less(added.lo) && !added.hi.Less(o.lo) {
			return fmt.Errorf("overlaps %s", other)
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
	for _, c := range r.Chains {
		for _, l := range c.Lines {
			if strings.Contains(l.Text+" ", text+" ") || strings.Contains(l.Text, text+",") {
				return true
			}
		}
	}
	return false
}

func (r *Ruleset) chainInUse(name string) bool {
	for _, s := range r.Sets {
		for _, value := range s.Elements {
			if value == "goto "+name || value == "jump "+name {
				return true
			}
		}
	}
	return r.uses("goto "+name) || r.uses("jump "+name)
}
