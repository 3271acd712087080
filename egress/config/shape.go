package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds the values of one file, aliases expanded.
const maxValues = 4_000_000

// shaper compares the tree of a file with the schema: keys, types, emptiness.
// It walks by the schema, so its depth is the schema's, whatever the file does.
//
// Decoding would find some of this too, but would name keys in lower case, lose
// entries that are null and know no lines.
type shaper struct {
	values   int
	findings []finding
}

// shape returns what is wrong with the shape of a file, and whether the file is
// small enough to go on with.
func shape(root *yaml.Node) (findings []finding, bounded bool) { return shapeOf[Raw](root) }

func shapeOf[T any](root *yaml.Node) (findings []finding, bounded bool) {
	s := &shaper{}
	s.check(root, reflect.TypeFor[T](), "", false)
	if s.values > maxValues {
		return []finding{{message: fmt.Sprintf("the file has more than %d values (an alias counts as all it stands for)", maxValues), line: 1}}, false
	}
	return s.findings, true
}

func (s *shaper) add(n *yaml.Node, at path, format string, args ...any) {
	s.findings = append(s.findings, finding{at: at, message: fmt.Sprintf(format, args...), line: n.Line})
}

// shorthand is the key a plain string stands for, where one is allowed instead
// of an object.
func shorthand(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[RawInterface]():
		return "name"
	case reflect.TypeFor[RawImport](), reflect.TypeFor[RawAdvertise]():
		return "prefix"
	case reflect.TypeFor[RawNextHop]():
		return "address"
	case reflect.TypeFor[RawTarget]():
		return "target"
	}
	return ""
}

// check compares n with the type t. emptyAllowed is for strings.
func (s *shaper) check(n *yaml.Node, t reflect.Type, at path, emptyAllowed bool) {
	n = resolve(n)
	if s.values++; s.values > maxValues {
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		if t.Kind() == reflect.Struct {
			return // everything in it is commented out, say: the same as absent
		}
		s.add(n, at, "has no value: write one, or remove the key")
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		s.check(n, t.Elem(), at, t.Elem().Kind() == reflect.String)
	case reflect.Struct:
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && shorthand(t) != "" {
			s.str(n, reflect.TypeFor[string](), at, false)
			return
		}
		s.object(n, t, at)
	case reflect.Slice:
		s.list(n, t, at)
	case reflect.String:
		s.str(n, t, at, emptyAllowed)
	case reflect.Int64:
		s.integer(n, at)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			s.add(n, at, "must be true or false")
		}
	}
}

func (s *shaper) integer(n *yaml.Node, at path) {
	var i int64
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!float" && strings.Trim(n.Value, "-0123456789") == "":
		s.add(n, at, "%s is out of range", shorten(n.Value)) // YAML reads integers beyond 64 bits as floats
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int":
		s.add(n, at, "must be a whole number%s", isInstead(n))
	case n.Decode(&i) != nil:
		s.add(n, at, "%s is out of range", shorten(n.Value))
	}
}

func (s *shaper) str(n *yaml.Node, t reflect.Type, at path, emptyAllowed bool) {
	isString := n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str"
	switch {
	case isString && n.Value == "" && !emptyAllowed:
		s.add(n, at, "is empty: write a value, or remove the key")
	case isString:
	case t == reflect.TypeFor[Quorum]() && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int":
	case t == reflect.TypeFor[Duration]():
		s.add(n, at, "must be a duration with its unit, such as 300ms, 5s or 1m30s%s", isInstead(n))
	case n.Kind == yaml.ScalarNode:
		s.add(n, at, "must be a string%s: put it in quotes", isInstead(n))
	default:
		s.add(n, at, "must be a string%s", isInstead(n))
	}
}

func (s *shaper) list(n *yaml.Node, t reflect.Type, at path) {
	if n.Kind != yaml.SequenceNode {
		s.add(n, at, "must be a list%s", isInstead(n))
		return
	}
	for i, item := range n.Content {
		at := at.index(i)
		if item.Kind == yaml.ScalarNode && item.ShortTag() == "!!null" {
			s.add(item, at, "is an empty list entry: fill it in or remove it")
			continue
		}
		s.check(item, t.Elem(), at, false)
	}
}

func (s *shaper) object(n *yaml.Node, t reflect.Type, at path) {
	names := fieldNames(t)
	if n.Kind != yaml.MappingNode {
		also := ""
		if short := shorthand(t); short != "" {
			also = "a string or "
		}
		s.add(n, at, "must be %san object with the keys %s%s", also, strings.Join(names, ", "), isInstead(n))
		return
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			continue // the merged keys follow below, and give way
		}
		s.entry(key, value, t, names, at, seen)
	}
	for _, merged := range merges(n) {
		if s.values += len(merged.Content) / 2; s.values > maxValues {
			return
		}
		for i := 0; i+1 < len(merged.Content); i += 2 {
			key := resolve(merged.Content[i])
			switch own := seen[strings.ToLower(key.Value)]; {
			case own == nil:
				s.entry(key, merged.Content[i+1], t, names, at, seen)
			case own.Value != key.Value:
				// YAML keeps both, and decoding without regard to case would pick one by chance.
				s.add(own, at.key(own.Value), "is spelt %s in the object that is merged in (line %d): use one spelling", quote(key.Value), key.Line)
			}
		}
	}
}

// entry checks one key of an object.
func (s *shaper) entry(key, value *yaml.Node, t reflect.Type, names []string, at path, seen map[string]*yaml.Node) {
	if key.Kind != yaml.ScalarNode {
		s.add(key, at, "has a key that is not a word: allowed are %s", strings.Join(names, ", "))
		return
	}
	folded := strings.ToLower(key.Value)
	if first := seen[folded]; first != nil {
		s.add(key, at.key(key.Value), "is given twice, first as %s on line %d", quote(first.Value), first.Line)
		return
	}
	seen[folded] = key
	for i, name := range names {
		if strings.EqualFold(name, key.Value) {
			s.check(value, t.Field(i).Type, at.key(name), name == "description")
			return
		}
	}
	f := finding{at: at.key(key.Value), line: key.Line}
	if meant := nearest(key.Value, names); meant != "" {
		f.message = "unknown key; did you mean " + quote(meant) + "?"
		f.covers = at.key(meant)
	} else {
		f.message = "unknown key: allowed are " + strings.Join(names, ", ")
	}
	s.findings = append(s.findings, f)
}

// fieldNames are the keys of the object t, in the order of its fields.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("mapstructure")
	}
	return names
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// merges are the mappings merged into n by "<<", the strongest first. What
// those merge in turn is not followed: there "<<" is an unknown key.
func merges(n *yaml.Node) []*yaml.Node {
	var found []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := resolve(n.Content[i]); key.Kind != yaml.ScalarNode || key.ShortTag() != "!!merge" {
			continue
		}
		value := resolve(n.Content[i+1])
		if value.Kind == yaml.MappingNode {
			found = append(found, value)
		}
		if value.Kind == yaml.SequenceNode {
			for _, item := range value.Content {
				if item = resolve(item); item.Kind == yaml.MappingNode {
					found = append(found, item)
				}
			}
		}
	}
	return found
}

// isInstead says what n is, for a message about what it should be.
func isInstead(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return ", not an object"
	case yaml.SequenceNode:
		return ", not a list"
	}
	kind := map[string]string{"!!str": "the string ", "!!int": "the number ", "!!float": "the number ",
		"!!bool": "the truth value ", "!!timestamp": "the date "}[n.ShortTag()]
	return ", not " + kind + quote(n.Value)
}
