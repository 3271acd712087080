// Package steer is the data plane of a node whose pods are clients: it sends
// their traffic, by destination, to gateways on other nodes (or on this one)
// through a tunnel, over equal-cost next hops, and lets nothing else of theirs
// leave. It is planned like everything here: Config says what should be, a pure
// function yields routing objects and a packet filter, one goroutine applies.
//
// Packets travel as VXLAN-GPE (UDP 4790): IP without an Ethernet header, so that
// there are no neighbours to keep, and a next-hop object with an encapsulation
// for each gateway. Replies come back the same way and are routed normally.
package steer

import "net/netip"

// Config is what one node should steer. The order of its slices carries no
// meaning.
type Config struct {
	Tunnel Tunnel
	// MarkMask are the bits of marks of packets and flows that are ours, see
	// CheckMarkMask; 0 means DefaultMarkMask. It may change: flows of before are then
	// dropped until the next sweep has ended them.
	MarkMask uint32
	// Inside are destinations that are never steered: pods, services, nodes, and
	// what the user names.
	Inside []netip.Prefix
	// Local are the sources of this node's pods. A source of Local that is none of
	// Clients may send to Inside only: nothing leaves before the rules of a pod
	// are in place. Without Local that cannot be promised.
	Local []netip.Prefix
	// Turn is this node's place among all, in whatever order, from 0: where it begins to hand out the
	// gateways of bounded rules. With different ones, nodes of few pods load all
	// gateways alike. It concerns new clients only.
	Turn     int
	Clients  []Client
	Policies []Policy
	Gateways []Gateway
}

// Tunnel is the tunnel device of a node.
type Tunnel struct {
	// Device is made by us; Loop and its peer Loop+"0" are the way to a gateway on
	// this node: what is sent there enters as from the tunnel.
	Device string
	Loop   string
	// Local are this node's ends of the tunnel, at most one of each family.
	Local []netip.Addr
	Port  uint16
	VNI   uint32
	// MTU is that of the device; 0 means what the route to the gateways allows,
	// less 36 (IPv4) or 56 (IPv6) bytes.
	MTU int
}

// Client is an address of a pod on this node.
type Client struct {
	Address netip.Addr
	// Pod says whose address it is: addresses with one Pod get the same gateways.
	// "" is a pod of its own.
	Pod string
	// Policy is a name in Policies; "" is a pod without a policy, routed normally.
	Policy string
	// Blocked clients may send to Inside only; Policy is then ignored.
	Blocked bool
}

// Policy says where a client's traffic goes. What no rule matches is routed
// normally.
type Policy struct {
	Name  string
	Rules []Rule
}

// Rule is one destination.
type Rule struct {
	Destination netip.Prefix
	// Skip: routed normally.
	Skip bool
	// Gateways are the IDs of the candidates. While none of them can be used,
	// traffic is dropped.
	Gateways []string
	// PreferLocal: usable gateways on this node alone, if there are any.
	PreferLocal bool
	// MaxNextHops bounds the gateways that carry one client's traffic; 0 is no
	// bound. A client keeps its gateways as long as they can be used.
	MaxNextHops int
	// Target says over time which gateways are meant, when Gateways are what a
	// selector finds: bounded rules with one Target (and bound, and preference) are
	// one choice, which knows its clients again whatever Gateways become. "" means
	// Gateways themselves.
	Target string
}

// Gateway is one EgressGateway on one node.
type Gateway struct {
	// ID is namespace/name@node.
	ID string
	// Endpoints are its node's ends of the tunnel, at most one of each family; the
	// family of the packet inside does not matter.
	Endpoints []netip.Addr
	// Here means that it is on this node.
	Here bool
	// Draining gateways take no new flows.
	Draining bool
}
