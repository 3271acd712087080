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
	sortRuns(p.routes, compareWanted)
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

// sortRuns sorts list in place. It may consist of few sorted runs, as the routes of one
// table after those of another: they are merged, the shortest first.
func sortRuns[T any](list []T, compare func(a, b T) int) {
	const maxRuns = 64
	bounds := []int{0} // where runs begin, and the end
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) <= 0 {
			continue
		}
		if bounds = append(bounds, i); len(bounds) > maxRuns {
			slices.SortFunc(list, compare)
			return
		}
	}
	bounds = append(bounds, len(list))
	for len(bounds) > 2 {
		shortest := 1
		for i := 2; i+1 < len(bounds); i++ {
			if bounds[i+1]-bounds[i-1] < bounds[shortest+1]-bounds[shortest-1] {
				shortest = i
			}
		}
		mergeRuns(list[bounds[shortest-1]:bounds[shortest+1]], bounds[shortest]-bounds[shortest-1], compare)
		bounds = slices.Delete(bounds, shortest, shortest+1)
	}
}

// mergeRuns merges the two sorted runs of list, the second of which begins at middle.
// What is in its place at both ends is left there.
func mergeRuns[T any](list []T, middle int, compare func(a, b T) int) {
	first, _ := slices.BinarySearchFunc(list[:middle], list[middle], compare)
	last, _ := slices.BinarySearchFunc(list[middle:], list[middle-1], compare)
	list, middle = list[first:middle+last], middle-first
	a, b := slices.Clone(list[:middle]), list[middle:]
	for at := 0; len(a) > 0 && len(b) > 0; at++ { // never reaches what is left of b
		if compare(b[0], a[0]) < 0 {
			list[at], b = b[0], b[1:]
		} else {
			list[at], a = a[0], a[1:]
		}
	}
	copy(list[len(list)-len(b)-len(a):], a)
}
