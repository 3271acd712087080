package crd

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// Role is what a process watches the cluster for.
type Role string

// The roles.
const (
	RoleController Role = "controller"
	// RoleGateway sees all pods, since they may be its clients, and the Secrets of
	// Egret's own namespace.
	RoleGateway Role = "gateway"
	// RoleAgent sees the pods of its node only.
	RoleAgent Role = "agent"
)

// watch is the copy of one kind of objects.
type watch struct {
	store      cache.Store
	controller cache.Controller
}

// synced says whether the copy was complete once. Only a process whose API server
// was never reached has one that was not.
func (w watch) synced() bool { return w.controller.HasSynced() }

// newWatch keeps a copy of a kind of objects, without what nobody here reads.
func newWatch(client rest.Interface, resource, namespace, selector string, object runtime.Object, changed func()) watch {
	lists := cache.NewFilteredListWatchFromClient(client, resource, namespace, func(o *metav1.ListOptions) { o.FieldSelector = selector })
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lists,
		ObjectType:    object,
		Transform:     strip,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		},
	})
	return watch{store, controller}
}

// watches are the copies that a role needs; a zero watch is one it does not need.
type watches struct {
	nodes, namespaces, pods, secrets    watch
	networks, pools, gateways, policies watch
}

func newWatches(c *Client, o SourceOptions, changed func()) *watches {
	w := &watches{
		nodes:      newWatch(c.core, "nodes", "", "", &corev1.Node{}, changed),
		namespaces: newWatch(c.core, "namespaces", "", "", &corev1.Namespace{}, changed),
		gateways:   newWatch(c.objects, "egressgateways", "", "", &v1alpha1.EgressGateway{}, changed),
		policies:   newWatch(c.objects, "egressgatewaypolicies", "", "", &v1alpha1.EgressGatewayPolicy{}, changed),
		pools:      newWatch(c.objects, "egresspools", "", "", &v1alpha1.EgressPool{}, changed),
	}
	pods := ""
	if o.Role == RoleAgent {
		pods = fields.OneTermEqualSelector("spec.nodeName", o.Node).String()
	} else {
		w.networks = newWatch(c.objects, "externalnetworks", "", "", &v1alpha1.ExternalNetwork{}, changed)
	}
	w.pods = newWatch(c.core, "pods", "", pods, &corev1.Pod{}, changed)
	if o.Role == RoleGateway {
		w.secrets = newWatch(c.core, "secrets", o.Namespace, "", &corev1.Secret{}, changed)
	}
	return w
}

// all are the watches that there are.
func (w *watches) all() []watch {
	var list []watch
	for _, one := range []watch{w.nodes, w.namespaces, w.pods, w.secrets, w.networks, w.pools, w.gateways, w.policies} {
		if one.controller != nil {
			list = append(list, one)
		}
	}
	return list
}

// items are the objects of a watch by namespace and name.
func items[T any, P interface {
	*T
	metav1.Object
}](w watch) []P {
	if w.store == nil {
		return nil
	}
	var list []P
	for _, item := range w.store.List() {
		if object, ok := item.(P); ok {
			list = append(list, object)
		}
	}
	slices.SortFunc(list, byName[P])
	return list
}

// strip takes out of an object what nobody here reads, so that large clusters cost
// little memory.
func strip(item any) (any, error) {
	object, ok := item.(metav1.Object)
	if !ok {
		return item, nil // the last known state of what was deleted unseen
	}
	object.SetManagedFields(nil)
	switch o := item.(type) {
	case *corev1.Pod:
		o.Annotations = ours(o.Annotations)
		o.OwnerReferences, o.Finalizers = nil, nil
		o.Spec = corev1.PodSpec{NodeName: o.Spec.NodeName, HostNetwork: o.Spec.HostNetwork}
		o.Status = corev1.PodStatus{Phase: o.Status.Phase, PodIPs: o.Status.PodIPs}
	case *corev1.Node:
		o.Annotations = ours(o.Annotations)
		o.Spec = corev1.NodeSpec{PodCIDRs: o.Spec.PodCIDRs, Unschedulable: isLeaving(o), Taints: slices.DeleteFunc(o.Spec.Taints, func(t corev1.Taint) bool { return t.Key != TaintAgentNotReady })}
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses, Conditions: o.Status.Conditions}
	case *corev1.Namespace:
		o.Annotations = ours(o.Annotations)
	case *corev1.Secret:
		o.Annotations, o.Labels = nil, nil
	case *v1alpha1.ExternalNetwork, *v1alpha1.EgressPool, *v1alpha1.EgressGateway, *v1alpha1.EgressGatewayPolicy:
		object.SetAnnotations(nil)
	default:
		return nil, fmt.Errorf("watched an unexpected %T", item)
	}
	return item, nil
}

func ours(annotations map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range annotations {
		if len(k) > len(annotationPrefix) && k[:len(annotationPrefix)] == annotationPrefix {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}
