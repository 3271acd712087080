package cluster

import (
	"errors"
	"strings"
	"testing"
)

func TestSelector(t *testing.T) {
	labels := map[string]string{"a": "1", "role": "db-main", "x.io/y": "z", "in": "2", "empty": ""}
	for text, want := range map[string]bool{
		"":                                    true,
		"  ":                                  true,
		"all()":                               true,
		"all ( )":                             true,
		"global()":                            false,
		"!global()":                           true,
		"a == '1'":                            true,
		`a=="1"`:                              true,
		"a == '2'":                            false,
		"b == ''":                             false,
		"empty == ''":                         true,
		"a != '1'":                            false,
		"b != '1'":                            true, // lacks the label
		"has(a)":                              true,
		"has( b )":                            false,
		"!has(b)":                             true,
		"! ! has(b)":                          false,
		"a in {'1','2'}":                      true,
		"a in {'3', \"2\"}":                   false,
		"a in {}":                             false,
		"a not in {'1'}":                      false,
		"a not in {}":                         true,
		"b not in {'1'}":                      true,
		"b in {'1'}":                          false,
		"role contains '-m'":                  true,
		"role contains 'x'":                   false,
		"none contains ''":                    false,
		"role starts with 'db'":               true,
		"role starts with 'main'":             false,
		"role ends with 'main'":               true,
		"role ends with 'db'":                 false,
		"x.io/y == 'z'":                       true,
		"in in {'2'}":                         true,
		"a == '1' && b == '1' || has(role)":   true,  // && before ||
		"has(role) || a == '1' && b == '1'":   true,  // in either order
		"(has(role) || a == '1') && has(b)":   false, // unless in parentheses
		"!has(b) && has(a)":                   true,  // ! before &&
		"!(has(b) && has(a))":                 true,
		"!has(a) || has(a)":                   true,
		"!(has(a) || has(b))":                 false,
		"((((a == '1'))))":                    true,
		"a == '1'\n\t&& has(role)":            true,
		"a == '1' && (b == '2' || !has(b))":   true,
		"kubernetes.io/metadata.name == 'ns'": false,
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := s.Matches(labels); got != want {
			t.Errorf("%q matches: %v, want %v", text, got, want)
		}
	}
}

func TestSelectorOfNamespaces(t *testing.T) {
	ns := &Namespace{Name: "red", Labels: map[string]string{LabelCalicoName: "forged", "team": "a"}}
	for text, want := range map[string]bool{
		"projectcalico.org/name == 'red'":        true,
		"projectcalico.org/name == 'forged'":     false, // the name is what it is
		"kubernetes.io/metadata.name in {'red'}": true,
		"has(projectcalico.org/name)":            true,
		"team == 'a'":                            true,
		"global()":                               false,
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got := s.MatchesNamespace(ns); got != want {
			t.Errorf("%q matches: %v, want %v", text, got, want)
		}
	}
}

func TestSelectorErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a":                               `at character 2: ==, !=, in, not in, contains, starts with or ends with is expected, not the end`,
		"a = 'b'":                         `at character 3: ==, !=, in, not in, contains, starts with or ends with is expected, not "= 'b'"`,
		"a == b":                          `at character 6: a string in quotes is expected, not "b"`,
		"a == 'b":                         `at character 6: the string has no closing quote`,
		"a == 'b' &&":                     `at character 12: a label, all(), global(), has(), ! or ( is expected, not the end`,
		"a == 'b' & c == 'd'":             `at character 10: &&, || or the end is expected, not "& c == 'd'"`,
		"(a == 'b'":                       `at character 10: ) is expected, not the end`,
		"a == 'b')":                       `at character 9: &&, || or the end is expected, not ")"`,
		"any()":                           `at character 4: there is no function "any": use all(), global() or has(label)`,
		"has()":                           `at character 5: a label, all(), global(), has(), ! or ( is expected, not ")"`,
		"a not b":                         `at character 7: in is expected after not, not "b"`,
		"a starts 'x'":                    `at character 10: with is expected, not "'x'"`,
		"a in 'b'":                        `at character 6: { is expected, not "'b'"`,
		"a in {'b' 'c'}":                  `at character 11: , is expected, not "'c'}"`,
		"a in {'b',}":                     `at character 11: a string in quotes is expected, not "}"`,
		"a inside {'b'}":                  `at character 3: ==, !=, in, not in, contains, starts with or ends with is expected, not "inside {'b'}"`,
		strings.Repeat("!", 65) + "all()": `at character 65: parentheses or negations nest deeper than 64`,
		strings.Repeat("(", 65) + "all()": `at character 65: parentheses or negations nest deeper than 64`,
		strings.Repeat(" ", 4097):         `at character 4097: the selector is 4097 bytes long, at most 4096 are allowed`,
		strings.Repeat("a", 513) + "==''": `at character 1: the name of a label is 513 bytes long, at most 512 are allowed`,
	} {
		_, err := ParseSelector(text)
		var wrong *SelectorError
		if !errors.As(err, &wrong) {
			t.Errorf("%.80q was accepted", text)
			continue
		}
		if err.Error() != want {
			t.Errorf("%.80q: %v\nwant %s", text, err, want)
		}
	}
}

func TestSelectorPrints(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "all()",
		"a=='b'&&(c in {'z','y','y'})":           `a == "b" && c in {"y", "z"}`,
		"(a=='b'||has(c))&&!(has(d)&&has(e))":    `(a == "b" || has(c)) && !(has(d) && has(e))`,
		`a == 'say "x"' || a starts with "it's"`: `a == 'say "x"' || a starts with "it's"`,
		"(has(a) || has(b)) || has(c)":           "has(a) || has(b) || has(c)",
		"a not in {}":                            "a not in {}",
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if s.String() != want {
			t.Errorf("%q prints as %s, want %s", text, s, want)
		}
	}
}

// FuzzSelector holds that nothing panics, that errors point into the text, and
// that what is printed is the same selector.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{"all()", "a == 'b' && !has(c) || d not in {'e', \"f\"}", "a starts with 'x'", "((", "a ends with ''", "!(!a != 'b')", "\xff"} {
		f.Add(s, "a", "b")
	}
	f.Fuzz(func(t *testing.T, text, label, value string) {
		s, err := ParseSelector(text)
		if err != nil {
			var wrong *SelectorError
			if !errors.As(err, &wrong) || wrong.Offset < 0 || wrong.Offset > len(text) || wrong.Message == "" {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		printed := s.String()
		if len(printed) > MaxSelectorLength { // spaces were added
			return
		}
		again, err := ParseSelector(printed)
		if err != nil {
			t.Fatalf("%q prints as %q: %v", text, printed, err)
		}
		if again.String() != printed {
			t.Fatalf("%q prints as %q, and that as %q", text, printed, again)
		}
		for _, labels := range []map[string]string{nil, {label: value}, {"a": value}, {label: "b", "c": ""}} {
			if s.Matches(labels) != again.Matches(labels) {
				t.Fatalf("%q and %q differ on %q", text, printed, labels)
			}
		}
	})
}

func BenchmarkSelector(b *testing.B) {
	s, err := ParseSelector("app == 'shop' && tier in {'front', 'back'} && !has(legacy)")
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"app": "shop", "tier": "front", "version": "7"}
	b.ReportAllocs()
	for b.Loop() {
		s.Matches(labels)
	}
}
