// Package flows counts and ends the translated flows in conntrack. It finds
// them by their ct mark, which is the packet mark that classification gave
// them, and reads conntrack's own counters.
//
// Table is the kernel of one network namespace. Usage adds up how far the
// pool addresses are used. Package flowstest has the table in memory.
//
// The messages are our own (wire.go): no library streams a dump, ends an entry by
// the tuple and the zones that the kernel gave it, and stops when its context
// ends. Written against Linux 6.1, net/netfilter/nf_conntrack_netlink.c.
package flows

import (
	"fmt"
	"net/netip"
	"time"
)

// A Flow is one conntrack entry.
type Flow struct {
	// Mark is the whole ct mark, with bits of others if they set some.
	Mark uint32
	// Zone is the conntrack zone of the reply direction: the network's. The
	// original direction of a client's flow is in zone 0.
	Zone  uint16
	Proto uint8 // IANA protocol number

	// The original direction. Ports are 0 where the protocol has none. ICMP and
	// ICMPv6 have the identifier as SrcPort, and type << 8 | code as DstPort.
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16

	// Address and Port are the reply direction's destination: the pool address
	// and what the client's port became. For ICMP the port is the identifier.
	Address netip.Addr
	Port    uint16

	// Closed says that it is a TCP connection that has ended: conntrack keeps it
	// for up to two minutes for packets that are late (TIME_WAIT).
	Closed bool
	// Offloaded says that a flowtable forwards the flow. Such entries have no
	// Timeout.
	Offloaded bool
	// Timeout is what is left until the entry ends without another packet.
	Timeout time.Duration

	// Counters of both directions, 0 unless net.netfilter.nf_conntrack_acct was
	// on when the flow began.
	Sent, Received Counter
}

// A Counter counts packets and their bytes from the IP header on.
type Counter struct{ Packets, Bytes uint64 }

// A Result says what a sweep saw and did.
type Result struct {
	// Seen counts the entries that matched. An entry that begins or ends during
	// the sweep may be missed, and one may be seen twice while the kernel resizes
	// its table or, beyond the first 10,000 or so cuts of one sweep, ends others.
	Seen int
	// Cut counts those that the sweep ended. Entries that ended by themselves
	// between judgement and cut are not among them.
	Cut int
	// ByMark counts the entries seen by their whole ct mark, for the first MaxMarks
	// marks; Unlisted counts the entries with other marks.
	ByMark   map[uint32]int
	Unlisted int
}

// MaxMarks bounds Result.ByMark.
const MaxMarks = 1 << 16

// Count adds a flow to Seen and to ByMark or Unlisted.
func (r *Result) Count(mark uint32) {
	r.Seen++
	n, listed := r.ByMark[mark]
	if !listed && len(r.ByMark) >= MaxMarks {
		r.Unlisted++
		return
	}
	if r.ByMark == nil {
		r.ByMark = map[uint32]int{}
	}
	r.ByMark[mark] = n + 1
}

// CheckFilter refuses what would match foreign entries by mistake (an empty
// mask) or nothing at all (a mark outside of its mask).
func CheckFilter(mark, mask uint32) error {
	switch {
	case mask == 0:
		return fmt.Errorf("mask of mark %#x is empty: it would match everybody's flows", mark)
	case mark&^mask != 0:
		return fmt.Errorf("mark %#x has bits outside of mask %#x: it would match nothing", mark, mask)
	}
	return nil
}

// Stats are conntrack's counters. All but Count and Max are sums over the CPUs of
// counters that wrap at 32 bits each and begin with the namespace.
type Stats struct {
	Count uint64 // entries in this namespace
	Max   uint64 // nf_conntrack_max, which every namespace may use up by itself

	// InsertFailed counts packets dropped because their flow's tuple was taken
	// when it was to be entered: what a pool address without a free port looks like.
	InsertFailed uint64
	// Drop counts new flows refused because the table was full, EarlyDrop those
	// that had to go for a new one.
	Drop, EarlyDrop uint64
	Invalid         uint64 // packets that conntrack could not place
}
