// Package crd is Egret at the API server: its objects (v1alpha1), their changes
// as cluster.Snapshots (Source), and what is written back (Controller, SetNodeState).
// What follows from a Snapshot is decided in egress/cluster. Only this room
// knows Kubernetes' libraries.
package crd
