// Package clustertest has the tests of what agents and gateways do together on the
// nodes of a cluster (lab.Cluster): the real data planes, each in a process of its
// own, fed from files where Kubernetes would feed them from objects.
package clustertest
