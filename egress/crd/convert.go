package crd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// AnnotationPodPrefixes on a node says where its pods live, separated by commas,
// in place of spec.podCIDRs.
const AnnotationPodPrefixes = annotationPrefix + "pod-prefixes"

const annotationPrefix = "egress.egret-router.io/"

// leavingTaints say that a node is about to go, as a cordon does: gateways leave it
// in time.
var leavingTaints = []string{
	corev1.TaintNodeUnschedulable,
	"ToBeDeletedByClusterAutoscaler", // cluster-autoscaler
	"karpenter.sh/disrupted",
}

func isLeaving(n *corev1.Node) bool {
	return n.Spec.Unschedulable || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return slices.Contains(leavingTaints, t.Key) })
}

// convertNode makes a cluster.Node. What is no prefix in the annotation is left
// out: the node's pods are then known by their addresses.
func convertNode(n *corev1.Node) cluster.Node {
	node := cluster.Node{Name: n.Name, Labels: n.Labels, Unschedulable: isLeaving(n)}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				node.Addresses = append(node.Addresses, addr.Unmap())
			}
		}
	}
	prefixes := n.Spec.PodCIDRs
	if text, ok := n.Annotations[AnnotationPodPrefixes]; ok {
		prefixes = strings.Split(text, ",")
	}
	for _, s := range prefixes {
		if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil {
			node.PodPrefixes = append(node.PodPrefixes, p.Masked())
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if node.Ready = c.Status == corev1.ConditionTrue; !node.Ready {
				node.NotReadySince = c.LastTransitionTime.Time
			}
		}
	}
	return node
}

func convertBinding(annotations map[string]string) cluster.Binding {
	return cluster.Binding{
		Policy:            annotations[cluster.AnnotationPolicy],
		Selector:          annotations[cluster.AnnotationSelector],
		NamespaceSelector: annotations[cluster.AnnotationNamespaceSelector],
		MaxNextHops:       annotations[cluster.AnnotationMaxNextHops],
	}
}

// convertPod returns false for a pod that has no address of its own.
func convertPod(p *corev1.Pod) (cluster.Pod, bool) {
	if p.Spec.HostNetwork || p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return cluster.Pod{}, false
	}
	pod := cluster.Pod{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Labels: p.Labels, Binding: convertBinding(p.Annotations)}
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			pod.Addresses = append(pod.Addresses, addr.Unmap())
		}
	}
	return pod, len(pod.Addresses) > 0
}

// problemsOf makes problems of an object of those of one of its parts.
func problemsOf(kind, namespace, name, at string, problems []egress.Problem) []cluster.Problem {
	var list []cluster.Problem
	for _, p := range problems {
		list = append(list, cluster.Problem{Kind: kind, Namespace: namespace, Name: name, Reason: cluster.ReasonInvalid,
			Field: at + p.Field, Message: p.Message})
	}
	return list
}

// decodePart decodes what an object has in common with the file, by way of JSON.
func decodePart[T any](part any) (T, []egress.Problem) {
	data, err := json.Marshal(part)
	if err != nil {
		var none T
		return none, []egress.Problem{{Message: "cannot be read: " + err.Error()}}
	}
	return config.Decode[T](data)
}

// secrets finds the value of a key of a Secret of our own namespace.
type secrets func(name, key string) (string, bool)

func convertNetwork(n *v1alpha1.ExternalNetwork, find secrets) (cluster.Network, []cluster.Problem) {
	network := cluster.Network{Name: n.Name}
	part := *n.Spec.Network.DeepCopy()
	var problems []cluster.Problem
	if part.BGP != nil {
		network.Passwords, problems = takePasswords(n.Name, part.BGP.Peers, find)
	}
	raw, wrong := decodePart[config.RawNetwork](part)
	problems = append(problems, problemsOf(cluster.KindNetwork, "", n.Name, "spec.", wrong)...)
	network.Raw = raw
	network.Raw.Name = n.Name
	for i, h := range n.Spec.Hosts {
		part := v1alpha1.Network{Interfaces: h.Interfaces, Addresses: h.Addresses, StaticRoutes: h.StaticRoutes}
		raw, wrong := decodePart[config.RawNetwork](part)
		problems = append(problems, problemsOf(cluster.KindNetwork, "", n.Name, fmt.Sprintf("spec.hosts[%d].", i), wrong)...)
		network.Hosts = append(network.Hosts, cluster.Host{NodeSelector: h.NodeSelector, Interfaces: raw.Interfaces,
			Addresses: raw.Addresses, StaticRoutes: raw.StaticRoutes, RouterID: h.RouterID})
	}
	return network, problems
}

// takePasswords takes the passwords out of peers. A role without access to
// Secrets has no find, and no passwords.
func takePasswords(network string, peers []v1alpha1.Peer, find secrets) (map[string]string, []cluster.Problem) {
	var passwords map[string]string
	var problems []cluster.Problem
	for i := range peers {
		p := &peers[i]
		if p.Password == nil {
			continue
		}
		ref := p.Password.SecretKeyRef
		p.Password = nil
		if find == nil {
			continue
		}
		value, ok := find(ref.Name, ref.Key)
		if !ok {
			problems = append(problems, cluster.Problem{Kind: cluster.KindNetwork, Name: network, Reason: cluster.ReasonNotFound,
				Field:   fmt.Sprintf("spec.bgp.peers[%d].password.secretKeyRef", i),
				Message: fmt.Sprintf("there is no key %q in a Secret %q of Egret's namespace", ref.Key, ref.Name)})
			// A session without its password would be one that was not asked for.
			p.Shutdown = true
			continue
		}
		if passwords == nil {
			passwords = map[string]string{}
		}
		passwords[cmp.Or(p.Address, p.Range)] = strings.TrimRight(value, "\r\n")
	}
	return passwords, problems
}

func convertPool(p *v1alpha1.EgressPool) (cluster.Pool, []cluster.Problem) {
	raw, wrong := decodePart[config.RawPool](p.Spec.PoolSettings)
	raw.Name = p.Name
	pool := cluster.Pool{Name: p.Name, Raw: raw, BlockSize4: int(p.Spec.BlockSizeIPv4), BlockSize6: int(p.Spec.BlockSizeIPv6), Deleted: p.DeletionTimestamp != nil}
	for _, a := range p.Status.Allocations {
		if block, err := netip.ParsePrefix(a.Block); err == nil {
			pool.Allocations = append(pool.Allocations, cluster.Allocation{Block: block, Gateway: a.Gateway, Node: a.Node, UID: a.UID})
		}
	}
	return pool, problemsOf(cluster.KindPool, "", p.Name, "spec.", wrong)
}

// defaultGracePeriod is that of the schema.
const defaultGracePeriod = 30 * time.Second

// convertGateway needs the pools to find the one that is named by a prefix.
func convertGateway(g *v1alpha1.EgressGateway, pools []cluster.Pool) (cluster.Gateway, []cluster.Problem) {
	gateway := cluster.Gateway{Namespace: g.Namespace, Name: g.Name, UID: string(g.UID), Labels: g.Spec.Labels,
		NodeSelector: g.Spec.NodeSelector, Replicas: 1, Blocks: int(g.Spec.Blocks), GracePeriod: defaultGracePeriod,
		FailureDetection: convertDetection(g.Spec.FailureDetection)}
	if g.Spec.Replicas != nil {
		gateway.Replicas = int(*g.Spec.Replicas)
	}
	if g.Spec.TerminationGracePeriodSeconds != nil {
		gateway.GracePeriod = time.Duration(*g.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	if g.DeletionTimestamp != nil {
		gateway.Deleted = g.DeletionTimestamp.Time
	}
	var problems []cluster.Problem
	pool, wrong := findPool(g, pools)
	if wrong != nil {
		problems = append(problems, *wrong)
	}
	if pool != nil {
		gateway.Pool, gateway.Network = pool.Name, pool.Raw.Network
	} else if wrong == nil && len(g.Spec.IPPools) > 0 {
		gateway.Pool = g.Spec.IPPools[0].Name // does not exist: reported by whoever looks it up
	}
	if len(g.Spec.ExternalNetworks) > 0 {
		gateway.Network = g.Spec.ExternalNetworks[0]
	}
	for i, p := range g.Spec.Probes {
		raw, wrong := decodePart[config.RawProbe](p)
		gateway.Probes = append(gateway.Probes, raw)
		problems = append(problems, problemsOf(cluster.KindGateway, g.Namespace, g.Name, fmt.Sprintf("spec.probes[%d].", i), wrong)...)
	}
	for _, i := range g.Status.Instances {
		instance := cluster.Instance{Node: i.Node}
		if i.Draining != nil {
			instance.Draining = i.Draining.Time
		}
		gateway.Instances = append(gateway.Instances, instance)
	}
	return gateway, problems
}

// findPool finds the pool that a gateway names, by its name, a prefix, or both.
func findPool(g *v1alpha1.EgressGateway, pools []cluster.Pool) (*cluster.Pool, *cluster.Problem) {
	if len(g.Spec.IPPools) == 0 {
		return nil, nil
	}
	ref := g.Spec.IPPools[0]
	problem := func(reason, format string, args ...any) *cluster.Problem {
		return &cluster.Problem{Kind: cluster.KindGateway, Namespace: g.Namespace, Name: g.Name, Reason: reason,
			Field: "spec.ipPools[0].cidr", Message: fmt.Sprintf(format, args...)}
	}
	has := func(p *cluster.Pool) bool { return ref.CIDR == "" || slices.Contains(p.Raw.Prefixes, ref.CIDR) }
	for i := range pools {
		p := &pools[i]
		switch {
		case ref.Name == "" && has(p):
			return p, nil
		case ref.Name == p.Name && has(p):
			return p, nil
		case ref.Name == p.Name:
			return nil, problem(cluster.ReasonInvalid, "%s is no prefix of pool %q, which has %s", ref.CIDR, p.Name, strings.Join(p.Raw.Prefixes, ", "))
		}
	}
	if ref.Name == "" {
		return nil, problem(cluster.ReasonNotFound, "no pool has the prefix %s", ref.CIDR)
	}
	return nil, nil
}

func convertDetection(f *v1alpha1.FailureDetection) *cluster.FailureDetection {
	if f == nil {
		return nil
	}
	seconds := func(n int32) time.Duration { return time.Duration(n) * time.Second }
	d := &cluster.FailureDetection{HealthTimeoutDataStore: seconds(f.HealthTimeoutDataStoreSeconds)}
	if p := f.ICMPProbe; p != nil {
		d.ICMP = &cluster.ICMPProbe{IPs: p.IPs, Interval: seconds(p.IntervalSeconds), Timeout: seconds(p.TimeoutSeconds)}
	}
	if p := f.HTTPProbe; p != nil {
		d.HTTP = &cluster.HTTPProbe{URLs: p.URLs, Interval: seconds(p.IntervalSeconds), Timeout: seconds(p.TimeoutSeconds)}
	}
	return d
}

func convertPolicy(p *v1alpha1.EgressGatewayPolicy) cluster.Policy {
	policy := cluster.Policy{Name: p.Name, Created: p.CreationTimestamp.Time}
	for _, r := range p.Spec.Rules {
		rule := cluster.Rule{Description: r.Description, PreferLocal: r.GatewayPreference == "PreferNodeLocal"}
		if r.Destination != nil {
			rule.Destination = r.Destination.CIDR
		}
		if g := r.Gateway; g != nil {
			rule.Gateway = &cluster.GatewayRef{Selector: g.Selector, NamespaceSelector: g.NamespaceSelector, MaxNextHops: int(g.MaxNextHops)}
		}
		policy.Rules = append(policy.Rules, rule)
	}
	for _, c := range p.Spec.Clients {
		policy.Selectors = append(policy.Selectors, cluster.ClientSelector(c))
	}
	return policy
}
