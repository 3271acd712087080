package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EgressPool is a set of addresses of one network. Gateways hold blocks of it, and
// translate their clients to addresses of these blocks.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=epool
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Network,type=string,JSONPath=`.spec.network`
// +kubebuilder:printcolumn:name=Prefixes,type=string,JSONPath=`.spec.prefixes`
// +kubebuilder:printcolumn:name=Allocated,type=integer,JSONPath=`.status.allocated`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name=Message,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
type EgressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	//
	// +required
	Spec EgressPoolSpec `json:"spec"`
	// Status is what is; it is not for users to write.
	//
	// +optional
	Status EgressPoolStatus `json:"status,omitempty,omitzero"`
}

// EgressPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type EgressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressPool `json:"items"`
}

// EgressPoolSpec is what a pool is. All but the block sizes is as in pools[] of the
// configuration file.
type EgressPoolSpec struct {
	PoolSettings `json:",inline"`

	// BlockSizeIPv4 is the length of the prefixes that gateways hold.
	//
	// +optional
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed: make another pool"
	BlockSizeIPv4 int32 `json:"blockSizeIPv4,omitempty"`
	// BlockSizeIPv6 is the same for IPv6.
	//
	// +optional
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed: make another pool"
	BlockSizeIPv6 int32 `json:"blockSizeIPv6,omitempty"`
}

// PoolSettings are those of the configuration file.
type PoolSettings struct {
	// Network is the name of an ExternalNetwork.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cannot be changed: make another pool"
	Network string `json:"network"`
	// Prefixes of both families.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="self.all(p, isCIDR(p))",message="must be CIDRs, like 192.0.2.0/28 or 2001:db8::/120"
	Prefixes []string `json:"prefixes"`
	// Advertise is how blocks are advertised by BGP.
	//
	// +optional
	Advertise string `json:"advertise,omitempty"`
	// Communities that are sent, such as no-export, 64512:100 or 64512:1:2.
	//
	// +optional
	// +listType=atomic
	Communities []string `json:"communities,omitempty"`
	// MED is the metric that is sent.
	//
	// +optional
	MED *int64 `json:"med,omitempty"`
	// LocalPref is the preference; only for peers in our own AS.
	//
	// +optional
	LocalPref *int64 `json:"localPref,omitempty"`
	// Prepend is how often our AS number is added to the path.
	//
	// +optional
	Prepend *int64 `json:"prepend,omitempty"`
	// Stickiness of a client's address: client (one address for all its flows) or flow.
	//
	// +optional
	Stickiness string `json:"stickiness,omitempty"`
}

// EgressPoolStatus is the record of who holds what. The controller alone writes it.
type EgressPoolStatus struct {
	// Allocations are the blocks in somebody's hands. A block is there once, so it
	// has one holder.
	//
	// +optional
	// +listType=map
	// +listMapKey=block
	Allocations []Allocation `json:"allocations,omitempty"`
	// Allocated is their number.
	//
	// +optional
	Allocated int32 `json:"allocated,omitempty"`
	// Conditions say whether the object can be used (Ready), and why not.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Allocation is a block in the hands of a gateway on a node.
type Allocation struct {
	// Block is a prefix, or one address as a prefix.
	//
	// +required
	// +kubebuilder:validation:MaxLength=43
	Block string `json:"block"`
	// Gateway is namespace/name.
	//
	// +required
	Gateway string `json:"gateway"`
	// Node that the gateway is on.
	//
	// +required
	Node string `json:"node"`
	// UID is that of the gateway.
	//
	// +required
	UID string `json:"uid"`
}
