package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	keys := fieldNames(reflect.TypeFor[RawNetwork]())
	for word, want := range map[string]string{
		"interface":               "interfaces",
		"INTERFACES":              "interfaces",
		"nmae":                    "name", // neighbours swapped
		"static-routes":           "staticRoutes",
		"probe":                   "probes",
		"bpg":                     "bgp",
		"x":                       "",
		"neighbours":              "",
		strings.Repeat("a", 1000): "",
	} {
		if got := nearest(word, keys); got != want {
			t.Errorf("nearest(%q) is %q, want %q", shorten(word), got, want)
		}
	}
	// Two that are equally near: neither is named.
	if got := suggest("pool-c", []string{"pool-a", "pool-b"}); got != "" {
		t.Errorf("suggested %q", got)
	}
	if got := suggest("pool-c", []string{"other", "pool-cc"}); got != `; did you mean "pool-cc"?` {
		t.Errorf("suggested %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"abc", "bc", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) is %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("distance(%q, %q) is %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
