package cluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// SelectorError says what is wrong with a selector, and where.
type SelectorError struct {
	// Offset is counted in bytes from 0.
	Offset  int
	Message string
}

// Error names the position counted from 1.
func (e *SelectorError) Error() string {
	return fmt.Sprintf("at character %d: %s", e.Offset+1, e.Message)
}

// maxLabel is how long the name of a label may be: a prefix of 253 bytes, a
// slash, and a name of 63, with room for what Calico adds.
const maxLabel = 512

// selectorParser descends. pos is where it is in text.
type selectorParser struct {
	text  string
	pos   int
	depth int
	err   *SelectorError
}

func parseSelector(text string) (*Selector, error) {
	if len(text) > MaxSelectorLength {
		return nil, &SelectorError{MaxSelectorLength, fmt.Sprintf("the selector is %d bytes long, at most %d are allowed", len(text), MaxSelectorLength)}
	}
	p := &selectorParser{text: text}
	p.space()
	if p.pos == len(text) {
		return &Selector{constNode{true}}, nil
	}
	root := p.list(false)
	if p.space(); p.err == nil && p.pos < len(text) {
		p.fail("&&, || or the end is expected, not %s", p.rest())
	}
	if p.err != nil {
		return nil, p.err
	}
	return &Selector{root}, nil
}

// fail notes the first mistake.
func (p *selectorParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &SelectorError{p.pos, fmt.Sprintf(format, args...)}
	}
}

// rest is the beginning of what was not understood.
func (p *selectorParser) rest() string {
	rest := p.text[p.pos:]
	if rest == "" {
		return "the end"
	}
	if len(rest) > 20 {
		rest = strings.ToValidUTF8(rest[:20], "") + "..."
	}
	return strconv.Quote(rest)
}

func (p *selectorParser) space() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// take skips white space, and the symbol if it is next.
func (p *selectorParser) take(symbol string) bool {
	p.space()
	if p.err != nil || !strings.HasPrefix(p.text[p.pos:], symbol) {
		return false
	}
	p.pos += len(symbol)
	return true
}

// word skips a word that ends there, if it is next.
func (p *selectorParser) word(word string) bool {
	if p.space(); p.peekLabel() != word {
		return false
	}
	p.pos += len(word)
	return true
}

// peekLabel is the longest name of a label that begins here.
func (p *selectorParser) peekLabel() string {
	end := p.pos
	for end < len(p.text) {
		c := p.text[end]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '/' || c == '-' {
			end++
			continue
		}
		break
	}
	return p.text[p.pos:end]
}

// list parses x || y, or, one level below, x && y.
func (p *selectorParser) list(and bool) node {
	symbol, part := "||", func() node { return p.list(true) }
	if and {
		symbol, part = "&&", p.operand
	}
	var of []node
	for {
		n := part()
		if p.err != nil {
			return constNode{}
		}
		// What stands in parentheses without need is no other selector.
		if inner, ok := n.(listNode); ok && inner.and == and {
			of = append(of, inner.of...)
		} else {
			of = append(of, n)
		}
		if !p.take(symbol) {
			break
		}
	}
	if len(of) == 1 {
		return of[0]
	}
	return listNode{and, of}
}

// operand parses !x, (x), or a test of a label.
func (p *selectorParser) operand() node {
	if p.depth++; p.depth > MaxSelectorDepth {
		p.fail("parentheses or negations nest deeper than %d", MaxSelectorDepth)
	}
	defer func() { p.depth-- }()
	switch {
	case p.err != nil:
		return constNode{}
	case p.take("!"):
		return notNode{p.operand()}
	case p.take("("):
		n := p.list(false)
		p.expect(")")
		return n
	}
	label := p.label()
	if p.err == nil && p.take("(") {
		return p.function(label)
	}
	return p.test(label)
}

func (p *selectorParser) expect(symbol string) {
	if !p.take(symbol) {
		p.fail("%s is expected, not %s", symbol, p.rest())
	}
}

func (p *selectorParser) label() string {
	p.space()
	label := p.peekLabel()
	switch {
	case label == "":
		p.fail("a label, all(), global(), has(), ! or ( is expected, not %s", p.rest())
	case len(label) > maxLabel:
		p.fail("the name of a label is %d bytes long, at most %d are allowed", len(label), maxLabel)
	default:
		p.pos += len(label)
	}
	return label
}

// function parses the rest of all(), global() and has(label).
func (p *selectorParser) function(name string) node {
	var n node = constNode{name == "all"}
	switch name {
	case "all", "global":
	case "has":
		n = hasNode{p.label()}
	default:
		p.pos -= len("(")
		p.fail("there is no function %s: use all(), global() or has(label)", strconv.Quote(name))
	}
	p.expect(")")
	return n
}

// test parses what follows the name of a label.
func (p *selectorParser) test(label string) node {
	for _, op := range []string{opEqual, opNotEqual} {
		if p.take(op) {
			return compareNode{label, op, p.str()}
		}
	}
	switch {
	case p.word("contains"):
		return compareNode{label, opContains, p.str()}
	case p.word("starts"):
		return compareNode{label, opStarts, p.with()}
	case p.word("ends"):
		return compareNode{label, opEnds, p.with()}
	case p.word("in"):
		return setNode{label, false, p.set()}
	case p.word("not"):
		if !p.word("in") {
			p.fail("in is expected after not, not %s", p.rest())
		}
		return setNode{label, true, p.set()}
	}
	p.space()
	p.fail("==, !=, in, not in, contains, starts with or ends with is expected, not %s", p.rest())
	return constNode{}
}

func (p *selectorParser) with() string {
	if !p.word("with") {
		p.fail("with is expected, not %s", p.rest())
	}
	return p.str()
}

// str parses a string in quotes.
func (p *selectorParser) str() string {
	p.space()
	if p.err != nil {
		return ""
	}
	rest := p.text[p.pos:]
	if rest == "" || rest[0] != '"' && rest[0] != '\'' {
		p.fail("a string in quotes is expected, not %s", p.rest())
		return ""
	}
	end := strings.IndexByte(rest[1:], rest[0])
	if end < 0 {
		p.fail("the string has no closing quote")
		return ""
	}
	p.pos += end + 2
	return rest[1 : end+1]
}

// set parses {"a", "b"}, which may be empty.
func (p *selectorParser) set() []string {
	p.expect("{")
	var values []string
	for p.err == nil && !p.take("}") {
		if len(values) > 0 {
			p.expect(",")
		}
		values = append(values, p.str())
	}
	slices.Sort(values)
	return slices.Compact(values)
}
