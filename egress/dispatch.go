package egress

import (
	"cmp"
	"slices"

	"github.com/egret-router/egret/vrf"
)

// Rule priorities, offsets into Ownership.RulePriorities.
const (
	prioReturn  = 0
	prioBlocked = 5
	// prioSkip lets what no policy sends to a network pass by the lookups.
	prioSkip = 9
	// prioLookup and the priorities up to prioCatch are the lookups and the tree
	// before them.
	prioLookup = 10
	prioCatch  = 190
)

// linearLookups is up to how many lookups a family needs no tree.
const linearLookups = 3

// maxTreeBits bounds the depth of the tree: 2^(bits+1)-1 priorities.
const maxTreeBits = 6

// destination is one mark and the table its packets are looked up in.
type destination struct {
	number uint16
	table  vrf.TableID
}

// dispatchRules send marked packets to their tables. The kernel walks rules one
// by one (about 40 instructions each), so beyond a few they hang on a binary tree
// of gotos over the low bits of the number. Each goto names all bits above it in
// the tree, so that a packet that meets a goto of another tree (before or after
// a change of its depth) never jumps over its own lookup.
func dispatchRules(dests []destination, v6 bool, first uint32) []vrf.Rule {
	dests = slices.SortedFunc(slices.Values(dests), func(a, b destination) int { return cmp.Compare(a.number, b.number) })
	b := dispatcher{v6: v6, next: first + prioLookup}
	b.depth = treeBits(len(dests))
	if len(dests) > linearLookups {
		b.rules = append(b.rules, vrf.Rule{Priority: first + prioSkip, IPv6: v6, Mask: markEgress, Action: vrf.RuleGoto, Target: first + prioCatch})
	}
	b.subtree(dests, 0, 0)
	return b.rules
}

// treeBits is how many bits of the number are told apart before the linear rest,
// for about two lookups in each leaf.
func treeBits(n int) int {
	bits := 0
	for n > linearLookups && bits < maxTreeBits && n > 2<<bits {
		bits++
	}
	return bits
}

type dispatcher struct {
	v6    bool
	depth int
	next  uint32
	rules []vrf.Rule
}

// subtree lays out the destinations whose low level bits are prefix: the goto to
// those with the next bit set, those without it, and then those with it. The
// layout depends on the depth alone, not on who is there.
func (d *dispatcher) subtree(dests []destination, level int, prefix uint16) {
	at := d.next
	d.next++
	if level == d.depth {
		for _, to := range dests {
			d.rules = append(d.rules, vrf.Rule{Priority: at, IPv6: d.v6, Mark: hopSetMark(to.number), Mask: maskHopSet,
				Action: vrf.RuleLookup, Table: to.table})
		}
		return
	}
	bit := uint16(1) << level
	var clear, set []destination
	for _, to := range dests {
		if to.number&bit == 0 {
			clear = append(clear, to)
		} else {
			set = append(set, to)
		}
	}
	goTo := len(d.rules)
	if len(set) > 0 {
		mask := markEgress | vrf.Mark(bit<<1-1)<<hopSetBit
		d.rules = append(d.rules, vrf.Rule{Priority: at, IPv6: d.v6, Mark: markEgress | vrf.Mark(prefix|bit)<<hopSetBit, Mask: mask, Action: vrf.RuleGoto})
	}
	d.subtree(clear, level+1, prefix)
	if len(set) > 0 {
		// The target must have a rule: the first one below it.
		before := len(d.rules)
		d.subtree(set, level+1, prefix|bit)
		d.rules[goTo].Target = d.rules[before].Priority
		return
	}
	d.skip(level + 1)
}

// skip leaves the priorities of an empty subtree free.
func (d *dispatcher) skip(level int) { d.next += 1<<(d.depth-level+1) - 1 }
