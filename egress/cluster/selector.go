package cluster

import (
	"slices"
	"strings"
	"sync"
)

// Bounds of a selector: its length in bytes, and how deep parentheses and
// negations nest.
const (
	MaxSelectorLength = 4096
	MaxSelectorDepth  = 64
)

// The labels that every namespace has, whatever its object says: its name.
const (
	LabelNamespaceName = "kubernetes.io/metadata.name"
	LabelCalicoName    = "projectcalico.org/name"
)

// Selector is a compiled selector in Calico's language:
//
//	all()  global()  has(label)  label == "value"  label != "value"
//	label in {"a", "b"}  label not in {"a", "b"}
//	label contains "x"  label starts with "x"  label ends with "x"
//	!x  x && y  x || y  (x)
//
// ! binds closest, then &&, then ||. Strings are in single or double quotes and
// have no escapes. As in Calico, != and not in match what lacks the label, and
// the empty selector is all(). global() matches what is in no namespace: none of
// the objects that are selected here. A Selector is immutable.
type Selector struct {
	root node
}

// Matches says whether an object with these labels is selected.
func (s *Selector) Matches(labels map[string]string) bool {
	return s.root.matches(object{labels: labels})
}

// MatchesNamespace says whether a namespace is selected, by its labels and by
// its name.
func (s *Selector) MatchesNamespace(ns *Namespace) bool {
	return s.root.matches(object{labels: ns.Labels, name: ns.Name})
}

// String is the selector in one spelling: parsed again it is the same.
func (s *Selector) String() string {
	var b strings.Builder
	s.root.print(&b, 0)
	return b.String()
}

// object is what a selector looks at.
type object struct {
	labels map[string]string
	name   string // of a namespace
}

func (o object) get(label string) (string, bool) {
	if o.name != "" && (label == LabelNamespaceName || label == LabelCalicoName) {
		return o.name, true
	}
	value, ok := o.labels[label]
	return value, ok
}

// node is a part of a selector. outer is how close the operator around it binds:
// 1 for ||, 2 for &&, 3 for !.
type node interface {
	matches(object) bool
	print(b *strings.Builder, outer int)
}

type (
	constNode struct{ all bool }
	hasNode   struct{ label string }
	// compareNode is one of the operators with one string.
	compareNode struct{ label, op, value string }
	// setNode is in, or not in.
	setNode struct {
		label  string
		not    bool
		values []string // sorted, each once
	}
	notNode struct{ of node }
	// listNode is && or || of at least two.
	listNode struct {
		and bool
		of  []node
	}
)

// The operators with one string.
const (
	opEqual    = "=="
	opNotEqual = "!="
	opContains = "contains"
	opStarts   = "starts with"
	opEnds     = "ends with"
)

func (n constNode) matches(object) bool { return n.all }
func (n notNode) matches(o object) bool { return !n.of.matches(o) }

func (n hasNode) matches(o object) bool {
	_, ok := o.get(n.label)
	return ok
}

func (n compareNode) matches(o object) bool {
	value, ok := o.get(n.label)
	switch n.op {
	case opNotEqual:
		return !ok || value != n.value
	case opContains:
		return ok && strings.Contains(value, n.value)
	case opStarts:
		return ok && strings.HasPrefix(value, n.value)
	case opEnds:
		return ok && strings.HasSuffix(value, n.value)
	default:
		return ok && value == n.value
	}
}

func (n setNode) matches(o object) bool {
	value, ok := o.get(n.label)
	if ok {
		_, ok = slices.BinarySearch(n.values, value)
	}
	return ok != n.not
}

func (n listNode) matches(o object) bool {
	for _, of := range n.of {
		if of.matches(o) != n.and {
			return !n.and
		}
	}
	return n.and
}

func (n constNode) print(b *strings.Builder, _ int) {
	if n.all {
		b.WriteString("all()")
	} else {
		b.WriteString("global()")
	}
}

func (n hasNode) print(b *strings.Builder, _ int) { b.WriteString("has(" + n.label + ")") }

func (n compareNode) print(b *strings.Builder, _ int) {
	b.WriteString(n.label + " " + n.op + " " + quoted(n.value))
}

func (n setNode) print(b *strings.Builder, _ int) {
	b.WriteString(n.label)
	if n.not {
		b.WriteString(" not")
	}
	b.WriteString(" in {")
	for i, v := range n.values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoted(v))
	}
	b.WriteString("}")
}

func (n notNode) print(b *strings.Builder, _ int) {
	b.WriteString("!")
	n.of.print(b, 3)
}

func (n listNode) print(b *strings.Builder, outer int) {
	own, word := 1, " || "
	if n.and {
		own, word = 2, " && "
	}
	if own <= outer {
		b.WriteString("(")
		defer b.WriteString(")")
	}
	for i, of := range n.of {
		if i > 0 {
			b.WriteString(word)
		}
		of.print(b, own)
	}
}

// quoted puts a string, which has at most one kind of quotes in it, between the
// other.
func quoted(s string) string {
	if strings.Contains(s, `"`) {
		return "'" + s + "'"
	}
	return `"` + s + `"`
}

// maxCached bounds the compiled selectors that are kept.
const maxCached = 8192

// compiled keeps what ParseSelector has made: the same few selectors are asked
// for again and again.
var compiled struct {
	sync.Mutex
	selectors map[string]parsed
}

type parsed struct {
	selector *Selector
	err      error
}

// ParseSelector compiles a selector, or remembers it. The error is a
// *SelectorError. It may be called by several goroutines.
func ParseSelector(text string) (*Selector, error) {
	compiled.Lock()
	defer compiled.Unlock()
	if known, ok := compiled.selectors[text]; ok {
		return known.selector, known.err
	}
	s, err := parseSelector(text)
	if len(text) <= MaxSelectorLength { // so that the cache is bounded in bytes, too
		if compiled.selectors == nil || len(compiled.selectors) >= maxCached {
			compiled.selectors = map[string]parsed{}
		}
		compiled.selectors[strings.Clone(text)] = parsed{s, err}
	}
	return s, err
}
