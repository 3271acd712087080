package steer

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// choice says which set of gateways each client of a rule has. Either all have the
// same one, or there is one for each usable gateway as anchor: the bound's number of
// gateways from the anchor on, on a ring ordered by hash. So a rule has at most as many
// sets as it has gateways, every gateway is in as many of them as any other, and the
// loss of one changes those sets only that it is in.
type choice struct {
	// all is the one set; nil when there are anchors.
	all []string
	// ring are the anchors, and of each the set.
	ring []string
	sets map[string][]string
}

// choose makes the choice among usable gateways; bound 0 is no bound.
func choose(usable []string, bound int) choice {
	if bound <= 0 || bound >= len(usable) {
		return choice{all: slices.Sorted(slices.Values(usable))}
	}
	ring := slices.SortedFunc(slices.Values(usable), func(a, b string) int {
		return cmp.Or(cmp.Compare(hash64("ring "+a), hash64("ring "+b)), strings.Compare(a, b))
	})
	c := choice{ring: ring, sets: make(map[string][]string, len(ring))}
	for i, anchor := range ring {
		set := make([]string, 0, bound)
		for j := range bound {
			set = append(set, ring[(i+j)%len(ring)])
		}
		slices.Sort(set)
		c.sets[anchor] = set
	}
	return c
}

// of is the set of one client. A client keeps its anchor as long as that is usable
// (rendezvous hashing), whatever else comes and goes.
func (c choice) of(client netip.Addr) []string {
	if c.all != nil || len(c.ring) == 0 {
		return c.all
	}
	best, anchor := uint64(0), ""
	text := client.String()
	for _, a := range c.ring {
		if h := hash64(text + " " + a); anchor == "" || h > best {
			best, anchor = h, a
		}
	}
	return c.sets[anchor]
}

// list is every set that a client may have, each once.
func (c choice) list() [][]string {
	if c.all != nil {
		return [][]string{c.all}
	}
	var out [][]string
	for _, anchor := range c.ring {
		set := c.sets[anchor]
		if !slices.ContainsFunc(out, func(o []string) bool { return slices.Equal(o, set) }) {
			out = append(out, set)
		}
	}
	return out
}
