//go:build bench

package clusterbench

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

func nodeName(n int) string   { return fmt.Sprintf("n%d", n) }
func policyName(i int) string { return fmt.Sprintf("p%03d", i) }
func codeOf(i int) string     { return fmt.Sprintf("c%02d", i%gateways) }

// addressesOf are those of the i-th pod of a node.
func addressesOf(node, i int) (string, string) {
	return fmt.Sprintf("10.244.%d.%d", node, i), fmt.Sprintf("fd00:244:%x::%x", node, i)
}

// createNodes adds the nodes, the first ones for gateways.
func (w *world) createNodes(ctx context.Context, i int) error {
	number := i + 1
	n := &corev1.Node{ObjectMeta: meta(nodeName(number)), Spec: corev1.NodeSpec{
		PodCIDRs: []string{fmt.Sprintf("10.244.%d.0/24", number), fmt.Sprintf("fd00:244:%x::/64", number)}}}
	n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	n.Labels = map[string]string{"gateway": fmt.Sprint(i < gatewayNodes), "kubernetes.io/hostname": n.Name, "egret-router.io/gateway": fmt.Sprint(i < gatewayNodes)}
	if err := create(ctx, w.core, "nodes", "", n); err != nil {
		return err
	}
	n.Spec.Taints = nil
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Bench",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.0.%d", number)},
		{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("fd00:168::%x", number)}}
	return putStatus(ctx, w.core, "nodes", n)
}

// createNamespaces adds namespaces, every third with a policy for its pods.
func (w *world) createNamespaces(ctx context.Context, i int) error {
	n := &corev1.Namespace{ObjectMeta: meta(fmt.Sprintf("ns%03d", i))}
	n.Labels = map[string]string{"team": fmt.Sprint(i % 20)}
	if i%3 == 0 {
		n.Annotations = map[string]string{cluster.AnnotationPolicy: policyName(i)}
	}
	return create(ctx, w.core, "namespaces", "", n)
}

// createNetworks adds networks with a pool each. The uplinks differ by network.
func (w *world) createNetworks(ctx context.Context, i int) error {
	n := &v1alpha1.ExternalNetwork{ObjectMeta: meta(fmt.Sprintf("net%d", i))}
	n.Spec.Hosts = []v1alpha1.Host{{NodeSelector: "gateway == 'true'",
		Interfaces:   []v1alpha1.Interface{{Name: fmt.Sprintf("up%d", i)}},
		Addresses:    []string{fmt.Sprintf("172.16.%d.1/24", i), fmt.Sprintf("fd00:16:%x::1/64", i)},
		StaticRoutes: []v1alpha1.StaticRoute{route("0.0.0.0/0", fmt.Sprintf("172.16.%d.254", i)), route("::/0", fmt.Sprintf("fd00:16:%x::fe", i))}}}
	if err := create(ctx, w.objects, "externalnetworks", "", n); err != nil {
		return err
	}
	p := &v1alpha1.EgressPool{ObjectMeta: meta(n.Name)}
	p.Spec.Network, p.Spec.Prefixes = n.Name, []string{fmt.Sprintf("198.51.%d.0/24", i), fmt.Sprintf("2001:db8:%x::/120", i+1)}
	return create(ctx, w.objects, "egresspools", "", p)
}

func route(prefix, via string) v1alpha1.StaticRoute {
	return v1alpha1.StaticRoute{Prefix: prefix, NextHops: []v1alpha1.NextHop{{Address: via}}}
}

func (w *world) createGateways(ctx context.Context, i int) error {
	count := int32(replicas)
	g := &v1alpha1.EgressGateway{ObjectMeta: meta(codeOf(i))}
	g.Spec = v1alpha1.EgressGatewaySpec{Replicas: &count, IPPools: []v1alpha1.PoolReference{{Name: fmt.Sprintf("net%d", i%networks)}},
		Labels: map[string]string{"egress-code": codeOf(i)}, NodeSelector: "gateway == 'true'"}
	return create(ctx, w.objects, "egressgateways", "default", g)
}

func leadTo(code string, most int32) *v1alpha1.EgressGatewayReference {
	return &v1alpha1.EgressGatewayReference{Selector: "egress-code == '" + code + "'", NamespaceSelector: "all()", MaxNextHops: most}
}

// createPolicies adds policies of three rules: normal, one gateway by two next hops, another
// by all.
func (w *world) createPolicies(ctx context.Context, i int) error {
	p := &v1alpha1.EgressGatewayPolicy{ObjectMeta: meta(policyName(i))}
	p.Spec = v1alpha1.EgressGatewayPolicySpec{
		Rules: []v1alpha1.EgressRule{{Destination: &v1alpha1.EgressDestination{CIDR: "10.0.0.0/8"}},
			{Destination: &v1alpha1.EgressDestination{CIDR: fmt.Sprintf("11.%d.%d.0/24", i/256, i%256)}, Gateway: leadTo(codeOf(i), 2)},
			{Gateway: leadTo(codeOf(i+7), 0)}},
		Clients: []v1alpha1.ClientSelector{{Selector: fmt.Sprintf("app == 'app%d'", i), NamespaceSelector: "all()"}}}
	return create(ctx, w.objects, "egressgatewaypolicies", "", p)
}

// podOf is the i-th of the pods: 25 in a namespace, a hundred on a node. A third
// is bound by its namespace, a third by annotation, a third by the policies' selectors.
func podOf(i int) *corev1.Pod {
	number := 1 + i%nodes
	four, six := addressesOf(number, 1+i/nodes)
	p := newPod(fmt.Sprintf("ns%03d", i/25), fmt.Sprintf("pod%04d", i), number, four, six)
	p.Labels = map[string]string{"app": fmt.Sprintf("app%d", i/10), "tier": fmt.Sprint(i % 2)}
	if i/25%3 == 1 {
		p.Annotations = map[string]string{cluster.AnnotationPolicy: policyOf(i)}
	}
	return p
}

// policyOf is the policy that the i-th pod is bound to, by whatever way.
func policyOf(i int) string {
	switch namespace := i / 25; namespace % 3 {
	case 0:
		return policyName(namespace)
	case 1:
		return policyName((i + i/nodes) % policies)
	}
	return policyName(i / 10)
}

// policiesHere are the policies of the pods on the node that is looked at, and one that
// none of them has.
func policiesHere() (known []string, fresh string) {
	has := map[string]bool{}
	for i := here - 1; i < pods; i += nodes {
		has[policyOf(i)] = true
	}
	for i := range policies {
		if !has[policyName(i)] {
			fresh = policyName(i)
		}
	}
	return slices.Sorted(maps.Keys(has)), fresh
}

func newPod(namespace, name string, node int, addresses ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.PodSpec{NodeName: nodeName(node), Containers: []corev1.Container{{Name: "main", Image: "none"}}}}
	p.Status = statusOf(addresses)
	return p
}

func statusOf(addresses []string) corev1.PodStatus {
	s := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addresses[0]}
	for _, a := range addresses {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a})
	}
	return s
}

// createPod does what scheduler and kubelet do: the pod first, its addresses later.
func (w *world) createPod(ctx context.Context, p *corev1.Pod) error {
	status := p.Status
	if err := create(ctx, w.core, "pods", p.Namespace, p); err != nil {
		return err
	}
	p.Status = status
	return putStatus(ctx, w.core, "pods", p)
}
