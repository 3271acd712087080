package crd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// The field managers: who owns which fields of a status. Each node is one more.
const (
	managerController  = "egret-controller"
	managerMaintenance = "egret-maintenance"
)

func managerOfNode(node string) string { return "egret-gateway-" + node }

// apply is a server-side apply: the manager's fields are what body says, no more
// and no less. An object that is gone is no error.
func apply(ctx context.Context, client rest.Interface, resource, namespace, name, subresource, manager string, body any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request := client.Patch(types.ApplyPatchType).Resource(resource).Name(name).
		Param("fieldManager", manager).Param("force", "true").Body(text)
	if namespace != "" {
		request = request.Namespace(namespace)
	}
	if subresource != "" {
		request = request.SubResource(subresource)
	}
	if err := request.Do(ctx).Error(); err != nil && !isGone(err) {
		return fmt.Errorf("apply %s %s of %s: %w", resource, strings.TrimPrefix(namespace+"/"+name, "/"), manager, err)
	}
	return nil
}

// resources are the plural names of our kinds.
var resources = map[string]string{
	cluster.KindNetwork: "externalnetworks",
	cluster.KindPool:    "egresspools",
	cluster.KindGateway: "egressgateways",
	cluster.KindPolicy:  "egressgatewaypolicies",
}

// intent is an object as one field manager sees it.
type intent struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        intentMeta `json:"metadata"`
	Status          any        `json:"status,omitempty"`
}

// intentMeta names an object. With a UID, one made anew under the old name is not
// meant: it is refused with a conflict.
type intentMeta struct {
	Name       string   `json:"name"`
	Namespace  string   `json:"namespace,omitempty"`
	UID        string   `json:"uid,omitempty"`
	Finalizers []string `json:"finalizers,omitempty"`
}

func intentFor(k objectKey, uid string) intent {
	return intent{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: k.kind},
		Metadata: intentMeta{Name: k.name, Namespace: k.namespace, UID: uid}}
}

// setCondition writes the condition of an object.
func (c *Client) setCondition(ctx context.Context, k objectKey, uid string, condition metav1.Condition) error {
	body := intentFor(k, uid)
	body.Status = map[string]any{"conditions": []metav1.Condition{condition}}
	return stale(apply(ctx, c.objects, resources[k.kind], k.namespace, k.name, "status", managerController, body))
}

// SetNodeState writes what a node says of a gateway there, in its own entry of
// the gateway's status; nil takes the entry away. The gateway is namespace/name.
func (c *Client) SetNodeState(ctx context.Context, namespace, name, node string, state *v1alpha1.NodeState) error {
	k := objectKey{cluster.KindGateway, namespace, name}
	body := intentFor(k, "")
	body.Status = map[string]any{}
	if state != nil {
		body.Status = map[string]any{"nodes": []v1alpha1.NodeState{*state}}
	}
	return apply(ctx, c.objects, resources[k.kind], namespace, name, "status", managerOfNode(node), body)
}

// finalizer keeps a deleted gateway until it has drained, and its addresses are
// free; and a deleted pool until nobody holds an address of it.
const finalizer = "egret-router.io/drain"

// setFinalizer adds or removes it.
func (c *Client) setFinalizer(ctx context.Context, k objectKey, uid string, wanted bool) error {
	body := intentFor(k, uid)
	if wanted {
		body.Metadata.Finalizers = []string{finalizer}
	}
	return stale(apply(ctx, c.objects, resources[k.kind], k.namespace, k.name, "", managerController, body))
}

// setMaintenance tells a pod of a gateway that leaves; the zero maintenance takes
// the annotations away. It is a merge patch: server-side apply would try to make a
// pod that is gone.
func (c *Client) setMaintenance(ctx context.Context, namespace, name string, m maintenance) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	annotations := map[string]any{AnnotationMaintenanceIP: nil, AnnotationMaintenanceStarted: nil, AnnotationMaintenanceFinished: nil}
	if m != (maintenance{}) {
		annotations = map[string]any{AnnotationMaintenanceIP: m.gatewayIP, AnnotationMaintenanceStarted: m.started, AnnotationMaintenanceFinished: m.finished}
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return err
	}
	err = c.core.Patch(types.MergePatchType).Resource("pods").Namespace(namespace).Name(name).
		Param("fieldManager", managerMaintenance).Body(text).Do(ctx).Error()
	if err != nil && !isGone(err) {
		return fmt.Errorf("annotate pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// addressOf is how a block is told to people: a single address without its length.
func addressOf(block netip.Prefix) string {
	if block.IsSingleIP() {
		return block.Addr().String()
	}
	return block.String()
}
