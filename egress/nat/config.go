// Package nat renders and keeps Egret's nftables table: the guards that let
// nothing untranslated out, the classification of client traffic, conntrack
// zones and marks, and source translation to pool addresses.
//
// Render(Config) is pure and gives a Ruleset, a Renderer the same incrementally;
// Table.Snapshot reads the kernel's Ruleset back; Diff(have, want) is pure and
// gives a Plan of printable operations; Table.Apply carries a Plan out as one
// atomic transaction.
//
// Needs nft >= 1.0.1; written against nft 1.0.6 and Linux 6.1.
package nat

import "net/netip"

// The mark word. Packets of client interfaces and uplinks are cleared of our
// bits when they enter, so that nobody can bring in a mark of ours; the bits
// outside MarkMask (0x4000 and 0x8000 are kube-proxy's) stay as they are.
const (
	// MarkMask are the bits of the packet mark and the ct mark that are ours.
	MarkMask uint32 = 0x3fff0fff
	// EgressMark is the bit that every Exit.Mark has and nothing else.
	EgressMark uint32 = 0x10000000
)

// Marks of hop set 0, which no exit has: how classification (before conntrack)
// tells the mangle hook (after it) what to do with a packet. The others of hop
// set 0 stand for spreads, for as long as classification takes. Should a packet
// ever keep one of them, the catch-all routing rule for EgressMark stops it.
const (
	markDrop      = EgressMark | 1
	markReject    = EgressMark | 2
	markUnmatched = EgressMark | 3
	// The exit takes no new flows; established ones go on.
	markRefuseDrop   = EgressMark | 4
	markRefuseReject = EgressMark | 5
)

// Config is what the table should do. The order of its slices carries no
// meaning.
//
// Device names are 1 to 15 bytes without quotes, backslashes, asterisks, slashes
// and white space (Render panics otherwise: the caller validates what a user
// wrote). References to an exit or a network that is not there fail closed.
type Config struct {
	// ClientInterfaces are the devices client traffic enters by. A device that
	// is also a port of a network counts as a port.
	ClientInterfaces []string
	// ClientPrefixes are the sources that may be classified at all; traffic
	// between them is never classified.
	ClientPrefixes []netip.Prefix
	// ReturnMark is set on packets in the reply direction of translated flows
	// that enter by an uplink, so that their route is looked up on the client
	// side. It lies within MarkMask; 0 sets nothing.
	ReturnMark uint32
	Networks   []Network
	Pools      []Pool
	Exits      []Exit
	Spreads    []Spread
	Policies   []Policy
	// DropUnmatched drops clients of ClientPrefixes that no policy names,
	// instead of routing them normally.
	DropUnmatched bool
	// Silent drops where a client would be told of a refusal: for clients behind
	// tunnels. A packet out of a tunnel in external mode carries the tunnel's data in
	// place of a route until it is routed, and Linux 6.1 crashes when it is rejected
	// before that (nf_send_reset).
	Silent bool
	// FlowDevices are the devices between which established flows are offloaded
	// to a software flowtable: client interfaces and ports, all of which must
	// exist. Without any there is no flowtable. Routes and routing rules reach
	// what is offloaded at once; an edit of a policy or of an exit does when the
	// flow's conntrack entry is deleted.
	FlowDevices []string
}

// Network is one external network as the packet filter sees it.
type Network struct {
	Name string
	// Device is the VRF device; Ports are the uplinks enslaved to it.
	Device string
	Ports  []string
	// Zone is the network's conntrack zone, 1 to 65535.
	Zone uint16
	// Sources are the pool prefixes of this network, the only sources besides
	// Own that may leave by its ports.
	Sources []netip.Prefix
	// Own are this node's addresses on the ports (BGP, probes, ICMP errors).
	Own []netip.Addr
}

// Pool is a set of addresses that clients are translated to in one network.
type Pool struct {
	Name    string
	Network string
	// ID is in the PoolMask bits of every mark that translates to this pool: 1 to
	// 4095. Pools that share one are closed, and so is one without.
	ID uint16
	// Pool4 and Pool6 are the addresses clients are translated to. A family
	// without addresses is dropped. Up to some thousand addresses are reasonable:
	// Buckets takes 45 ms for 1024.
	Pool4, Pool6 []netip.Addr
	// PerFlow chooses the address by client, destination and their ports (if the
	// protocol has them) instead of by client alone: the client does not keep its
	// address, and no address runs out of ports while another has some.
	PerFlow bool
}

// PoolMask are the bits of a mark that name its pool.
const PoolMask uint32 = 0x00000fff

// hopSetMask are the bits of a mark that name its hop set.
const hopSetMask uint32 = 0x0fff0000

// Spread chooses one of several exits by the client's address, so that a client
// keeps its exit. There are at most 4090; those beyond, by name, drop.
type Spread struct {
	Name string
	// Exits are names of exits by bucket: a client whose ClientBucket is i goes to
	// Exits[i]. Its length is a power of two of at most 1024, so that it can be
	// changed with few clients moving. An exit that is not there drops.
	Exits []string
}

// Exit is one way out: a set of next hops in a network, and a pool.
type Exit struct {
	// Name identifies the exit in rules, chains and status: "<network>.<pool>".
	Name    string
	Network string
	// Mark is the packet mark and ct mark of traffic of this exit: EgressMark,
	// a hop set other than 0 (bits 16 to 27), the ID of its pool and nothing
	// outside MarkMask. An exit with another mark is closed: its traffic is
	// dropped.
	Mark uint32
	// Pool is the name of a pool of the same network. Without one the exit is
	// closed.
	Pool string
	// Fallback routes new flows normally, untranslated, instead of to the exit;
	// those that are established stay with it.
	Fallback bool
	// Refuse says what happens to new flows of an exit that takes none: Drop or
	// Reject; those that are established stay with it. Anything else refuses none.
	Refuse Action
}

// Action is what a rule does with its traffic.
type Action uint8

// The actions of a rule.
const (
	// Skip routes the traffic normally, untranslated by us.
	Skip Action = iota
	// ToExit sends it to the Exit, or the Spread, the rule names.
	ToExit
	// Drop discards it silently.
	Drop
	// Reject discards it and tells the client (TCP reset or ICMP unreachable).
	Reject
)

// Policy binds clients to rules. The longest client prefix over all policies
// decides which policy a client has.
type Policy struct {
	Name    string
	Clients []netip.Prefix
	Rules   []Rule
}

// Rule is one destination of a policy. The longest destination wins.
type Rule struct {
	Destination netip.Prefix
	Action      Action
	// Exit is the Exit.Name or the Spread.Name of a ToExit rule. The two share one
	// name space.
	Exit string
}
