package config

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/egret-router/egret/egress"
)

func TestReferenceIsValid(t *testing.T) {
	if _, err := Read("reference.yaml", Reference()); err != nil {
		t.Fatal(err)
	}
}

func TestReferenceIsACopy(t *testing.T) {
	Reference()[0] = '!'
	if Reference()[0] == '!' {
		t.Error("a caller can change the reference")
	}
}

// TestReferenceHasEveryKey holds the reference to the schema: each key of the
// raw structs is in it, spelt as in the schema, and explained.
func TestReferenceHasEveryKey(t *testing.T) {
	var document yaml.Node
	if err := yaml.Unmarshal(Reference(), &document); err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	collectKeys(document.Content[0], "", explained)
	var walk func(typ reflect.Type, at string)
	walk = func(typ reflect.Type, at string) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(typ.Elem(), at)
		case reflect.Struct:
			for i, name := range fieldNames(typ) {
				key := strings.TrimPrefix(at+"."+name, ".")
				comment, present := explained[key]
				if !present {
					t.Errorf("%s is not in the reference", key)
				} else if !comment {
					t.Errorf("%s has no comment in the reference", key)
				}
				// The peers of the clients' side are explained once, with the networks'.
				if key != "clients.bgp.peers" {
					walk(typ.Field(i).Type, key)
				}
			}
		}
	}
	walk(reflect.TypeFor[Raw](), "")
}

// collectKeys notes each key below n by its path without list indexes, and
// whether it has a comment anywhere: above it, behind it, or above the list
// entry it begins.
func collectKeys(n *yaml.Node, at string, explained map[string]bool) {
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if item.Kind == yaml.MappingNode && len(item.Content) > 0 && item.HeadComment != "" {
				explained[strings.TrimPrefix(at+"."+item.Content[0].Value, ".")] = true
			}
			collectKeys(item, at, explained)
		}
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			name := strings.TrimPrefix(at+"."+key.Value, ".")
			explained[name] = explained[name] || key.HeadComment+key.LineComment+value.LineComment != ""
			collectKeys(value, name, explained)
		}
	}
}

// TestReferenceDefaults takes out every line marked as a default, one at a time
// and all at once: nothing changes.
func TestReferenceDefaults(t *testing.T) {
	want, err := Read("reference.yaml", Reference())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(Reference()), "\n")
	var marked []int
	for i, line := range lines {
		if strings.HasSuffix(line, "# (default)") {
			marked = append(marked, i)
		}
	}
	if len(marked) < 30 {
		t.Fatalf("only %d lines are marked as defaults", len(marked))
	}
	for _, i := range marked {
		compareWithout(t, want, lines, lines[i], i)
	}
	compareWithout(t, want, lines, "all of them", marked...)
}

// compareWithout reads the lines without some of them. A list entry that begins
// with one of these keeps its dash.
func compareWithout(t *testing.T, want *egress.Spec, lines []string, what string, without ...int) {
	t.Helper()
	keep := append([]string(nil), lines...)
	entry := regexp.MustCompile(`^( *-) .*`)
	for _, i := range without {
		keep[i] = entry.FindString(keep[i])
		if keep[i] != "" {
			keep[i] = entry.ReplaceAllString(keep[i], "$1")
		}
	}
	got, err := Read("reference.yaml", []byte(strings.Join(keep, "\n")))
	if err != nil {
		t.Errorf("without %s: %v", strings.TrimSpace(what), err)
		return
	}
	if diff := cmp.Diff(dump(t, want), dump(t, got)); diff != "" {
		t.Errorf("without %s, which is said to be the default: -with +without\n%s", strings.TrimSpace(what), diff)
	}
}

// TestReferenceRequired takes out every entry that is marked as required: each
// time there is a problem.
func TestReferenceRequired(t *testing.T) {
	lines := strings.Split(string(Reference()), "\n")
	count := 0
	for i, line := range lines {
		if !strings.HasSuffix(line, "(required)") || i+1 >= len(lines) {
			continue
		}
		target := i
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			target = i + 1
		}
		count++
		if _, err := Read("reference.yaml", []byte(withoutBlock(lines, target))); err == nil {
			t.Errorf("line %d, %s, is said to be required", target+1, strings.TrimSpace(lines[target]))
		}
	}
	if count < 15 {
		t.Fatalf("only %d lines are marked as required", count)
	}
}

// withoutBlock takes out the key on line i with everything below it.
func withoutBlock(lines []string, i int) string {
	indent := func(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
	kept := append([]string(nil), lines[:i]...)
	column := indent(lines[i])
	if strings.HasPrefix(lines[i][column:], "- ") {
		kept = append(kept, lines[i][:column+1]) // the entry stays
		column += 2
	}
	rest := i + 1
	for rest < len(lines) && (strings.TrimSpace(lines[rest]) == "" || indent(lines[rest]) > column) {
		rest++
	}
	return strings.Join(append(kept, lines[rest:]...), "\n")
}

func TestDefaults(t *testing.T) {
	spec, problems := Parse(Raw{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if diff := cmp.Diff(spec.Settings, Defaults()); diff != "" {
		t.Error(diff)
	}
	if spec.Settings.Ownership != egress.DefaultOwnership() {
		t.Errorf("ownership is %+v by default", spec.Settings.Ownership)
	}
}
