package egress

import (
	"hash/fnv"
	"slices"

	"github.com/egret-router/egret/vrf"
)

// The mark word of client and uplink packets. Bits 12-15 stay clear: 0x4000
// and 0x8000 are kube-proxy's.
const (
	// markReturn is on packets from an uplink in the reply direction.
	markReturn vrf.Mark = 0x20000000
	// markEgress is on every packet that a policy sends to a network.
	markEgress vrf.Mark = 0x10000000
	// maskHopSet covers markEgress and the hop-set number.
	maskHopSet vrf.Mark = 0x1fff0000
)

// hopSetBit is where the hop-set number begins in the mark.
const hopSetBit = 16

// maxIndex bounds networks and pools: 12 bits each, 0 unused.
const maxIndex = 4095

// hopSetMark is the mark of a network's policy traffic under maskHopSet.
func hopSetMark(index uint16) vrf.Mark { return markEgress | vrf.Mark(index)<<hopSetBit }

// exitMark is the whole mark of an exit: hop set and pool.
func exitMark(network, pool uint16) vrf.Mark { return hopSetMark(network) | vrf.Mark(pool) }

// assignIndexes gives each name a number in 1..maxIndex: the one it already
// has, else the hash of its name, probing upwards over numbers that are taken or
// reserved. The result depends on the sets alone, not on their order.
func assignIndexes(names []string, held map[string]uint16, reserved ...uint16) map[string]uint16 {
	out := make(map[string]uint16, len(names))
	taken := make(map[uint16]bool, len(names)+len(held)+len(reserved))
	for _, n := range held {
		taken[n] = true
	}
	for _, n := range reserved {
		taken[n] = true
	}
	sorted := slices.Sorted(slices.Values(names))
	for _, name := range sorted {
		if n, ok := held[name]; ok && n >= 1 && n <= maxIndex {
			out[name] = n
			continue
		}
		n := uint16(hash(name)%maxIndex) + 1
		for taken[n] && len(taken) < maxIndex {
			n = n%maxIndex + 1
		}
		taken[n] = true
		out[name] = n
	}
	return out
}

func hash(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// numbers hands out the numbers of paths, which share theirs with networks.
type numbers struct{ taken map[uint16]bool }

func newNumbers(indexes map[string]uint16, paths []AdoptedPath) *numbers {
	n := &numbers{taken: make(map[uint16]bool, len(indexes)+len(paths))}
	for _, i := range indexes {
		n.taken[i] = true
	}
	for _, p := range paths {
		n.taken[p.Number] = true
	}
	return n
}

// take gives the first free number from the name's hash upwards, false when
// there is none.
func (n *numbers) take(name string) (uint16, bool) {
	if len(n.taken) >= maxIndex {
		return 0, false
	}
	i := uint16(hash(name)%maxIndex) + 1
	for n.taken[i] {
		i = i%maxIndex + 1
	}
	n.taken[i] = true
	return i, true
}
