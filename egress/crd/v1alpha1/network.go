package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ExternalNetwork is an external network: a VRF on each node that carries it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=extnet
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 15",message="metadata.name: the name of a network is that of its VRF device: at most 15 characters"
// +kubebuilder:printcolumn:name=ASN,type=integer,JSONPath=`.spec.bgp.asn`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name=Message,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
type ExternalNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	//
	// +required
	Spec ExternalNetworkSpec `json:"spec"`
	// Status is what is; it is not for users to write.
	//
	// +optional
	Status ObjectStatus `json:"status,omitempty,omitzero"`
}

// ExternalNetworkList is a list of networks.
//
// +kubebuilder:object:root=true
type ExternalNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ExternalNetwork `json:"items"`
}

// ExternalNetworkSpec is what a network is on all nodes, and what differs.
type ExternalNetworkSpec struct {
	Network `json:",inline"`

	// Hosts are what differs by node: the first whose selector matches counts. A node
	// that none matches cannot carry the network.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Hosts []Host `json:"hosts"`
}

// Host is the configuration of a network on some nodes. Interfaces and addresses
// replace those of the network; static routes replace those with the same prefix.
type Host struct {
	// NodeSelector selects nodes by labels, in the syntax of Calico; without it, all.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	NodeSelector string `json:"nodeSelector,omitempty"`
	// Interfaces of these nodes, in place of the network's.
	//
	// +optional
	// +listType=atomic
	Interfaces []Interface `json:"interfaces,omitempty"`
	// Addresses of these nodes in the network, in place of the network's.
	//
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	// StaticRoutes of these nodes; they replace those of the network with the same
	// prefix.
	//
	// +optional
	// +listType=atomic
	StaticRoutes []StaticRoute `json:"staticRoutes,omitempty"`
	// RouterID replaces bgp.routerID.
	//
	// +optional
	RouterID string `json:"routerID,omitempty"`
}

// Network is networks[] of the configuration file, where every field is described
// (egret reference). A field that is absent has the default that it has there.
//
// +kubebuilder:validation:XValidation:rule="!has(self.bgp) || self.bgp.peers.all(p, has(p.address) != has(p.range))",fieldPath=".bgp.peers",message="a peer has an address or a range, and not both"
type Network struct {
	// Table is the number of the VRF's routing table; chosen if absent.
	//
	// +optional
	Table *int64 `json:"table,omitempty"`
	// Interfaces are the uplinks; each is enslaved to the network's VRF.
	//
	// +optional
	// +listType=atomic
	Interfaces []Interface `json:"interfaces,omitempty"`
	// Addresses of the node in the network beside those of interfaces, with their prefix
	// length.
	//
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	// StaticRoutes are routes through gateways, one entry for each prefix.
	//
	// +optional
	// +listType=atomic
	StaticRoutes []StaticRoute `json:"staticRoutes,omitempty"`
	// BGP is the speaker of the network. Without it pools have to be routed to the nodes
	// by other means.
	//
	// +optional
	BGP *BGP `json:"bgp,omitempty"`
	// Probes are health checks inside the network. While one is down, pools are withdrawn
	// and clients' traffic stops.
	//
	// +optional
	// +listType=atomic
	Probes []Probe `json:"probes,omitempty"`
	// MaxNextHops bounds the next hops of one client; 0 or absent is no bound.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxNextHops *int64 `json:"maxNextHops,omitempty"`
	// OnNoNextHop is what traffic meets while no next hop works: drop, reject or
	// fallback (routed normally); drop unless set.
	//
	// +optional
	OnNoNextHop string `json:"onNoNextHop,omitempty"`
	// Failback says whether new flows go to a next hop that returns: newFlows or never;
	// newFlows unless set.
	//
	// +optional
	Failback string `json:"failback,omitempty"`
	// NextHopProbes are health checks of every next hop.
	//
	// +optional
	// +listType=atomic
	NextHopProbes []NextHopProbe `json:"nextHopProbes,omitempty"`
}

// Interface is an uplink.
type Interface struct {
	// Name of the device; one that vlan makes is PARENT.ID unless named.
	//
	// +optional
	Name string `json:"name,omitempty"`
	// VLAN makes the device.
	//
	// +optional
	VLAN *VLAN `json:"vlan,omitempty"`
	// Addresses that are put on the device, with their prefix length.
	//
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
}

// VLAN makes an interface an 802.1Q device that is created by us.
type VLAN struct {
	// Parent is the device that carries the VLAN.
	//
	// +required
	Parent string `json:"parent,omitempty"`
	// ID is the VLAN, 1 to 4094.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4094
	ID *int64 `json:"id,omitempty"`
}

// StaticRoute is a route through gateways.
type StaticRoute struct {
	// Prefix is where the route leads to.
	//
	// +required
	Prefix string `json:"prefix,omitempty"`
	// NextHops are gateways on connected prefixes of the network; several share the
	// traffic by flow.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	NextHops []NextHop `json:"nextHops,omitempty"`
}

// NextHop is a gateway of the network.
type NextHop struct {
	// Address of the gateway.
	//
	// +required
	Address string `json:"address,omitempty"`
	// Weight is its share of the flows among the others, 1 to 255; 1 unless set.
	//
	// +optional
	Weight *int64 `json:"weight,omitempty"`
	// Preference: next hops of the highest one are used while one of them works; 0 unless
	// set.
	//
	// +optional
	Preference *int64 `json:"preference,omitempty"`
}
