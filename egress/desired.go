package egress

import (
	"net/netip"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// Desired is what should exist, in the words of each edge, and why.
type Desired struct {
	Kernel  vrf.Config
	NAT     nat.Config
	BGP     []bgp.Config
	Probes  []probes.Config
	Sysctls []sysctl.Setting
	// Networks are the decisions taken, sorted by name.
	Networks []NetworkDecision
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
	// Stale is true while learned routes are those kept from before a restart.
	Stale bool
}

// NextHopDecision is one gateway of a network.
type NextHopDecision struct {
	Address netip.Addr
	Device  string
	// Live means that its device is up and has carrier.
	Live bool
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
