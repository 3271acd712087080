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
	Set  Set  // of an added set or map, and what an element's is, without its elements
	Line Line // of an added rule

	Flowtable Flowtable // of an added flowtable
	// Key and Value are of an element.
	Key, Value string
}

// Plan is a list of operations that are carried out in one transaction: all of
// them or none.
type Plan struct {
	// Table is that of the rulesets it was made from.
	Table string
	Ops   []Op
}

// Empty says that there is nothing to do.
func (p Plan) Empty() bool { return len(p.Ops) == 0 }

// String is the plan as an nft script, one operation to a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, op := range p.Ops {
		b.WriteString(op.text(p.Table))
		b.WriteByte('\n')
	}
	return b.String()
}

// head is the command without what stands between braces.
func (o Op) head(table string) string {
	if o.Kind == kindTable {
		return fmt.Sprintf("%s table %s %s", o.Verb, family, named(table))
	}
	return fmt.Sprintf("%s %s %s %s %s", o.Verb, o.Kind, family, named(table), o.Name)
}

// String is the operation as an nft command on the table egret.
func (o Op) String() string { return o.text(tableName) }

// text is the operation as an nft command on a table.
func (o Op) text(table string) string {
	head := o.head(table)
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

// elementsPerLine bounds the length of a line for nft, which quotes the line in
// its errors.
const elementsPerLine = 200

// bytesPerOp is about what an operation takes in a script.
const bytesPerOp = 48

// script is the plan as nft gets it. Elements of a set that follow each other
// are one command, and those of a new set stand in its declaration: that takes
// nft less than half the time each.
func (p Plan) script() string {
	var b strings.Builder
	b.Grow(len(p.Ops) * bytesPerOp)
	for i := 0; i < len(p.Ops); {
		switch op := p.Ops[i]; {
		case op.Kind == kindElement:
			n := run(p.Ops[i:], elementsPerLine)
			op.writeElements(&b, p.Table, p.Ops[i:i+n])
			i += n
		case op.Verb == verbAdd && (op.Kind == "set" || op.Kind == "map"):
			i += writeSets(&b, p.Table, p.Ops[i:])
		default:
			b.WriteString(op.text(p.Table))
			b.WriteByte('\n')
			i++
		}
	}
	return b.String()
}

// run counts the operations from the first on that are elements of one set, up
// to a limit.
func run(ops []Op, limit int) int {
	n := 1
	for n < min(len(ops), limit) && ops[n].sameSet(ops[0]) {
		n++
	}
	return n
}

func (o Op) writeElements(b *strings.Builder, table string, ops []Op) {
	b.WriteString(o.head(table))
	b.WriteString(" { ")
	for i, op := range ops {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(op.Key)
		if op.Verb == verbAdd && op.Value != "" {
			b.WriteString(" : ")
			b.WriteString(op.Value)
		}
	}
	b.WriteString(" }\n")
}

// writeSets writes new sets together with their elements, which come behind
// them in the plan, and says how many operations that were.
func writeSets(b *strings.Builder, table string, ops []Op) int {
	n, fresh := 0, map[string][]Op{}
	for n < len(ops) && ops[n].Verb == verbAdd && (ops[n].Kind == "set" || ops[n].Kind == "map") {
		fresh[ops[n].Name] = nil
		n++
	}
	sets := ops[:n]
	var rest []Op
	for n < len(ops) && ops[n].Verb == verbAdd && ops[n].Kind == kindElement {
		count := run(ops[n:], len(ops))
		elements := ops[n : n+count : n+count]
		switch earlier, isNew := fresh[ops[n].Name]; {
		case !isNew:
			rest = append(rest, elements...)
		case earlier == nil:
			fresh[ops[n].Name] = elements
		default:
			fresh[ops[n].Name] = append(earlier, elements...)
		}
		n += count
	}
	fmt.Fprintf(b, "table %s %s {\n", family, named(table))
	for _, set := range sets {
		set.writeSet(b, fresh[set.Name])
	}
	b.WriteString("}\n")
	b.WriteString(Plan{Table: table, Ops: rest}.script())
	return n
}

func (o Op) writeSet(b *strings.Builder, elements []Op) {
	fmt.Fprintf(b, "%s %s {\n%s\n", o.Kind, o.Name, strings.ReplaceAll(o.Set.spec(), "; ", "\n"))
	for i, op := range elements {
		switch {
		case i == 0:
			b.WriteString("elements = {\n")
		case i%elementsPerLine == 0:
			b.WriteString(",\n")
		default:
			b.WriteString(", ")
		}
		b.WriteString(elementText(op.Key, op.Value))
	}
	if len(elements) > 0 {
		b.WriteString("\n}\n")
	}
	b.WriteString("}\n")
}

func (o Op) sameSet(other Op) bool {
	return o.Kind == kindElement && other.Kind == kindElement && o.Verb == other.Verb && o.Name == other.Name
}
