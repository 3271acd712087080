// Package cluster is Egret in Kubernetes as plain values: what the objects of a
// cluster say (Snapshot), and the pure functions that decide from it which node
// is a gateway with which addresses, what a gateway's configuration is, and
// which client goes to which gateways. It knows no API server: egress/crd makes
// Snapshots, and writes back what is decided here.
//
// Names and semantics follow the documented behaviour of Calico's egress
// gateways, so that policies port over; where that is silent, the comments say
// what was chosen.
package cluster

import (
	"net/netip"
	"time"

	"github.com/egret-router/egret/egress/config"
)

// Snapshot is the cluster as one role of Egret sees it. The slices are sorted
// by namespace and name. A role that needs no pods, say, has none in its
// Snapshot. It is immutable, and it is what is kept on disk as the last good
// state.
type Snapshot struct {
	Nodes      []Node
	Namespaces []Namespace
	Pods       []Pod
	Networks   []Network
	Pools      []Pool
	Gateways   []Gateway
	Policies   []Policy
}

// Node is a node of the cluster.
type Node struct {
	Name   string
	Labels map[string]string
	// Addresses are its internal ones, the first of each family is the end of its
	// tunnels.
	Addresses []netip.Addr
	// PodPrefixes are where its pods live: spec.podCIDRs, or what the annotation
	// egress.egret-router.io/pod-prefixes says instead. Without any, its pods are
	// known by their addresses only.
	PodPrefixes   []netip.Prefix
	Unschedulable bool
	Ready         bool
	// NotReadySince is when Ready ended; the zero time is long ago.
	NotReadySince time.Time
}

// Namespace is a namespace with what binds its pods.
type Namespace struct {
	Name   string
	Labels map[string]string
	Binding
}

// Pod is a pod with addresses of its own (not of its node) that is not finished.
type Pod struct {
	Namespace, Name string
	Node            string
	Labels          map[string]string
	Addresses       []netip.Addr
	Binding
}

// Binding is what annotations of a namespace or a pod say: a policy by name, or
// gateways by selectors. The annotations are those of the prefix
// egress.egret-router.io/. A binding of a pod replaces that of its namespace.
type Binding struct {
	// Policy is the annotation egressGatewayPolicy. A policy that does not exist
	// blocks the pod.
	Policy string
	// Selector and NamespaceSelector select gateways; an absent namespaceSelector
	// means the client's own namespace.
	Selector, NamespaceSelector string
	// MaxNextHops is the annotation as written; "" and "0" are no bound. What is
	// no number blocks the pod.
	MaxNextHops string
}

// Network is an ExternalNetwork.
type Network struct {
	Name string
	// Raw is what holds on all nodes, in the words of the configuration file.
	// Name is set; passwords are in Passwords.
	Raw config.RawNetwork
	// Hosts are what differs by node: the first whose selector matches counts; a
	// node that none matches cannot carry the network.
	Hosts []Host
	// Passwords are the secrets of BGP peers, by peer address or range as written.
	Passwords map[string]string
}

// Host is the configuration of a network on some nodes.
type Host struct {
	// NodeSelector selects by labels; "" and "all()" select every node.
	NodeSelector string
	Interfaces   []config.RawInterface
	Addresses    []string
	StaticRoutes []config.RawStaticRoute
	// RouterID, when set, replaces that of the network's bgp.
	RouterID string
}

// Pool is an EgressPool: addresses of one network, handed to gateways in blocks.
type Pool struct {
	Name string
	// Raw has the prefixes, the network and how to advertise.
	Raw config.RawPool
	// BlockSize4 and BlockSize6 are the prefix lengths of a block, 32 and 128
	// unless set.
	BlockSize4, BlockSize6 int
	// Deleted pools hand out nothing; they go when nobody holds a block of them.
	Deleted bool
	// Allocations are in the pool's status: a block has one holder at a time.
	Allocations []Allocation
}

// Allocation is a block of a pool in the hands of a gateway on a node.
type Allocation struct {
	Block netip.Prefix
	// Gateway is namespace/name.
	Gateway string
	Node    string
	// UID is that of the gateway object, so that one made anew under the old name
	// does not inherit.
	UID string
}

// Gateway is an EgressGateway: one network and one pool, on some nodes.
type Gateway struct {
	Namespace, Name string
	UID             string
	// Labels are what selectors of policies and annotations see. Without any it
	// is {egret-router.io/egw: NAME}.
	Labels  map[string]string
	Network string
	Pool    string
	// NodeSelector selects by labels; Replicas bounds the nodes, 0 means all of
	// them. Blocks is how many blocks of the pool each node gets per family.
	NodeSelector string
	Replicas     int
	Blocks       int
	// GracePeriod is how long flows may go on after a gateway was told to leave.
	GracePeriod time.Duration
	// Probes are further ones of the network while this gateway stands on it
	// (egressGatewayFailureDetection).
	Probes []config.RawProbe
	// FailureDetection makes more of them, in the words of Calico; nil is none.
	FailureDetection *FailureDetection
	// Deleted is when the deletion began; zero if it did not.
	Deleted time.Time
	// Instances are in the status: where the controller placed it.
	Instances []Instance
}

// Instance is a gateway on one node.
type Instance struct {
	Node string
	// Draining is when it was told to leave (deletion, cordon, a smaller replica
	// count); zero if it was not. It goes GracePeriod later.
	Draining time.Time
}

// Policy is an EgressGatewayPolicy.
type Policy struct {
	Name  string
	Rules []Rule
	// Selectors bind pods without annotations; the oldest policy that matches
	// counts, then the first by name. Annotations come first.
	Selectors []ClientSelector
	Created   time.Time
}

// ClientSelector selects pods: both must match; "" matches all.
type ClientSelector struct{ Selector, NamespaceSelector string }

// Rule is one destination of a policy.
type Rule struct {
	Description string
	// Destination is a CIDR or an address; "" means 0.0.0.0/0 and ::/0.
	Destination string
	// Gateway is nil for a skip: routed normally.
	Gateway *GatewayRef
	// PreferLocal is gatewayPreference: PreferNodeLocal.
	PreferLocal bool
}

// GatewayRef selects gateways.
type GatewayRef struct {
	Selector, NamespaceSelector string
	MaxNextHops                 int
}
