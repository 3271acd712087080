package egress

import (
	"net/netip"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
	"github.com/egret-router/egret/vrf"
)

// Spec is everything the user asked for, validated. It is immutable: a reload
// makes a new one.
type Spec struct {
	Clients  Clients
	Networks []Network
	Pools    []Pool
	Policies []Policy
	Settings Settings
}

// Clients is where client traffic enters this node.
type Clients struct {
	Interfaces []string
	// Prefixes are the sources a policy may name, and destinations that are
	// never sent to an external network.
	Prefixes []netip.Prefix
	// DropUnmatched drops clients that no policy names (clients.unmatched: drop).
	DropUnmatched bool
	// ReturnTable is the table replies to clients are looked up in; 0 means main.
	ReturnTable vrf.TableID
	// Returns lead back to clients behind tunnels, whose devices somebody else makes
	// and Interfaces lists. They are put into ReturnTable, which must not be 0 then;
	// in it, what no route knows is unreachable.
	Returns []Return `json:",omitempty"`
	// BGP tells the clients' routers what can be reached by this gateway; nil is
	// without.
	BGP *ClientBGP `json:",omitempty"`
}

// Return is the way back to some clients. Of two with one prefix the first counts.
type Return struct {
	Prefix netip.Prefix
	// Device is where they are, without a gateway: a tunnel, or the end of a loop.
	// While it is down, or not there, so is the route.
	Device string
	// Tunnel is where in the tunnel they are; its Endpoint is invalid for other
	// devices.
	Tunnel vrf.Tunnel
}

// ClientBGP is the speaker in the default VRF. It takes no routes from anybody.
type ClientBGP struct {
	// BGP has no Advertise of its own.
	BGP
	// Policies advertises the destinations of all rules that lead to networks,
	// with Attributes.
	Policies   bool
	Attributes bgp.Attributes
	// Reach are further prefixes, and what Policies would say otherwise of one.
	Reach []ClientReach
}

// ClientReach is a prefix that is advertised to the clients' routers while one of
// the networks is up.
type ClientReach struct {
	Prefix     netip.Prefix
	Networks   []string
	Attributes bgp.Attributes
}

// Network is one external network: a VRF on this node.
type Network struct {
	Name string
	// Table is 0 when the user leaves the choice to us.
	Table        vrf.TableID
	Ports        []vrf.Port
	StaticRoutes []StaticRoute
	// BGP is nil for a network without a speaker.
	BGP    *BGP
	Probes []probes.Config
	// MaxNextHops bounds the next hops that carry one client's traffic, for rules
	// that do not say otherwise; 0 is no bound.
	MaxNextHops int
	// NextHopProbes are templates without targets: one of each is made for every
	// next hop of the network, which is used while all of them are up.
	NextHopProbes []probes.Config
	// NextHopBFD are further templates: BFD sessions without a peer.
	NextHopBFD []bfd.Config `json:",omitempty"`
	// Failback says what happens when a next hop returns whose place a spare has
	// taken.
	Failback Failback
	// OnNoNextHop is what happens to policy traffic while the network is down.
	OnNoNextHop NoNextHop
}

// NoNextHop says what happens to traffic of a network that is down.
type NoNextHop string

// Drop discards silently; Reject answers ICMP unreachable (prohibited).
const (
	NoNextHopDrop   NoNextHop = "drop"
	NoNextHopReject NoNextHop = "reject"
	// NoNextHopFallback routes new flows normally, untranslated; established
	// ones are dropped.
	NoNextHopFallback NoNextHop = "fallback"
)

// Failback says what happens when a next hop returns.
type Failback string

// FailbackNewFlows gives the next hop its place back for new flows; those that
// are established stay with the spare. FailbackNever leaves the spare in place
// until it fails itself.
const (
	FailbackNewFlows Failback = "newFlows"
	FailbackNever    Failback = "never"
)

// NextHop is a gateway that a rule or a static route names.
type NextHop struct {
	Address netip.Addr
	// Weight is the share of flows, 1 to 255; 0 means 1.
	Weight uint16
	// Preference: next hops of the highest preference are used while one of them
	// works.
	Preference uint16
}

// StaticRoute is a route through gateways on the network's links.
type StaticRoute struct {
	Prefix   netip.Prefix
	NextHops []NextHop
}

// BGP is a network's speaker.
type BGP struct {
	ASN      uint32
	RouterID netip.Addr
	// ListenPort as in bgp.Config.
	ListenPort      int
	Peers           []bgp.Peer
	GracefulRestart *bgp.GracefulRestart
	// BFD are the sessions with peers: while one that has been up is down, so is
	// the BGP session. A peer one hop away in a network with NextHopBFD has that
	// session, and its entry here names it.
	BFD []bfd.Config `json:",omitempty"`
	// Advertise are prefixes that are advertised by name while the network is up,
	// beside its pools: their aggregate, say. What no pool has of them is discarded.
	Advertise []bgp.Advertisement
}

// AdvertiseAs is the form in which a pool is advertised.
type AdvertiseAs string

// The forms of advertising a pool. The zero value means AdvertiseBlocks.
const (
	// AdvertiseBlocks advertises the prefixes as they are written.
	AdvertiseBlocks AdvertiseAs = "blocks"
	// AdvertiseAggregate merges adjoining prefixes, also those of several pools
	// of a network with the same attributes.
	AdvertiseAggregate AdvertiseAs = "aggregate"
	// AdvertiseHosts advertises each address that clients are given.
	AdvertiseHosts AdvertiseAs = "hosts"
	// AdvertiseNone leaves the pool to a prefix that is advertised by name.
	AdvertiseNone AdvertiseAs = "none"
)

// Pool is a set of egress addresses inside one network.
type Pool struct {
	Name     string
	Network  string
	Prefixes []netip.Prefix
	// Advertise is the form in which the pool is advertised, Attributes what goes
	// along.
	Advertise  AdvertiseAs
	Attributes bgp.Attributes
	// PerFlow spreads flows over the addresses instead of clients: a client does
	// not keep its address, but can use the ports of all of them.
	PerFlow bool
}

// Policy says which clients go where.
type Policy struct {
	Name    string
	Clients []netip.Prefix
	Rules   []Rule
	// Missing is a policy that clients are bound to and that does not exist: they
	// are blocked.
	Missing bool
	// Cut ends established flows that an edit of this policy sends elsewhere;
	// else they stay where they are.
	Cut bool
}

// Action is what a rule does.
type Action string

// The actions of a rule. A rule without a target is a skip.
const (
	ActionSkip    Action = "skip"
	ActionNetwork Action = "network"
	ActionDrop    Action = "drop"
	ActionReject  Action = "reject"
)

// Rule is one destination of a policy. A rule without a destination in the
// file becomes two: 0.0.0.0/0 and ::/0.
type Rule struct {
	Destination netip.Prefix
	Action      Action
	// Network and Pool are the target of ActionNetwork.
	Network, Pool string
	// NextHops replaces the network's routes: this traffic goes to these gateways,
	// of the destination's family.
	NextHops []NextHop
	// MaxNextHops bounds the next hops that carry one client's traffic; 0 is no
	// bound.
	MaxNextHops int
	Description string
}

// Settings are the daemon's own.
type Settings struct {
	// MetricsListen is the address of the Prometheus endpoint; "" is off.
	MetricsListen string
	// RunDir holds the control socket and the sysctl record.
	RunDir string
	// BFDLinger is how long BFD sessions go on without a daemon.
	BFDLinger time.Duration
	// Resync is the period of the full comparison with the kernel.
	Resync time.Duration
	// Flowtable offloads established flows where the kernel can.
	Flowtable bool
	// Drain is what a drain does unless the one who asks says otherwise; its Cut
	// is false.
	Drain drain.Order
	// Shutdown is what happens when the daemon is told to end.
	Shutdown  Shutdown
	Ownership Ownership
}

// Shutdown is what happens when the daemon is told to end.
type Shutdown string

// ShutdownLeave leaves the data plane forwarding and lets routers keep our routes
// over a graceful restart, ShutdownDrain drains the gateway and takes leave.
const (
	ShutdownLeave Shutdown = "leave"
	ShutdownDrain Shutdown = "drain"
)

// Ownership are the ranges and numbers by which our objects are recognised.
type Ownership struct {
	Protocol, LearnedProtocol uint8
	NextHopIDs                vrf.Range
	RulePriorities            vrf.Range
	// TableBase + a network's index is its table, ZoneBase + index its zone.
	TableBase vrf.TableID
	ZoneBase  uint16
}

// Owner is the vrf package's view of it.
func (o Ownership) Owner() vrf.Owner {
	return vrf.Owner{Alias: "egret", Protocol: o.Protocol, LearnedProtocol: o.LearnedProtocol,
		NextHopIDs: o.NextHopIDs, RulePriorities: o.RulePriorities}
}

// DefaultOwnership is what holds unless the configuration says otherwise.
func DefaultOwnership() Ownership {
	return Ownership{
		Protocol: 108, LearnedProtocol: 109,
		NextHopIDs:     vrf.Range{First: 0x20000000, Last: 0x2fffffff},
		RulePriorities: vrf.Range{First: 800, Last: 999},
		TableBase:      10000, ZoneBase: 40000,
	}
}

// Problem is a user's mistake.
type Problem struct {
	// Field is the path of the offending field, e.g. "networks[1].bgp.peers[0].asn".
	Field   string
	Message string
}

// String is "field: message"; a problem of the whole file has no field.
func (p Problem) String() string {
	if p.Field == "" {
		return p.Message
	}
	return p.Field + ": " + p.Message
}
