package nat

import (
	"maps"
	"slices"
	"strings"
)

// DiffGuards is the plan that gives everything in want its guards, and does
// nothing else: it removes nothing, and touches no object that is no guard. It
// is for the beginning of a round, before links move, so that a port is guarded
// before it is an uplink; Diff does the rest afterwards. Where a port has a
// guard already, also that of another network, it keeps it until then: that
// drops, and never lets through, what the other network should not see.
//
// A guard whose rules somebody changed is put right. If somebody, or another
// version, left a guard set of another type, there is no way to mend it without
// the rules that use it, and the plan is Diff(have, want).
func DiffGuards(have, want Ruleset) Plan {
	target := have.fork()
	target.Exists, target.Dormant = true, false
	for name, c := range want.Chains {
		if isGuard(name) {
			target.Chains[name] = c
		}
	}
	for name := range want.Counters {
		if isGuard(name) {
			target.Counters[name] = true
		}
	}
	for name, s := range want.Sets {
		if !isGuard(name) {
			continue
		}
		if old, ok := have.Sets[name]; ok {
			if !old.sameSpec(s) {
				return Diff(have, want)
			}
			s.Elements = moreElements(old, s)
		}
		target.Sets[name] = s
	}
	return Diff(have, target)
}

// RemoveAllButGuards is the plan that leaves of have only its guards. Teardown
// applies it, takes the links down, and then deletes the table.
func RemoveAllButGuards(have Ruleset) Plan {
	if !have.Exists {
		return Plan{}
	}
	rest := have.fork()
	maps.DeleteFunc(rest.Chains, func(name string, _ Chain) bool { return !isGuard(name) })
	maps.DeleteFunc(rest.Sets, func(name string, _ Set) bool { return !isGuard(name) })
	maps.DeleteFunc(rest.Counters, func(name string, _ bool) bool { return !isGuard(name) })
	clear(rest.Flowtables)
	clear(rest.Extra)
	return Diff(have, rest)
}

func isGuard(name string) bool { return strings.HasPrefix(name, guardPrefix) }

// moreElements are the elements of old and, where old says nothing, of add.
// Intervals that overlap become one.
func moreElements(old, add Set) map[string]string {
	out := maps.Clone(add.Elements)
	if !old.Interval {
		maps.Copy(out, old.Elements)
		return out
	}
	out = map[string]string{}
	for _, s := range union(spansOf(old), spansOf(add)) {
		out[s.String()] = ""
	}
	return out
}

// spansOf are the intervals of a set, ascending.
func spansOf(s Set) []span {
	var out []span
	for key := range s.Elements {
		if sp, err := parseSpan(key); err == nil {
			out = append(out, sp)
		}
	}
	slices.SortFunc(out, func(a, b span) int { return a.lo.Compare(b.lo) })
	return out
}
