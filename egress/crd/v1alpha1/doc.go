// Package v1alpha1 has the objects of Egret in Kubernetes: ExternalNetwork,
// EgressPool, EgressGateway and EgressGatewayPolicy, group egret-router.io.
//
// What describes a network has the names of the configuration file's
// networks[], and means the same: an object is decoded into the same raw structs.
// Policies have the names of Calico's EgressGatewayPolicy.
//
// +kubebuilder:object:generate=true
// +groupName=egret-router.io
package v1alpha1

//go:generate go tool -modfile=../tools/go.mod controller-gen object paths=. crd:maxDescLen=300 output:crd:dir=../manifests/crd
