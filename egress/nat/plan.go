package nat

import (
	"fmt"
	"strings"
)

// Verbs and kinds of operations, as nft spells them. The kind of an Extra is
// its own.
const (
	verbAdd    = "add"
	verbDelete = "delete"
	verbFlush  = "flush"

	kindTable   = "table"
	kindChain   = "chain"
	kindRule    = "rule"
	kindElement = "element"
	kindCounter = "counter"

	kindFlowtable = "flowtable"
)

// Op is one operation on the table. Its String is the nft command.
type Op struct {
	// Verb is add, delete or flush; Kind is table, chain, rule, set, map,
	// element, counter, flowtable or the kind of an Extra.
	Verb, Kind string
	// Name is the object: for a rule its chain, for an element its set.
	Name string
	Base Base // of an added chain
	Set  Set  // of an added set or map, without its elements
	Line Line // of an added rule

	Flowtable Flowtable // of an added flowtable
	// Key and Value are of an element.
	Key, Value string
}

// Plan is a list of operations that are carried out in one transaction: all of
// them or none.
type Plan struct{ Ops []Op }

// Empty says that there is nothing to do.
func (p Plan) Empty() bool { return len(p.Ops) == 0 }

// String is the plan as an nft script, one operation to a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, op := range p.Ops {
		b.WriteString(op.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// head is the command without what stands between braces.
func (o Op) head() string {
	if o.Kind == kindTable {
		return fmt.Sprintf("%s table %s %s", o.Verb, family, tableName)
	}
	return fmt.Sprintf("%s %s %s %s %s", o.Verb, o.Kind, family, tableName, o.Name)
}

// String is the operation as an nft command.
func (o Op) String() string {
	head := o.head()
	switch {
	case o.Kind == kindElement && o.Verb == verbAdd:
		return head + " { " + elementText(o.Key, o.Value) + " }"
	case o.Kind == kindElement:
		return head + " { " + o.Key + " }"
	case o.Verb != verbAdd:
		return head
	case o.Kind == kindRule:
		return head + " " + o.Line.text()
	case o.Kind == kindChain && o.Base != (Base{}):
		return head + " { " + o.Base.spec() + " }"
	case o.Kind == "set" || o.Kind == "map":
		return head + " { " + o.Set.spec() + " }"
	case o.Kind == kindFlowtable:
		return head + " { " + o.Flowtable.spec() + " }"
	}
	return head
}

// elementsPerCommand bounds the length of a line for nft, which quotes the line
// in its errors.
const elementsPerCommand = 200

// script is the plan as nft gets it: elements of a set that follow each other
// are one command, which takes it less than half the time.
func (p Plan) script() string {
	var b strings.Builder
	for i := 0; i < len(p.Ops); {
		op := p.Ops[i]
		if op.Kind != kindElement {
			b.WriteString(op.String())
			b.WriteByte('\n')
			i++
			continue
		}
		b.WriteString(op.head())
		b.WriteString(" { ")
		for n := 0; i < len(p.Ops) && n < elementsPerCommand && p.Ops[i].sameSet(op); n++ {
			if n > 0 {
				b.WriteString(", ")
			}
			if op.Verb == verbAdd {
				b.WriteString(elementText(p.Ops[i].Key, p.Ops[i].Value))
			} else {
				b.WriteString(p.Ops[i].Key)
			}
			i++
		}
		b.WriteString(" }\n")
	}
	return b.String()
}

func (o Op) sameSet(other Op) bool {
	return o.Kind == kindElement && other.Kind == kindElement && o.Verb == other.Verb && o.Name == other.Name
}
