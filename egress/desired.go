package egress

import (
	"net/netip"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
	"github.com/egret-router/egret/vrf"
)

// Desired is what should exist, in the words of each edge, and why.
type Desired struct {
	Kernel  vrf.Config
	NAT     nat.Config
	BGP     []bgp.Config
	Probes  []probes.Config
	BFD     []bfd.Config
	Sysctls []sysctl.Setting
	// Networks are the decisions taken, sorted by name.
	Networks []NetworkDecision
	// sets are the numbers that are active for a hop set, by its key.
	sets map[string]map[uint16]bool
	// objects are the next-hop objects and how the groups were filled.
	objects *objects
}

// NetworkDecision is what Resolve decided on one network.
type NetworkDecision struct {
	Name  string
	Index uint16
	Table vrf.TableID
	Zone  uint16
	Mark  vrf.Mark
	// Up means: policy traffic is let in, and the pools may be advertised.
	Up bool
	// Reason says why a network is not up, or why it is although not proven.
	Reason string
	// NextHops are the gateways known in this network, sorted.
	NextHops []NextHopDecision
	// StaticRoutes and LearnedRoutes count the routes wanted in the table;
	// Unresolved those left out because no next hop is on a connected prefix.
	StaticRoutes, LearnedRoutes, Unresolved int
	// Paths are the network's paths, by number; Exhausted counts those that found
	// no number, whose traffic is dropped.
	Paths     []PathDecision
	Exhausted int
	// Drain is the network's drain; its Stage is None without one.
	Drain drain.Record
	// Stale is true while learned routes are those kept from before a restart.
	Stale bool
}

// NextHopDecision is one gateway of a network.
type NextHopDecision struct {
	Address netip.Addr
	Device  string
	// Live means that its device is up and has carrier; Usable that it may carry
	// traffic, which its probes have a say in.
	Live, Usable bool
	// Routes counts the routes that use it.
	Routes int
	Reason string
}

// network returns the decision on the named network, or nil.
func (d *Desired) network(name string) *NetworkDecision {
	for i := range d.Networks {
		if d.Networks[i].Name == name {
			return &d.Networks[i]
		}
	}
	return nil
}

// PathDecision is one path of a network.
type PathDecision struct {
	Number uint16
	Table  vrf.TableID
	Mark   vrf.Mark
	V6     bool
	// Generation counts the paths of one anchor that were made because a next hop
	// returned.
	Generation uint8
	// Active paths take new flows; the others are kept for the flows they have.
	Active bool
	Usable bool
	// Anchor is invalid for the only path of a hop set. Bound is the set's.
	Anchor netip.Addr
	Bound  int
	// Named says that a rule names the next hops, listed in Ordered in the order
	// of their preference on this path; Members are those in use.
	Named            bool
	Ordered, Members []netip.Addr
}
