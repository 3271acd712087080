package egress

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
)

// hopSet is where a rule sends traffic of one family: the routes of a network,
// or next hops by name, and how many of them one client's traffic may use.
type hopSet struct {
	network string
	v6      bool
	// named are the next hops of the rule, sorted by address; nil stands for the
	// network's routes.
	named []NextHop
	// bound is the highest number of next hops for a client; 0 is none.
	bound int
}

// plain means that the set is the network itself: its own mark and table.
func (s *hopSet) plain() bool { return s.named == nil && s.bound == 0 }

// key names the set: equal sets have equal keys.
func (s *hopSet) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s|%s|%d|", s.network, familyName(s.v6), s.bound)
	for _, h := range s.named {
		fmt.Fprintf(&b, "%s*%d^%d,", h.Address, max(h.Weight, 1), h.Preference)
	}
	return b.String()
}

// id is a short name for chains and maps, unique for all that matters: 48 bits.
func (s *hopSet) id() string { return fmt.Sprintf("%012x", hash48(s.key())) }

func familyName(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}

// setOf is the hop set of a rule.
func setOf(rule Rule, networkBound int) *hopSet {
	s := &hopSet{network: rule.Network, v6: rule.Destination.Addr().Is6(), bound: cmp.Or(rule.MaxNextHops, networkBound)}
	if len(rule.NextHops) == 0 {
		return s
	}
	s.named = slices.SortedFunc(slices.Values(rule.NextHops), func(a, b NextHop) int { return a.Address.Compare(b.Address) })
	if s.bound >= len(s.named) {
		s.bound = 0
	}
	return s
}

// ringPosition orders next hops for everybody in the same way, and without
// regard to the neighbourhood of their addresses.
func ringPosition(a netip.Addr) uint64 { return Hash64("ring|" + a.String()) }

// fromAnchor orders hops on the ring, beginning at the anchor's place. The
// anchor need not be among them.
func fromAnchor(hops []hop, anchor netip.Addr) []hop {
	if !anchor.IsValid() {
		return hops
	}
	start := ringPosition(anchor)
	type placed struct {
		hop
		distance uint64
	}
	ring := make([]placed, 0, len(hops))
	for _, h := range hops {
		ring = append(ring, placed{h, ringPosition(h.Gateway) - start})
	}
	slices.SortFunc(ring, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), a.Gateway.Compare(b.Gateway))
	})
	out := make([]hop, 0, len(ring))
	for _, p := range ring {
		out = append(out, p.hop)
	}
	return out
}

// Hash64 is FNV-1a, finished so that texts that are alike are not near each other.
func Hash64(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// hash48 is a hash that fits into a marker.
func hash48(s string) uint64 { return Hash64(s) >> 16 }

// marker is what tells a path's table after a restart.
type marker struct {
	network    uint16 // index
	generation uint8  // 0 to 15
	hash       uint64 // 48 bits
}

// markerBase is the discard-only prefix of RFC 6666.
var markerBase = netip.MustParsePrefix("100::/64")

func (m marker) prefix() netip.Prefix {
	b := markerBase.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], uint64(m.network)<<52|uint64(m.generation&15)<<48|m.hash)
	return netip.PrefixFrom(netip.AddrFrom16(b), 128)
}

// markerOf reads what prefix writes.
func markerOf(p netip.Prefix) (marker, bool) {
	if p.Bits() != 128 || !markerBase.Contains(p.Addr()) {
		return marker{}, false
	}
	b := p.Addr().As16()
	n := binary.BigEndian.Uint64(b[8:])
	return marker{network: uint16(n >> 52), generation: uint8(n>>48) & 15, hash: n & (1<<48 - 1)}, true
}

// CountNumbers is how many numbers of a mark a Spec needs: one for each network
// and each path, of those that can be told without knowing learned routes. It
// also counts the combinations of a hop set with a pool.
func CountNumbers(spec *Spec) (numbers, spreads int) {
	c := compile(spec)
	numbers = len(spec.Networks)
	for _, sets := range c.sets {
		for _, s := range sets {
			numbers += max(1, len((&table{}).anchors(s)))
			spreads += len(c.uses[s.key()])
		}
	}
	return numbers, spreads
}
