package crd

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// View is the cluster at one moment.
type View struct {
	Snapshot cluster.Snapshot
	// Problems are what is wrong with objects that cannot be said in a Snapshot.
	Problems []cluster.Problem
	// Live is false for what was read from the disk.
	Live bool

	objects map[objectKey]objectState
	// maintained are the maintenance annotations that pods have, by namespace/name.
	maintained map[string]maintenance
	// notReady are the nodes with the taint of agents that are not ready yet.
	notReady map[string]bool
}

// objectKey names one of our objects.
type objectKey struct{ kind, namespace, name string }

// objectState is what the controller needs to know of an object beside what it means.
type objectState struct {
	uid        string
	generation int64
	finalizers []string
	deleted    bool
	ready      *metav1.Condition
	nodes      []v1alpha1.NodeState
	allocated  int32
	replicas   int32
}

func stateOf(o metav1.Object, conditions []metav1.Condition) objectState {
	s := objectState{uid: string(o.GetUID()), generation: o.GetGeneration(), finalizers: o.GetFinalizers(), deleted: o.GetDeletionTimestamp() != nil}
	for i := range conditions {
		if conditions[i].Type == v1alpha1.ConditionReady {
			s.ready = &conditions[i]
		}
	}
	return s
}

// view converts what the watches have, sorted. Conversions of our own objects are kept
// from one time to the next, by resource version.
func (w *watches) view(known *conversions) View {
	v := View{Live: true, objects: map[objectKey]objectState{}, maintained: map[string]maintenance{}, notReady: map[string]bool{}}
	s := &v.Snapshot
	for _, n := range items[corev1.Node](w.nodes) {
		s.Nodes = append(s.Nodes, convertNode(n))
		if hasTaint(n) {
			v.notReady[n.Name] = true
		}
	}
	for _, n := range items[corev1.Namespace](w.namespaces) {
		s.Namespaces = append(s.Namespaces, cluster.Namespace{Name: n.Name, Labels: n.Labels, Binding: convertBinding(n.Annotations)})
	}
	s.Pods = slices.Grow(s.Pods, len(known.pods.order))
	for p, made := range known.pods.look(w.pods, makePod) {
		if made.told {
			v.maintained[p.Namespace+"/"+p.Name] = made.maintenance
		}
		if made.counts {
			s.Pods = append(s.Pods, made.pod)
		}
	}
	for p, policy := range known.policies.look(w.policies, convertPolicy) {
		s.Policies = append(s.Policies, policy)
		v.objects[objectKey{cluster.KindPolicy, "", p.Name}] = stateOf(p, p.Status.Conditions)
	}
	var find secrets
	if w.secrets.store != nil {
		find = w.secret(known.ownNamespace)
	}
	for _, n := range items[v1alpha1.ExternalNetwork](w.networks) {
		network, problems := known.network(n, find)
		s.Networks, v.Problems = append(s.Networks, network), append(v.Problems, problems...)
		v.objects[objectKey{cluster.KindNetwork, "", n.Name}] = stateOf(n, n.Status.Conditions)
	}
	for _, p := range items[v1alpha1.EgressPool](w.pools) {
		pool, problems := known.pool(p)
		s.Pools, v.Problems = append(s.Pools, pool), append(v.Problems, problems...)
		state := stateOf(p, p.Status.Conditions)
		state.allocated = p.Status.Allocated
		v.objects[objectKey{cluster.KindPool, "", p.Name}] = state
	}
	for _, g := range items[v1alpha1.EgressGateway](w.gateways) {
		gateway, problems := convertGateway(g, s.Pools)
		s.Gateways, v.Problems = append(s.Gateways, gateway), append(v.Problems, problems...)
		state := stateOf(g, g.Status.Conditions)
		state.nodes, state.replicas = g.Status.Nodes, g.Status.Replicas
		v.objects[objectKey{cluster.KindGateway, g.Namespace, g.Name}] = state
	}
	slices.SortFunc(v.Problems, func(a, b cluster.Problem) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Field, b.Field))
	})
	return v
}

func (w *watches) secret(namespace string) secrets {
	return func(name, key string) (string, bool) {
		item, ok, err := w.secrets.store.GetByKey(namespace + "/" + name)
		if err != nil || !ok {
			return "", false
		}
		secret, ok := item.(*corev1.Secret)
		if !ok {
			return "", false
		}
		value, ok := secret.Data[key]
		return string(value), ok
	}
}

// conversions remembers pods and policies, of which there are many, and networks and
// pools, whose conversion goes through the decoder of the file.
type conversions struct {
	ownNamespace string
	pods         kept[*corev1.Pod, madePod]
	policies     kept[*v1alpha1.EgressGatewayPolicy, cluster.Policy]
	networks     map[string]converted[cluster.Network]
	pools        map[string]converted[cluster.Pool]
}

// madePod is what a pod means; without counts it has no traffic, without told no
// maintenance.
type madePod struct {
	pod          cluster.Pod
	maintenance  maintenance
	counts, told bool
}

func makePod(p *corev1.Pod) (m madePod) {
	m.maintenance, m.told = maintenanceOf(p.Annotations)
	m.pod, m.counts = convertPod(p)
	return m
}

type converted[T any] struct {
	version  string // UID and resource version
	result   T
	problems []cluster.Problem
}

func newConversions(namespace string) *conversions {
	return &conversions{ownNamespace: namespace, networks: map[string]converted[cluster.Network]{}, pools: map[string]converted[cluster.Pool]{}}
}

// network is not remembered where it depends on Secrets.
func (c *conversions) network(n *v1alpha1.ExternalNetwork, find secrets) (cluster.Network, []cluster.Problem) {
	version := string(n.UID) + n.ResourceVersion
	usesSecrets := find != nil && n.Spec.BGP != nil && slices.ContainsFunc(n.Spec.BGP.Peers, func(p v1alpha1.Peer) bool { return p.Password != nil })
	if known, ok := c.networks[n.Name]; ok && known.version == version && !usesSecrets {
		return known.result, known.problems
	}
	network, problems := convertNetwork(n, find)
	c.networks[n.Name] = converted[cluster.Network]{version, network, problems}
	return network, problems
}

func (c *conversions) pool(p *v1alpha1.EgressPool) (cluster.Pool, []cluster.Problem) {
	version := string(p.UID) + p.ResourceVersion
	if known, ok := c.pools[p.Name]; ok && known.version == version {
		return known.result, known.problems
	}
	pool, problems := convertPool(p)
	c.pools[p.Name] = converted[cluster.Pool]{version, pool, problems}
	return pool, problems
}
