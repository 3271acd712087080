// Package nat renders and keeps Egret's nftables table: the guards that let
// nothing untranslated out, the classification of client traffic, conntrack
// zones and marks, and source translation to pool addresses.
//
// Render(Config) is pure and gives a Ruleset; Table.Snapshot reads the kernel's
// Ruleset back; Diff(have, want) is pure and gives a Plan of printable
// operations; Table.Apply carries a Plan out as one atomic transaction.
//
// Needs nft >= 1.0.1; written against nft 1.0.6 and Linux 6.1.
package nat

import "net/netip"

// Config is what the table should do. The order of its slices carries no
// meaning.
type Config struct {
	// ClientInterfaces are the devices client traffic enters by.
	ClientInterfaces []string
	// ClientPrefixes are the sources that may be classified at all; traffic
	// between them is never classified.
	ClientPrefixes []netip.Prefix
	// ReturnMark is set on packets in the reply direction that enter by an
	// uplink, so that their route is looked up on the client side.
	ReturnMark uint32
	Networks   []Network
	Exits      []Exit
	Policies   []Policy
	// DropUnmatched drops clients of ClientPrefixes that no policy names,
	// instead of routing them normally.
	DropUnmatched bool
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

// Exit is one way out: a set of next hops in a network, and a pool.
type Exit struct {
	// Name identifies the exit in rules, chains and status: "<network>.<pool>".
	Name    string
	Network string
	// Mark is the whole packet mark and ct mark of traffic of this exit.
	Mark uint32
	// Pool4 and Pool6 are the addresses clients are translated to. A family
	// without addresses is dropped.
	Pool4, Pool6 []netip.Addr
}

// Action is what a rule does with its traffic.
type Action uint8

// The actions of a rule.
const (
	// Skip routes the traffic normally, untranslated by us.
	Skip Action = iota
	// ToExit sends it to the Exit the rule names.
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
	// Exit is the Exit.Name of a ToExit rule.
	Exit string
}
