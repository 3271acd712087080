// Package kube runs a real Kubernetes API server with its etcd, for tests: on
// this machine's loopback, or inside a namespace of a lab.
//
// The programs are those of tools/go.mod. They are built once, by `go run
// ./lab/kube/build`, and kept in the user's cache directory; tests that find
// none skip, or fail if EGRET_LAB_REQUIRE is set.
//
// There is no controller manager, no scheduler and no kubelet: nothing deletes
// the content of a namespace, nodes and pods are what a test writes, pods need no service account, and
// roles that are sums of others (view, edit) are empty. RBAC is on.
package kube
