package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EgressGatewayPolicy says through which gateways its clients' traffic leaves, by
// destination: the longest prefix wins, whatever the order. Clients name it in
// the annotation egress.egret-router.io/egressGatewayPolicy of their namespace or pod, or
// it selects them.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=egp
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name=Message,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
type EgressGatewayPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	//
	// +required
	Spec EgressGatewayPolicySpec `json:"spec"`
	// Status is what is; it is not for users to write.
	//
	// +optional
	Status ObjectStatus `json:"status,omitempty,omitzero"`
}

// EgressGatewayPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type EgressGatewayPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressGatewayPolicy `json:"items"`
}

// EgressGatewayPolicySpec is what a policy says.
type EgressGatewayPolicySpec struct {
	// Rules, one for each destination. Among more than 250 rules, two with the same
	// destination are found by the controller.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:XValidation:rule="self.exists(r, has(r.gateway) || has(r.destination))",message="no rule has a gateway or a destination: the policy would do nothing: add one"
	// +kubebuilder:validation:XValidation:rule="self.size() > 250 || [self.map(r, has(r.destination) ? r.destination.cidr : '')].all(l, l.all(d, l.indexOf(d) == l.lastIndexOf(d)))",message="two rules have the same destination (without one a rule is for everything): keep one of them"
	Rules []EgressRule `json:"rules"`
	// Clients are pods that need no annotation. Of several policies that select a pod
	// the oldest counts; annotations come first.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Clients []ClientSelector `json:"clients,omitempty"`
}

// EgressRule is one destination.
type EgressRule struct {
	// Description is for people.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Description string `json:"description,omitempty"`
	// Destination is what the rule is for; without it, everything.
	//
	// +optional
	Destination *EgressDestination `json:"destination,omitempty"`
	// Gateway selects the gateways that carry the traffic; without it, the traffic is
	// routed normally.
	//
	// +optional
	Gateway *EgressGatewayReference `json:"gateway,omitempty"`
	// GatewayPreference PreferNodeLocal: the gateways on the client's own node, if
	// there are any that work.
	//
	// +optional
	// +kubebuilder:validation:Enum=None;PreferNodeLocal
	// +kubebuilder:default=None
	GatewayPreference string `json:"gatewayPreference,omitempty"`
}

// EgressDestination is where traffic goes.
type EgressDestination struct {
	// CIDR is a prefix, or an address.
	//
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) || isIP(self)",message="must be a CIDR or an address, like 10.0.0.0/8 or 2001:db8::1"
	CIDR string `json:"cidr"`
}

// EgressGatewayReference selects gateways by the labels of EgressGateways.
//
// +kubebuilder:validation:XValidation:rule="has(self.selector) && has(self.namespaceSelector) && self.selector.size() > 0 && self.namespaceSelector.size() > 0",message="a rule with a gateway needs a selector and a namespaceSelector, neither of them empty"
type EgressGatewayReference struct {
	// Selector is for the labels of gateways, in the syntax of Calico: egw == 'red'.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Selector string `json:"selector,omitempty"`
	// NamespaceSelector is for the labels of the gateways' namespaces.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	NamespaceSelector string `json:"namespaceSelector,omitempty"`
	// MaxNextHops bounds the gateways that carry one pod's traffic; 0 is no bound.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxNextHops int32 `json:"maxNextHops,omitempty"`
}

// ClientSelector selects pods. Both must match; what is absent matches all.
//
// +kubebuilder:validation:XValidation:rule="has(self.selector) || has(self.namespaceSelector)",message="name a selector, a namespaceSelector or both: all() selects everything"
type ClientSelector struct {
	// Selector is for the labels of pods, in the syntax of Calico.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Selector string `json:"selector,omitempty"`
	// NamespaceSelector is for the labels of their namespaces.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	NamespaceSelector string `json:"namespaceSelector,omitempty"`
}

// ObjectStatus is the status of objects that nothing else is to be said of.
type ObjectStatus struct {
	// Conditions say whether the object can be used (Ready), and why not.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
