// Package clusterbench has the figures of a large cluster: 500 policies, 5,000 pods on
// 50 nodes and 50 gateways, as objects of a real API server, with the real controller and
// agent.
//
//	make bench-kubernetes
//	make bench-kubernetes FIGURES=TestGateway
//
// What is timed is an event until the kernel has it: from the moment before a request to
// the API server to the notification of the packet filter's transaction that has
// the address in it. The agent is in a namespace of its own; ten gateway nodes are
// another one, where the real echo server answers for all of them.
//
// TestGatewayFigures has a gateway in a VM, as it needs VRFs, with the API server outside. What
// is emulated is slow, so its memory alone is a figure.
//
// Everything has the build tag bench: times belong to no test. That one pod is never a full
// rewrite is one, in egress/steer.
package clusterbench
