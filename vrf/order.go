package vrf

import (
	"slices"
	"strings"
)

// ip6DefaultMetric is what the kernel makes of metric 0 in IPv6 (IP6_RT_PRIO_USER).
const ip6DefaultMetric = 1024

// takeRoutes copies the wanted routes, sorted by key. There may be 100,000 of them,
// mostly in order already, so they are sorted and merged instead of put into maps, and
// not copied when there is nothing to do.
func (p *planner) takeRoutes(routes []Route) {
	p.routes = routes
	if !slices.ContainsFunc(routes, Route.odd) && slices.IsSortedFunc(routes, compareRoutes) && !hasDoubles(routes) {
		return
	}
	p.routes = make([]Route, len(routes))
	for i, r := range routes {
		r.Prefix = r.Prefix.Masked()
		if r.Metric == 0 && r.Prefix.Addr().Is6() {
			r.Metric = ip6DefaultMetric
		}
		p.routes[i] = r
	}
	p.routes = sortRuns(p.routes, compareWanted)
	p.routes = slices.CompactFunc(p.routes, func(a, b Route) bool {
		if a != b && a.key() == b.key() {
			p.fail(p.networkOf[b.Table], "route %q is wanted twice", b.String())
		}
		return a.key() == b.key()
	})
}

// odd says that the kernel would show r otherwise.
func (r Route) odd() bool {
	return r.Prefix != r.Prefix.Masked() || (r.Metric == 0 && r.Prefix.Addr().Is6())
}

func hasDoubles(sorted []Route) bool {
	for i := range len(sorted) - 1 {
		if compareRoutes(sorted[i], sorted[i+1]) == 0 {
			return true
		}
	}
	return false
}

// compareWanted orders also routes of one key that contradict each other.
func compareWanted(a, b Route) int {
	if c := compareRoutes(a, b); c != 0 || a == b {
		return c
	}
	return strings.Compare(a.String(), b.String())
}

// sortRuns sorts a list that consists of few sorted runs, as the routes of one table
// after those of another, by merging them. It may overwrite list.
func sortRuns[T any](list []T, compare func(a, b T) int) []T {
	const maxRuns = 64
	starts := []int{0}
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) <= 0 {
			continue
		}
		if starts = append(starts, i); len(starts) > maxRuns {
			slices.SortFunc(list, compare)
			return list
		}
	}
	for spare := make([]T, 0, len(list)); len(starts) > 1; list, spare = spare, list[:0] {
		var merged []int
		for i := 0; i < len(starts); i += 2 {
			merged = append(merged, len(spare))
			middle, end := len(list), len(list)
			if i+1 < len(starts) {
				middle = starts[i+1]
			}
			if i+2 < len(starts) {
				end = starts[i+2]
			}
			spare = appendMerged(spare, list[starts[i]:middle], list[middle:end], compare)
		}
		starts = merged
	}
	return list
}

func appendMerged[T any](to, a, b []T, compare func(a, b T) int) []T {
	for len(a) > 0 && len(b) > 0 {
		if compare(b[0], a[0]) < 0 {
			to, b = append(to, b[0]), b[1:]
		} else {
			to, a = append(to, a[0]), a[1:]
		}
	}
	return append(append(to, a...), b...)
}
