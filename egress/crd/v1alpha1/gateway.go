package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EgressGateway is a gateway to one network, on some nodes, each with addresses of
// one pool.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=egw
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas
// +kubebuilder:printcolumn:name=Pool,type=string,JSONPath=`.spec.ipPools[0].name`
// +kubebuilder:printcolumn:name=Desired,type=integer,JSONPath=`.spec.replicas`
// +kubebuilder:printcolumn:name=Placed,type=integer,JSONPath=`.status.replicas`
// +kubebuilder:printcolumn:name=Nodes,type=string,JSONPath=`.status.placedOn`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name=Message,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
type EgressGateway struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	//
	// +required
	Spec EgressGatewaySpec `json:"spec"`
	// Status is what is; it is not for users to write.
	//
	// +optional
	Status EgressGatewayStatus `json:"status,omitempty,omitzero"`
}

// EgressGatewayList is a list of gateways.
//
// +kubebuilder:object:root=true
type EgressGatewayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressGateway `json:"items"`
}

// EgressGatewaySpec is what a gateway is to be.
type EgressGatewaySpec struct {
	// Replicas is how many nodes it is on; 0 is every node that can carry it.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	Replicas *int32 `json:"replicas,omitempty"`
	// IPPools is the pool, by its name, its prefix, or both.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1
	IPPools []PoolReference `json:"ipPools"`
	// ExternalNetworks is the network; without it, that of the pool.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1
	// +kubebuilder:validation:items:MaxLength=63
	ExternalNetworks []string `json:"externalNetworks,omitempty"`
	// Labels are what selectors of policies and annotations see. Without any it is
	// {egret-router.io/egw: NAME}.
	//
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// NodeSelector selects nodes by labels, in the syntax of Calico; without it, all.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	NodeSelector string `json:"nodeSelector,omitempty"`
	// Blocks of the pool for each node and family.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	Blocks int32 `json:"blocks,omitempty"`
	// TerminationGracePeriodSeconds is how long flows may go on after the gateway was
	// told to leave a node.
	//
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`
	// FailureDetection are probes in the words of Calico.
	//
	// +optional
	FailureDetection *FailureDetection `json:"egressGatewayFailureDetection,omitempty"`
	// Probes are further ones of the network on the gateway's nodes.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Probes []Probe `json:"probes,omitempty"`
}

// PoolReference names a pool.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) || has(self.cidr)",message="name a pool, one of its prefixes, or both"
type PoolReference struct {
	// Name of the pool.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// CIDR equals a prefix of the pool.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR, like 192.0.2.0/28"
	CIDR string `json:"cidr,omitempty"`
}

// FailureDetection judges the gateway on each node by what its network can reach.
//
// +kubebuilder:validation:XValidation:rule="has(self.icmpProbe) || has(self.httpProbe)",message="has neither icmpProbe nor httpProbe: name one, or leave it out"
type FailureDetection struct {
	// HealthTimeoutDataStoreSeconds is accepted for compatibility: a gateway goes on
	// without the API server.
	//
	// +optional
	// +kubebuilder:default=90
	// +kubebuilder:validation:Minimum=1
	HealthTimeoutDataStoreSeconds int32 `json:"healthTimeoutDataStoreSeconds,omitempty"`
	// ICMPProbe pings addresses.
	//
	// +optional
	ICMPProbe *ICMPProbe `json:"icmpProbe,omitempty"`
	// HTTPProbe fetches URLs.
	//
	// +optional
	HTTPProbe *HTTPProbe `json:"httpProbe,omitempty"`
}

// ICMPProbe pings: the gateway is down when all failed for the timeout.
//
// +kubebuilder:validation:XValidation:rule="self.timeoutSeconds >= self.intervalSeconds",fieldPath=".timeoutSeconds",message="timeoutSeconds is below intervalSeconds: no attempt would be made in that time, raise it"
type ICMPProbe struct {
	// IPs are pinged inside the network.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="must be addresses"
	IPs []string `json:"ips"`
	// IntervalSeconds from attempt to attempt.
	//
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	IntervalSeconds int32 `json:"intervalSeconds,omitempty"`
	// TimeoutSeconds: the gateway is down when all attempts failed for so long; at least
	// the interval.
	//
	// +optional
	// +kubebuilder:default=15
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
}

// HTTPProbe fetches: the gateway is down when all failed for the timeout. The host
// of a URL is an address.
//
// +kubebuilder:validation:XValidation:rule="self.timeoutSeconds >= self.intervalSeconds",fieldPath=".timeoutSeconds",message="timeoutSeconds is below intervalSeconds: no attempt would be made in that time, raise it"
type HTTPProbe struct {
	// URLs are fetched inside the network.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=2048
	URLs []string `json:"urls"`
	// IntervalSeconds from attempt to attempt.
	//
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	IntervalSeconds int32 `json:"intervalSeconds,omitempty"`
	// TimeoutSeconds: the gateway is down when all attempts failed for so long; at least
	// the interval.
	//
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
}

// EgressGatewayStatus is where a gateway is, and how it is there.
type EgressGatewayStatus struct {
	// Replicas is the number of instances that do not drain.
	//
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// Instances are where the controller placed it. The controller alone writes them.
	//
	// +optional
	// +listType=map
	// +listMapKey=node
	Instances []Instance `json:"instances,omitempty"`
	// PlacedOn are the nodes of instances in words, for people.
	//
	// +optional
	PlacedOn string `json:"placedOn,omitempty"`
	// Nodes are what each node says of itself; the node alone writes its entry.
	//
	// +optional
	// +listType=map
	// +listMapKey=node
	Nodes []NodeState `json:"nodes,omitempty"`
	// Conditions say whether the object can be used (Ready), and why not.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Instance is the gateway on one node.
type Instance struct {
	// Node is the name of the node.
	//
	// +required
	Node string `json:"node"`
	// Draining is when it was told to leave; it goes after the grace period.
	//
	// +optional
	Draining *metav1.MicroTime `json:"draining,omitempty"`
}

// NodeState is how the gateway is on one node.
type NodeState struct {
	// Node is the name of the node.
	//
	// +required
	Node string `json:"node"`
	// State is Ready, Failed or Draining.
	//
	// +required
	// +kubebuilder:validation:Enum=Ready;Failed;Draining
	State string `json:"state"`
	// Message says why, if it failed, or what is wrong although it works.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// Addresses are the blocks in use.
	//
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	// Since is when the state began.
	//
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
}
