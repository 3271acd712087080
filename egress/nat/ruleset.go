package nat

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Family and table that are ours.
const (
	family    = "inet"
	tableName = "egret"
)

func named(table string) string { return cmp.Or(table, tableName) }

// Ruleset is a table as a value, inet egret unless it says otherwise. The zero
// Ruleset says that there is no table.
//
// Rulesets share memory with each other (those of a Renderer, and what
// Plan.ApplyTo returns with what it was given). So they are immutable: Clone
// before changing one.
type Ruleset struct {
	// Table is the table's name, of the family inet; "" means egret.
	Table string
	// Exists says that the table is there.
	Exists bool
	// Dormant says that somebody switched the table off.
	Dormant bool
	Chains  map[string]Chain
	Sets    map[string]Set
	// Counters are the names of the named counters. Their values are no part of
	// the ruleset.
	Counters map[string]bool
	// Flowtables are software flowtables at priority 0, with a counter.
	Flowtables map[string]Flowtable
	// Extra are objects of kinds we never make, name by "kind name". Diff
	// deletes them.
	Extra map[string]Extra
}

// Extra is an object of a kind we never make, like a quota.
type Extra struct{ Kind, Name string }

// Base is what makes a chain a base chain. The zero Base is a regular chain.
type Base struct {
	Type, Hook string
	Priority   int
	Policy     string
}

// Chain is an ordered list of rules.
type Chain struct {
	Base  Base
	Lines []Line
}

// Line is one rule of a chain. Two are the same if their IDs are.
type Line struct {
	// ID is the rule's comment: a hash of its text. The kernel gives it back,
	// while it does not give back the text in the form it was written in.
	ID string
	// Text is the rule without its comment; empty in what Snapshot returns.
	Text string
}

// Set is a set or, with a Value, a map.
type Set struct {
	// Key is the type of the keys as nft lists it: ipv4_addr, ipv6_addr, ifname,
	// mark, integer.
	Key string
	// Value is the type of a map's values: verdict, ipv4_addr, ipv6_addr.
	Value string
	// Interval says that keys are ranges of addresses, which do not overlap.
	Interval bool
	// Odd is what else somebody gave the set (a timeout, a size): never ours.
	Odd string
	// Elements go from canonical key to value ("" in a set). Keys of intervals
	// are an address, a prefix if the range is one, else "first-last"; devices
	// are quoted, marks are 0x and eight digits.
	Elements map[string]string
}

func newLine(text string) Line {
	sum := sha256.Sum256([]byte(text))
	return Line{ID: hex.EncodeToString(sum[:6]), Text: text}
}

func lines(texts ...string) []Line {
	out := make([]Line, 0, len(texts))
	for _, text := range texts {
		out = append(out, newLine(text))
	}
	return out
}

func newRuleset() Ruleset { return emptyRuleset(0) }

// emptyRuleset has room for about n chains and sets.
func emptyRuleset(n int) Ruleset {
	return Ruleset{
		Exists:   true,
		Chains:   make(map[string]Chain, n),
		Sets:     make(map[string]Set, n),
		Counters: map[string]bool{},

		Flowtables: map[string]Flowtable{},
		Extra:      map[string]Extra{},
	}
}

// Clone returns a deep copy.
func (r Ruleset) Clone() Ruleset {
	out := newRuleset()
	out.Table, out.Exists, out.Dormant = r.Table, r.Exists, r.Dormant
	for name, c := range r.Chains {
		c.Lines = slices.Clone(c.Lines)
		out.Chains[name] = c
	}
	for name, s := range r.Sets {
		s.Elements = maps.Clone(s.Elements)
		if s.Elements == nil {
			s.Elements = map[string]string{}
		}
		out.Sets[name] = s
	}
	maps.Copy(out.Counters, r.Counters)
	for name, f := range r.Flowtables {
		out.Flowtables[name] = f.clone()
	}
	maps.Copy(out.Extra, r.Extra)
	return out
}

// fork returns a copy whose chains and sets can be replaced. What is in them is
// shared.
func (r Ruleset) fork() Ruleset {
	out := emptyRuleset(len(r.Chains))
	out.Table, out.Exists, out.Dormant = r.Table, r.Exists, r.Dormant
	maps.Copy(out.Chains, r.Chains)
	maps.Copy(out.Sets, r.Sets)
	maps.Copy(out.Counters, r.Counters)
	maps.Copy(out.Flowtables, r.Flowtables)
	maps.Copy(out.Extra, r.Extra)
	return out
}

// Equal says whether two rulesets are the same, whatever the names of their tables,
// rules being compared by ID.
func (r Ruleset) Equal(other Ruleset) bool {
	return r.Exists == other.Exists && r.Dormant == other.Dormant &&
		maps.EqualFunc(r.Chains, other.Chains, Chain.equal) &&
		maps.EqualFunc(r.Sets, other.Sets, Set.equal) &&
		maps.Equal(r.Counters, other.Counters) &&
		maps.EqualFunc(r.Flowtables, other.Flowtables, Flowtable.equal) &&
		maps.Equal(r.Extra, other.Extra)
}

func (c Chain) equal(other Chain) bool {
	if c.Base != other.Base || len(c.Lines) != len(other.Lines) {
		return false
	}
	return len(c.Lines) == 0 || &c.Lines[0] == &other.Lines[0] ||
		slices.EqualFunc(c.Lines, other.Lines, func(a, b Line) bool { return a.ID == b.ID })
}

func (s Set) sameSpec(other Set) bool {
	return s.Key == other.Key && s.Value == other.Value && s.Interval == other.Interval && s.Odd == other.Odd
}

func (s Set) equal(other Set) bool {
	return s.sameSpec(other) && (sameMemory(s, other) || maps.Equal(s.Elements, other.Elements))
}

// sameMemory says whether two sets share their elements.
func sameMemory(a, b Set) bool {
	return reflect.ValueOf(a.Elements).UnsafePointer() == reflect.ValueOf(b.Elements).UnsafePointer()
}

// bare is the set without its elements.
func (s Set) bare() Set {
	s.Elements = nil
	return s
}

// kind is the word nft has for the object.
func (s Set) kind() string {
	if s.Value != "" {
		return "map"
	}
	return "set"
}

// spec is what stands between the braces of its declaration.
//
// Keys of type integer cannot be declared by name: the type has no size. Of the
// expressions that can stand in for one, nft 1.0.6 crashes when it lists
// "typeof jhash ..." (in text, the JSON is fine), so it is numgen.
func (s Set) spec() string {
	key := "type " + s.Key
	value := s.Value
	if s.Key == "integer" {
		key = "typeof numgen inc mod 65536"
		value = map[string]string{"ipv4_addr": "ip saddr", "ipv6_addr": "ip6 saddr", "verdict": "verdict"}[s.Value]
	}
	if value != "" {
		key += " : " + value
	}
	if s.Interval {
		key += "; flags interval"
	}
	return key + ";"
}

func elementText(key, value string) string {
	if value == "" {
		return key
	}
	return key + " : " + value
}

func (b Base) spec() string {
	return fmt.Sprintf("type %s hook %s priority %d; policy %s;", b.Type, b.Hook, b.Priority, b.Policy)
}

func (l Line) text() string { return l.Text + ` comment "` + l.ID + `"` }

// String gives the table as text that nft loads. It is "" for no table. A
// ruleset that came from Snapshot has no rule texts; its rules print as
// comments.
func (r Ruleset) String() string {
	if !r.Exists {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", family, named(r.Table))
	if r.Dormant {
		b.WriteString("\tflags dormant\n")
	}
	for _, name := range sorted(r.Counters) {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n", name)
	}
	for _, name := range sorted(r.Flowtables) {
		r.Flowtables[name].write(&b, name)
	}
	for _, key := range sorted(r.Extra) {
		fmt.Fprintf(&b, "\t# %s\n", key)
	}
	for _, name := range sorted(r.Sets) {
		r.Sets[name].write(&b, name)
	}
	for _, name := range sorted(r.Chains) {
		r.Chains[name].write(&b, name)
	}
	b.WriteString("}\n")
	return b.String()
}

func (s Set) write(b *strings.Builder, name string) {
	fmt.Fprintf(b, "\n\t%s %s {\n", s.kind(), name)
	for part := range strings.SplitSeq(strings.TrimSuffix(s.spec(), ";"), "; ") {
		fmt.Fprintf(b, "\t\t%s\n", part)
	}
	if len(s.Elements) > 0 {
		b.WriteString("\t\telements = {\n")
		for _, key := range sortedKeys(s) {
			fmt.Fprintf(b, "\t\t\t%s,\n", elementText(key, s.Elements[key]))
		}
		b.WriteString("\t\t}\n")
	}
	b.WriteString("\t}\n")
}

func (c Chain) write(b *strings.Builder, name string) {
	fmt.Fprintf(b, "\n\tchain %s {\n", name)
	if c.Base != (Base{}) {
		fmt.Fprintf(b, "\t\t%s\n", c.Base.spec())
	}
	for _, line := range c.Lines {
		if line.Text == "" {
			fmt.Fprintf(b, "\t\t# %s\n", line.ID)
			continue
		}
		fmt.Fprintf(b, "\t\t%s\n", line.text())
	}
	b.WriteString("\t}\n")
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// sortedKeys gives the keys of a set in the order of orderKeys.
func sortedKeys(s Set) []string {
	keys := slices.Collect(maps.Keys(s.Elements))
	s.orderKeys(keys)
	return keys
}

// orderKeys orders keys of a set for people: addresses by value.
func (s Set) orderKeys(keys []string) {
	switch {
	case s.Interval:
		type start struct {
			addr netip.Addr
			key  string
		}
		starts := make([]start, 0, len(keys))
		for _, key := range keys {
			sp, _ := parseSpan(key)
			starts = append(starts, start{sp.lo, key})
		}
		slices.SortFunc(starts, func(a, b start) int {
			return cmp.Or(a.addr.Compare(b.addr), strings.Compare(a.key, b.key))
		})
		for i := range keys {
			keys[i] = starts[i].key
		}
	case s.Key == "integer":
		slices.SortFunc(keys, func(a, b string) int {
			return cmp.Or(len(a)-len(b), strings.Compare(a, b))
		})
	default:
		slices.Sort(keys)
	}
}
