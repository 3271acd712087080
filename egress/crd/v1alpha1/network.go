package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ExternalNetwork is an external network: a VRF on each node that carries it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=extnet
// +kubebuilder:subresource:status
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 15",message="metadata.name: the name of a network is that of its VRF device: at most 15 characters"
// +kubebuilder:printcolumn:name=ASN,type=integer,JSONPath=`.spec.bgp.asn`
// +kubebuilder:printcolumn:name=Peers,type=string,JSONPath=`.spec.bgp.peers[*].address`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ExternalNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ExternalNetworkSpec `json:"spec"`
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
	// +optional
	// +listType=atomic
	Interfaces []Interface `json:"interfaces,omitempty"`
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
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
	// +optional
	// +listType=atomic
	Interfaces []Interface `json:"interfaces,omitempty"`
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	// +optional
	// +listType=atomic
	StaticRoutes []StaticRoute `json:"staticRoutes,omitempty"`
	// +optional
	BGP *BGP `json:"bgp,omitempty"`
	// +optional
	// +listType=atomic
	Probes []Probe `json:"probes,omitempty"`
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxNextHops *int64 `json:"maxNextHops,omitempty"`
	// +optional
	OnNoNextHop string `json:"onNoNextHop,omitempty"`
	// +optional
	Failback string `json:"failback,omitempty"`
	// +optional
	// +listType=atomic
	NextHopProbes []NextHopProbe `json:"nextHopProbes,omitempty"`
}

// Interface is an uplink.
type Interface struct {
	// +optional
	Name string `json:"name,omitempty"`
	// +optional
	VLAN *VLAN `json:"vlan,omitempty"`
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
}

// VLAN makes an interface an 802.1Q device that is created by us.
type VLAN struct {
	// +required
	Parent string `json:"parent,omitempty"`
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4094
	ID *int64 `json:"id,omitempty"`
}

// StaticRoute is a route through gateways.
type StaticRoute struct {
	// +required
	Prefix string `json:"prefix,omitempty"`
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	NextHops []NextHop `json:"nextHops,omitempty"`
}

// NextHop is a gateway of the network.
type NextHop struct {
	// +required
	Address string `json:"address,omitempty"`
	// +optional
	Weight *int64 `json:"weight,omitempty"`
	// +optional
	Preference *int64 `json:"preference,omitempty"`
}

// BGP is a network's speaker.
type BGP struct {
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	ASN *int64 `json:"asn,omitempty"`
	// +optional
	RouterID string `json:"routerID,omitempty"`
	// +optional
	ListenPort *int64 `json:"listenPort,omitempty"`
	// +optional
	GracefulRestart GracefulRestart `json:"gracefulRestart,omitzero"`
	// +optional
	// +listType=atomic
	Advertise []Advertise `json:"advertise,omitempty"`
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Peers []Peer `json:"peers,omitempty"`
}

// Advertise is a prefix that is advertised by name.
type Advertise struct {
	// +required
	Prefix string `json:"prefix,omitempty"`
	// +optional
	// +listType=atomic
	Communities []string `json:"communities,omitempty"`
	// +optional
	MED *int64 `json:"med,omitempty"`
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
	// +optional
	Prepend *int64 `json:"prepend,omitempty"`
}

// Export replaces attributes of what one peer is sent. An empty list of
// communities differs from none.
type Export struct {
	// +optional
	// +listType=atomic
	Communities []string `json:"communities,omitzero"`
	// +optional
	MED *int64 `json:"med,omitempty"`
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
	// +optional
	Prepend *int64 `json:"prepend,omitempty"`
}

// GracefulRestart is RFC 4724.
type GracefulRestart struct {
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// +optional
	RestartTime string `json:"restartTime,omitempty"`
	// +optional
	LongLived string `json:"longLived,omitempty"`
}

// Peer is one BGP neighbour, or a range of them.
type Peer struct {
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Range string `json:"range,omitempty"`
	// +optional
	MaxSessions *int64 `json:"maxSessions,omitempty"`
	// +optional
	Description string `json:"description,omitempty"`
	// +optional
	ASN *int64 `json:"asn,omitempty"`
	// +optional
	LocalASN *int64 `json:"localASN,omitempty"`
	// +optional
	Port *int64 `json:"port,omitempty"`
	// +optional
	Passive bool `json:"passive,omitempty"`
	// Password is the session's (TCP-MD5), in a Secret of Egret's own namespace. It
	// stands in place of the file's passwordFile and passwordEnv.
	//
	// +optional
	Password *Password `json:"password,omitempty"`
	// +optional
	Shutdown bool `json:"shutdown,omitempty"`
	// +optional
	ShutdownMessage string `json:"shutdownMessage,omitempty"`
	// +optional
	HoldTime string `json:"holdTime,omitempty"`
	// +optional
	KeepaliveTime string `json:"keepaliveTime,omitempty"`
	// +optional
	ConnectRetry string `json:"connectRetry,omitempty"`
	// +optional
	Multihop *int64 `json:"multihop,omitempty"`
	// +optional
	TTLSecurity *int64 `json:"ttlSecurity,omitempty"`
	// +optional
	// +listType=atomic
	Families []string `json:"families,omitempty"`
	// +optional
	AddPath bool `json:"addPath,omitempty"`
	// +optional
	ExtendedNextHop bool `json:"extendedNextHop,omitempty"`
	// +optional
	// +listType=atomic
	Import []Import `json:"import,omitempty"`
	// +optional
	MaxPrefixes *int64 `json:"maxPrefixes,omitempty"`
	// +optional
	MaxPrefixesWarning *int64 `json:"maxPrefixesWarning,omitempty"`
	// +optional
	MaxPrefixesAction string `json:"maxPrefixesAction,omitempty"`
	// +optional
	MaxPrefixesRestart string `json:"maxPrefixesRestart,omitempty"`
	// +optional
	Export Export `json:"export,omitzero"`
	// BFD ends the session when a BFD session with the peer is lost; {} takes the
	// defaults.
	//
	// +optional
	BFD *PeerBFD `json:"bfd,omitempty"`
}

// PeerBFD ties a BGP session to a BFD session.
type PeerBFD struct {
	// +optional
	Interval string `json:"interval,omitempty"`
	// +optional
	Fall *int64 `json:"fall,omitempty"`
	// +optional
	MaxHops *int64 `json:"maxHops,omitempty"`
}

// Password is where a password is.
type Password struct {
	// +required
	SecretKeyRef SecretKeyRef `json:"secretKeyRef"`
}

// SecretKeyRef is a key of a Secret in Egret's own namespace.
type SecretKeyRef struct {
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// Import accepts prefixes from a peer.
type Import struct {
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// +optional
	Min *int64 `json:"min,omitempty"`
	// +optional
	Max *int64 `json:"max,omitempty"`
	// +optional
	ASPath string `json:"asPath,omitempty"`
	// +optional
	// +listType=atomic
	Communities []string `json:"communities,omitempty"`
	// +optional
	Action string `json:"action,omitempty"`
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
}
