package steer

import (
	"hash/fnv"
	"net/netip"
	"strconv"

	"github.com/egret-router/egret/vrf"
)

// What is ours on a node, beside a gateway that may be on it as well.
const (
	// TableName is our packet filter's table, of the family inet.
	TableName = "egret_agent"

	tableBase vrf.TableID = 20000
	// zone is the conntrack zone of the original direction of steered flows. A
	// gateway on this node sees the same flow once more, as its own.
	zone = 39999

	prioLookup = 610
	prioCatch  = 790

	metricGroup    = 20
	metricMarker   = 30
	metricTerminal = 4278198272
)

// Owner is how our routing objects are recognised.
func Owner() vrf.Owner {
	return vrf.Owner{
		Alias: "egret-agent", Protocol: 107, LearnedProtocol: 106, // no route of ours is learned
		NextHopIDs:     vrf.Range{First: 0x10000000, Last: 0x1fffffff},
		RulePriorities: vrf.Range{First: 600, Last: 799},
	}
}

// Markers say in a set's table which gateways it is of: one route for each, to an
// address of the discard-only prefix 100::/64 (RFC 6666), whose host part is a hash of
// the gateway's ID.
var markerPrefix = netip.MustParsePrefix("100::/64")

func markerOf(id string) netip.Addr {
	b := markerPrefix.Addr().As16()
	h := hash64(id)
	for i := range 8 {
		b[8+i] = byte(h >> (56 - 8*i))
	}
	return netip.AddrFrom16(b)
}

// hash64 is FNV-1a, finished so that all bits depend on all of s.
func hash64(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s)) // a hash.Hash never returns an error
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// hex names an object after a key of any length.
func hex(key string) string { return strconv.FormatUint(hash64(key), 16) }
