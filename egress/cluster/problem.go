package cluster

import (
	"cmp"
	"fmt"
	"slices"
)

// The kinds of objects that a Problem speaks of.
const (
	KindNode      = "Node"
	KindNamespace = "Namespace"
	KindPod       = "Pod"
	KindNetwork   = "ExternalNetwork"
	KindPool      = "EgressPool"
	KindGateway   = "EgressGateway"
	KindPolicy    = "EgressGatewayPolicy"
)

// The reasons of a Problem, as conditions spell them.
const (
	// ReasonInvalid is a mistake in the object itself.
	ReasonInvalid = "Invalid"
	// ReasonNotFound is a reference to what does not exist (yet).
	ReasonNotFound = "NotFound"
	// ReasonConflict is an object that is fine, but not beside another.
	ReasonConflict = "Conflict"
	// ReasonExhausted is a pool that has too few addresses.
	ReasonExhausted = "Exhausted"
	// ReasonUnplaced is a gateway that finds too few nodes.
	ReasonUnplaced = "Unplaced"
)

// Problem is what is wrong with an object. It concerns that object, and what
// refers to it, alone.
type Problem struct {
	Kind, Namespace, Name string
	Reason                string
	// Field is where, as in spec.rules[1].destination.cidr; "" for the whole.
	Field   string
	Message string
}

// String is "kind namespace/name: field: message".
func (p Problem) String() string {
	name := p.Name
	if p.Namespace != "" {
		name = p.Namespace + "/" + name
	}
	if p.Field == "" {
		return fmt.Sprintf("%s %s: %s", p.Kind, name, p.Message)
	}
	return fmt.Sprintf("%s %s: %s: %s", p.Kind, name, p.Field, p.Message)
}

// reporter collects what is wrong with one object.
type reporter struct {
	kind, namespace, name string
	problems              []Problem
}

func (r *reporter) add(reason, field, format string, args ...any) {
	r.problems = append(r.problems, Problem{r.kind, r.namespace, r.name, reason, field, fmt.Sprintf(format, args...)})
}

func (r *reporter) ok() bool { return len(r.problems) == 0 }

// selector parses a selector. "" is all(), unless the field is required.
func (r *reporter) selector(field, text string) *Selector {
	s, err := ParseSelector(text)
	if err != nil {
		r.add(ReasonInvalid, field, "%s is no selector: %s", quote(text), err)
	}
	return s
}

// sortProblems orders problems by object, and drops what was said twice. Those of
// one object keep their order.
func sortProblems(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	seen := map[Problem]bool{}
	return slices.DeleteFunc(problems, func(p Problem) bool {
		twice := seen[p]
		seen[p] = true
		return twice
	})
}
