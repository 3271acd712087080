package nat

import (
	"regexp"
	"slices"
	"strings"
)

// Diff is the plan that makes have into want. It is pure; equal rulesets give
// an empty plan. Every operation refers only to what is there at that point, so
// the order is: take rules out, take elements out, take objects away, make
// objects, put elements in, put rules in. A chain is rewritten as a whole if one
// of its rules differs; of a set only the elements that differ are touched.
//
// Both are of one table; have may be the zero Ruleset.
func Diff(have, want Ruleset) Plan {
	if !want.Exists {
		if !have.Exists {
			return Plan{}
		}
		return Plan{Table: have.Table, Ops: []Op{{Verb: verbDelete, Kind: kindTable}}}
	}
	d := differ{have: have, want: want, rewrite: map[string]bool{}, remakeChain: map[string]bool{}, remakeSet: map[string]bool{}, remakeFlow: map[string]bool{}}
	// Adding the table that is there wakes it if it is dormant.
	if !have.Exists || have.Dormant {
		d.op(Op{Verb: verbAdd, Kind: kindTable})
	}
	d.compare()
	d.flushChains()
	d.takeElements()
	d.takeObjects()
	d.makeObjects()
	d.putElements()
	d.putRules()
	return Plan{Table: want.Table, Ops: d.ops}
}

type differ struct {
	have, want Ruleset
	ops        []Op
	// rewrite are the chains of want whose rules are put in anew; remakeChain,
	// remakeSet and remakeFlow are the objects on both sides that are not what they should
	// be and have to be taken away first.
	rewrite, remakeChain, remakeSet, remakeFlow map[string]bool
}

func (d *differ) op(op Op) { d.ops = append(d.ops, op) }

// references finds the names of sets and chains in a rule.
var references = regexp.MustCompile(`@(\S+)|(?:goto|jump) ([^\s,}]+)`)

func (d *differ) compare() {
	for name, s := range d.have.Sets {
		want, ok := d.want.Sets[name]
		if ok && !s.sameSpec(want) {
			d.remakeSet[name] = true
		}
	}
	for name, f := range d.have.Flowtables {
		want, ok := d.want.Flowtables[name]
		if ok && !f.equal(want) {
			d.remakeFlow[name] = true
		}
	}
	for name, c := range d.have.Chains {
		want, ok := d.want.Chains[name]
		if ok && c.Base != want.Base {
			d.remakeChain[name] = true
		}
	}
	for name, c := range d.want.Chains {
		old, ok := d.have.Chains[name]
		if !ok || !old.equal(c) || slices.ContainsFunc(c.Lines, d.touched) {
			d.rewrite[name] = true
		}
	}
}

// touched says whether a rule refers to an object that is remade.
func (d *differ) touched(l Line) bool {
	if len(d.remakeSet) == 0 && len(d.remakeChain) == 0 && len(d.remakeFlow) == 0 {
		return false
	}
	for _, m := range references.FindAllStringSubmatch(l.Text, -1) {
		if d.remakeSet[m[1]] || d.remakeFlow[m[1]] || d.remakeChain[m[2]] {
			return true
		}
	}
	return false
}

func (d *differ) chainsRemade() bool { return len(d.remakeChain) > 0 }

// stale says whether an element that stays refers to a chain that is remade.
func (d *differ) stale(value string) bool {
	if !d.chainsRemade() {
		return false
	}
	_, chain, _ := strings.Cut(value, " ")
	return d.remakeChain[chain]
}

// chosen gives, in order, the names of what is to be kept. Of thousands of
// objects an edit concerns few, and only those are put in order.
func chosen[V any](m map[string]V, keep func(name string, v V) bool) []string {
	var names []string
	for name, v := range m {
		if keep(name, v) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (d *differ) flushChains() {
	for _, name := range chosen(d.have.Chains, func(name string, c Chain) bool {
		_, wanted := d.want.Chains[name]
		return len(c.Lines) > 0 && (!wanted || d.rewrite[name])
	}) {
		d.op(Op{Verb: verbFlush, Kind: kindChain, Name: name})
	}
}

func (d *differ) takeElements() {
	for _, name := range chosen(d.have.Sets, func(name string, s Set) bool {
		want := d.want.Sets[name]
		return len(s.Elements) > 0 && (d.chainsRemade() || !s.sameSpec(want) || !sameMemory(s, want))
	}) {
		have, want := d.have.Sets[name], d.want.Sets[name]
		if _, wanted := d.want.Sets[name]; !wanted || d.remakeSet[name] {
			d.op(Op{Verb: verbFlush, Kind: have.kind(), Name: name})
			continue
		}
		gone := d.moved(have, want)
		if len(gone) > 1 && len(gone) == len(have.Elements) {
			d.op(Op{Verb: verbFlush, Kind: have.kind(), Name: name})
			continue
		}
		for _, key := range gone {
			d.op(Op{Verb: verbDelete, Kind: kindElement, Name: name, Set: have.bare(), Key: key})
		}
	}
}

// moved gives, in order, the keys of from that are not the same in to.
func (d *differ) moved(from, to Set) []string {
	var keys []string
	for key, value := range from.Elements {
		other, ok := to.Elements[key]
		if !ok || other != value || d.stale(value) {
			keys = append(keys, key)
		}
	}
	from.orderKeys(keys)
	return keys
}

func (d *differ) takeObjects() {
	for _, name := range chosen(d.have.Sets, func(name string, _ Set) bool {
		_, wanted := d.want.Sets[name]
		return !wanted || d.remakeSet[name]
	}) {
		d.op(Op{Verb: verbDelete, Kind: d.have.Sets[name].kind(), Name: name})
	}
	for _, name := range chosen(d.have.Chains, func(name string, _ Chain) bool {
		_, wanted := d.want.Chains[name]
		return !wanted || d.remakeChain[name]
	}) {
		d.op(Op{Verb: verbDelete, Kind: kindChain, Name: name})
	}
	for _, name := range sorted(d.have.Counters) {
		if !d.want.Counters[name] {
			d.op(Op{Verb: verbDelete, Kind: kindCounter, Name: name})
		}
	}
	for _, name := range sorted(d.have.Flowtables) {
		if _, wanted := d.want.Flowtables[name]; !wanted || d.remakeFlow[name] {
			d.op(Op{Verb: verbDelete, Kind: kindFlowtable, Name: name})
		}
	}
	for _, key := range sorted(d.have.Extra) {
		if _, wanted := d.want.Extra[key]; !wanted {
			d.op(Op{Verb: verbDelete, Kind: d.have.Extra[key].Kind, Name: d.have.Extra[key].Name})
		}
	}
}

func (d *differ) makeObjects() {
	for _, name := range sorted(d.want.Counters) {
		if !d.have.Counters[name] {
			d.op(Op{Verb: verbAdd, Kind: kindCounter, Name: name})
		}
	}
	for _, name := range sorted(d.want.Flowtables) {
		if _, there := d.have.Flowtables[name]; !there || d.remakeFlow[name] {
			d.op(Op{Verb: verbAdd, Kind: kindFlowtable, Name: name, Flowtable: d.want.Flowtables[name]})
		}
	}
	for _, name := range chosen(d.want.Chains, func(name string, _ Chain) bool {
		_, there := d.have.Chains[name]
		return !there || d.remakeChain[name]
	}) {
		d.op(Op{Verb: verbAdd, Kind: kindChain, Name: name, Base: d.want.Chains[name].Base})
	}
	for _, name := range chosen(d.want.Sets, func(name string, _ Set) bool {
		_, there := d.have.Sets[name]
		return !there || d.remakeSet[name]
	}) {
		s := d.want.Sets[name].bare()
		d.op(Op{Verb: verbAdd, Kind: s.kind(), Name: name, Set: s})
	}
}

func (d *differ) putElements() {
	more := 0
	for name, s := range d.want.Sets {
		more += max(0, len(s.Elements)-len(d.have.Sets[name].Elements))
	}
	d.ops = slices.Grow(d.ops, more)
	for _, name := range chosen(d.want.Sets, func(name string, s Set) bool {
		return d.chainsRemade() || d.remakeSet[name] || !sameMemory(d.have.Sets[name], s)
	}) {
		have, want := d.have.Sets[name], d.want.Sets[name]
		if d.remakeSet[name] {
			have.Elements = nil
		}
		for _, key := range d.moved(want, have) {
			d.op(Op{Verb: verbAdd, Kind: kindElement, Name: name, Set: want.bare(), Key: key, Value: want.Elements[key]})
		}
	}
}

func (d *differ) putRules() {
	for _, name := range chosen(d.want.Chains, func(name string, _ Chain) bool { return d.rewrite[name] }) {
		for _, line := range d.want.Chains[name].Lines {
			d.op(Op{Verb: verbAdd, Kind: kindRule, Name: name, Line: line})
		}
	}
}
