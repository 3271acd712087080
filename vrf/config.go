// Package vrf owns everything that Egret keeps in the kernel's routing: VRF
// devices, the ports enslaved to them, addresses, next-hop objects and groups,
// routes and policy rules.
//
// The package is a planner with a thin edge. Config says what should exist,
// Snapshot what the kernel has, Diff(have, want) is pure and yields a Plan of
// printable operations, Kernel.Apply carries a Plan out. What is ours is
// recognised (Owner), never remembered; everything else is foreign and never
// appears in a Plan.
//
// Minimum kernel: 5.18 (IFA_PROTO marks the addresses we add).
package vrf

import (
	"net/netip"
	"time"
)

// TableID is a kernel routing table (RTA_TABLE).
type TableID uint32

// NextHopID is the id of a next-hop object or group (NHA_ID).
type NextHopID uint32

// Mark is a packet mark (skb->mark) as a policy rule matches it.
type Mark uint32

// Range is an inclusive range of ids.
type Range struct{ First, Last uint32 }

// Contains reports whether n lies in r.
func (r Range) Contains(n uint32) bool { return r.First <= n && n <= r.Last }

// Size is the number of ids in r.
func (r Range) Size() uint32 { return r.Last - r.First + 1 }

// Owner says how our objects are recognised in a kernel that others use too.
type Owner struct {
	// Alias is the first field of the interface alias of every device we made:
	// "<Alias>:<network>:<index>" for a VRF, "<Alias>:port" for a VLAN,
	// "<Alias>:tunnel", "<Alias>:loop" and "<Alias>:loop-peer" for the others.
	Alias string
	// Protocol is the route protocol (rtm_protocol) of the routes, rules,
	// next-hop objects and addresses (IFA_PROTO) that follow from the Spec.
	Protocol uint8
	// LearnedProtocol is the route protocol of routes learned by BGP.
	LearnedProtocol uint8
	// NextHopIDs is the range our next-hop objects and groups live in.
	NextHopIDs Range
	// RulePriorities is the range our policy rules live in.
	RulePriorities Range
}

// Config is everything that should exist. The order of its slices carries no
// meaning, except the order of a Group's Members: that is the slot order.
type Config struct {
	VRFs     []VRF
	Tunnels  []TunnelDevice
	Loops    []Loop
	NextHops []NextHop
	Groups   []Group
	Routes   []Route
	Rules    []Rule
}

// VRF is one VRF device and what belongs to it.
type VRF struct {
	// Name is the device name, which is the network's name.
	Name string
	// Index is the network's stable number, carried in the alias.
	Index uint16
	Table TableID
	Ports []Port
	// Tables are further tables whose routes and rules belong to this network.
	// They are no property of the device: a Snapshot leaves them empty.
	Tables []TableID
}

// Port is an uplink enslaved to a VRF: an existing device, or a VLAN that we
// create on a parent.
type Port struct {
	Name string
	// VLAN, when set, makes the port ours: created, and deleted with its network.
	VLAN *VLAN
	// Addresses are added when missing (with IFA_PROTO = Owner.Protocol) and
	// removed when no longer wanted. Addresses that others put on the port stay.
	Addresses []netip.Prefix
}

// VLAN is an 802.1Q sub-interface.
type VLAN struct {
	Parent string
	ID     uint16
}

// NextHop is a single next-hop object. Its content never changes under one ID:
// a different content needs a different ID (see NextHopIDFor).
type NextHop struct {
	ID NextHopID
	// Gateway is invalid for a device next hop or a blackhole.
	Gateway netip.Addr
	Device  string
	// OnLink skips the kernel's check that Gateway is on a connected prefix.
	OnLink bool
	// Blackhole drops silently. Gateway and Device are then empty.
	Blackhole bool
	// IPv6 is the family; it must agree with Gateway when that is valid.
	IPv6 bool
	// Tunnel, when its Endpoint is valid, is where Device, a TunnelDevice of whomever,
	// sends the packets. Gateway is then invalid.
	Tunnel Tunnel
}

// Group is a next-hop group (NEXTHOP_GRP_TYPE_MPATH, or _RES when Resilient). It
// cannot be empty; a group of one blackhole is how it fails closed.
type Group struct {
	ID NextHopID
	// Members in slot order. Replacing the member of one slot moves only the
	// flows of that slot.
	Members []Member
	// Resilient is the zero value for a hash-threshold group. A group cannot
	// change between the two kinds, nor its number of buckets, under one ID.
	Resilient Resilient
}

// Resilient makes a group of the resilient kind (NEXTHOP_GRP_TYPE_RES, kernel
// 5.13): a flow's bucket keeps its next hop while that is a member, so that a
// lost member moves its own flows only, and a new one takes idle buckets.
//
// Seen on Linux 6.1 and 6.18, in both families: a resilient group may have one member, also
// a blackhole, and fewer buckets than members; one message changes its members, their
// weights and its timers; the loss of a carrier takes a member out, and with the last
// one the group and its routes go, as with the other kind.
type Resilient struct {
	// Buckets is the size of the hash table; 0 means that the group is not
	// resilient.
	Buckets uint16
	// IdleTimer is how long a bucket must be without traffic before it may move
	// to a member that has too few; UnbalancedTimer is after how long it is moved
	// in any case, 0 for never. In steps of 10 ms; the kernel counts in its own
	// ticks and may show 10 ms less.
	IdleTimer, UnbalancedTimer time.Duration
}

// Member is one slot of a group.
type Member struct {
	ID NextHopID
	// Weight is 1 to 255; kernels before 6.12 refuse 256.
	Weight uint16
}

// RouteType is the kernel's route type.
type RouteType uint8

// The route types Egret uses; the values are the kernel's RTN_*.
const (
	Unicast     RouteType = 1
	Local       RouteType = 2 // only in a RouteAnswer
	Blackhole   RouteType = 6
	Unreachable RouteType = 7
	Prohibit    RouteType = 8
)

// Route is one route of ours. Table, Prefix and Metric are its key.
type Route struct {
	Table  TableID
	Prefix netip.Prefix
	Metric uint32
	Type   RouteType
	// NextHop is a NextHop or Group id; 0 unless Type is Unicast.
	NextHop NextHopID
	// Learned routes carry Owner.LearnedProtocol.
	Learned bool
}

// RuleAction is what a matching policy rule does.
type RuleAction uint8

// The rule actions Egret uses; the values are the kernel's FR_ACT_*.
const (
	RuleLookup      RuleAction = 1
	RuleGoto        RuleAction = 2
	RuleBlackhole   RuleAction = 6
	RuleUnreachable RuleAction = 7
	RuleProhibit    RuleAction = 8
)

// Rule is one policy rule of ours, matching packets by mark.
type Rule struct {
	Priority uint32
	IPv6     bool
	Mark     Mark
	Mask     Mark
	Action   RuleAction
	// Table is the table of a RuleLookup, else 0.
	Table TableID
	// Target is the priority that a RuleGoto jumps to, greater than its own, else
	// 0. Without a rule at the target the kernel skips the goto.
	Target uint32
}
