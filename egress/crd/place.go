package crd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// setInstances records where a gateway is placed, if that is still where from
// says, and no block is left there of an earlier time: else ErrStale. Whoever takes
// such a block away looks whether the gateway is placed before, not after.
func (c *Client) setInstances(ctx context.Context, g *cluster.Gateway, to []cluster.Instance) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var object v1alpha1.EgressGateway
	err := c.objects.Get().Resource("egressgateways").Namespace(g.Namespace).Name(g.Name).Do(ctx).Into(&object)
	if err != nil {
		return fmt.Errorf("read gateway %s: %w", g.Key(), err)
	}
	now, _ := convertGateway(&object, nil)
	if string(object.UID) != g.UID || !slices.EqualFunc(now.Instances, g.Instances, sameInstance) {
		return fmt.Errorf("place gateway %s: %w", g.Key(), ErrStale)
	}
	if err := c.nothingLeft(ctx, g, to); err != nil {
		return fmt.Errorf("place gateway %s: %w", g.Key(), err)
	}
	object.Status.Instances, object.Status.Replicas = nil, 0
	placed := map[string]bool{}
	for _, i := range to {
		entry := v1alpha1.Instance{Node: i.Node}
		placed[i.Node] = true
		if i.Draining.IsZero() {
			object.Status.Replicas++
		} else {
			at := metav1.NewMicroTime(i.Draining)
			entry.Draining = &at
		}
		object.Status.Instances = append(object.Status.Instances, entry)
	}
	object.Status.PlacedOn = placedOn(to)
	// What nodes say that have nothing to say any more, dead ones for one.
	object.Status.Nodes = slices.DeleteFunc(object.Status.Nodes, func(n v1alpha1.NodeState) bool { return !placed[n.Node] })
	err = c.objects.Put().Resource("egressgateways").Namespace(g.Namespace).Name(g.Name).SubResource("status").
		Param("fieldManager", managerController).Body(&object).Do(ctx).Error()
	if err != nil {
		return stale(fmt.Errorf("place gateway %s: %w", g.Key(), err))
	}
	return nil
}

// namedNodes bounds how many nodes a line of kubectl get names.
const namedNodes = 4

// placedOn are the nodes of a gateway, for people.
func placedOn(instances []cluster.Instance) string {
	var names []string
	for _, i := range instances {
		if i.Draining.IsZero() {
			names = append(names, i.Node)
		}
	}
	for _, i := range instances {
		if !i.Draining.IsZero() {
			names = append(names, i.Node+" (leaves)")
		}
	}
	text := strings.Join(names[:min(len(names), namedNodes)], ", ")
	if more := len(names) - namedNodes; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// sameInstance compares as precisely as the API server keeps times.
func sameInstance(a, b cluster.Instance) bool {
	return a.Node == b.Node && a.Draining.UnixMicro() == b.Draining.UnixMicro()
}

// setAllocations records who holds the blocks of a pool, if nobody recorded
// anything else since: else ErrStale. The API server lets one of several writers win,
// so a block has one holder at any time.
//
// The watches of pools and of gateways are not of one moment: a block may seem to be
// nobody's because its gateway's placement has not been heard of yet. So what is to
// be taken from a gateway is taken only if that is still placed as in from, where the
// decision was made, or in placed, what it was decided to be.
func (c *Client) setAllocations(ctx context.Context, from *cluster.Snapshot, placed []cluster.Placement, pool *cluster.Pool, to []cluster.Allocation) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var object v1alpha1.EgressPool
	if err := c.objects.Get().Resource("egresspools").Name(pool.Name).Do(ctx).Into(&object); err != nil {
		return fmt.Errorf("read pool %s: %w", pool.Name, err)
	}
	now, _ := convertPool(&object)
	if !slices.Equal(now.Allocations, pool.Allocations) || !slices.Equal(now.Raw.Prefixes, pool.Raw.Prefixes) || now.Deleted != pool.Deleted {
		return fmt.Errorf("allocate from pool %s: %w", pool.Name, ErrStale)
	}
	if err := c.stillPlaced(ctx, from, placed, now.Allocations, to); err != nil {
		return fmt.Errorf("take blocks of pool %s: %w", pool.Name, err)
	}
	object.Status.Allocations = nil
	for _, a := range to {
		object.Status.Allocations = append(object.Status.Allocations,
			v1alpha1.Allocation{Block: a.Block.String(), Gateway: a.Gateway, Node: a.Node, UID: a.UID})
	}
	object.Status.Allocated = int32(len(to))
	err := c.objects.Put().Resource("egresspools").Name(pool.Name).SubResource("status").
		Param("fieldManager", managerController).Body(&object).Do(ctx).Error()
	if err != nil {
		return stale(fmt.Errorf("allocate from pool %s: %w", pool.Name, err))
	}
	return nil
}

// stillPlaced is ErrStale if a gateway that is to lose a block is placed otherwise
// than in from or placed.
func (c *Client) stillPlaced(ctx context.Context, from *cluster.Snapshot, placed []cluster.Placement, have, to []cluster.Allocation) error {
	kept := make(map[cluster.Allocation]bool, len(to))
	for _, a := range to {
		kept[a] = true
	}
	loses := map[string]string{} // UID by namespace/name
	for _, a := range have {
		if !kept[a] {
			loses[a.Gateway] = a.UID
		}
	}
	if len(loses) == 0 {
		return nil
	}
	known := map[string]int{} // places in from
	for i := range from.Gateways {
		known[from.Gateways[i].UID] = i
	}
	return c.eachGateway(ctx, loses, func(object *v1alpha1.EgressGateway) error {
		now, _ := convertGateway(object, nil)
		if loses[now.Key()] != now.UID {
			return nil
		}
		i, ok := known[now.UID]
		if ok && (slices.EqualFunc(now.Instances, from.Gateways[i].Instances, sameInstance) || slices.EqualFunc(now.Instances, placed[i].Instances, sameInstance)) {
			return nil
		}
		return fmt.Errorf("gateway %s: %w", now.Key(), ErrStale)
	})
}

// fewGateways are read one by one, more of them all at once.
const fewGateways = 2

// eachGateway reads gateways, by namespace/name, and hands over those that exist; of
// many, others as well.
func (c *Client) eachGateway(ctx context.Context, names map[string]string, look func(*v1alpha1.EgressGateway) error) error {
	if len(names) > fewGateways {
		var list v1alpha1.EgressGatewayList
		if err := c.objects.Get().Resource("egressgateways").Do(ctx).Into(&list); err != nil {
			return fmt.Errorf("read gateways: %w", err)
		}
		for i := range list.Items {
			if err := look(&list.Items[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for key := range names {
		namespace, name, _ := strings.Cut(key, "/")
		var object v1alpha1.EgressGateway
		err := c.objects.Get().Resource("egressgateways").Namespace(namespace).Name(name).Do(ctx).Into(&object)
		if err == nil {
			err = look(&object)
		}
		if err != nil && !isGone(err) {
			return fmt.Errorf("read gateway %s: %w", key, err)
		}
	}
	return nil
}

// nothingLeft is ErrStale if the pool has a block for a node that a gateway is to
// come to: of its last time there, and not free yet.
func (c *Client) nothingLeft(ctx context.Context, g *cluster.Gateway, to []cluster.Instance) error {
	comes := map[string]bool{}
	for _, i := range to {
		comes[i.Node] = true
	}
	for _, i := range g.Instances {
		delete(comes, i.Node)
	}
	if len(comes) == 0 || g.Pool == "" {
		return nil
	}
	var object v1alpha1.EgressPool
	err := c.objects.Get().Resource("egresspools").Name(g.Pool).Do(ctx).Into(&object)
	if err != nil {
		if isGone(err) {
			return nil
		}
		return fmt.Errorf("read pool %s: %w", g.Pool, err)
	}
	for _, a := range object.Status.Allocations {
		if a.Gateway == g.Key() && a.UID == g.UID && comes[a.Node] {
			return fmt.Errorf("block %s is not free yet: %w", a.Block, ErrStale)
		}
	}
	return nil
}
