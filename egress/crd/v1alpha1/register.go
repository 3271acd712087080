package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is that of all objects here.
var GroupVersion = schema.GroupVersion{Group: "egret-router.io", Version: "v1alpha1"}

// AddToScheme makes a scheme know the objects.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&ExternalNetwork{}, &ExternalNetworkList{}, &EgressPool{}, &EgressPoolList{},
		&EgressGateway{}, &EgressGatewayList{}, &EgressGatewayPolicy{}, &EgressGatewayPolicyList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// ConditionReady is the one condition of all objects: True when an object is sound
// and what follows from it is done. Its reason is that of the first problem, its
// message all of them.
const ConditionReady = "Ready"

// ReasonReady is the reason of a condition that is True.
const ReasonReady = "Ready"
