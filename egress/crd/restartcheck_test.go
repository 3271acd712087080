package crd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/crd/v1alpha1"
	"github.com/egret-router/egret/lab/kube"
)

// settles waits until what is there is what the writers had acknowledged, no more
// and no less, and its status says so.
func (w *world) settles(list []*writer) {
	w.t.Helper()
	want := map[string]wanted{}
	for _, one := range list {
		for name, o := range one.has {
			want[o.resource+" "+name] = o
		}
	}
	kube.Eventually(w.t, 3*time.Minute, "everything in its place", func() error {
		var gateways v1alpha1.EgressGatewayList
		var pools v1alpha1.EgressPoolList
		var policies v1alpha1.EgressGatewayPolicyList
		for resource, into := range map[string]any{"egressgateways": &gateways, "egresspools": &pools, "egressgatewaypolicies": &policies} {
			text, err := w.client.objects.Get().Resource(resource).Do(w.t.Context()).Raw()
			if err == nil {
				err = json.Unmarshal(text, into)
			}
			if err != nil {
				return err
			}
		}
		left := map[string]wanted{}
		for k, v := range want {
			left[k] = v
		}
		for _, p := range policies.Items {
			if err := expect(left, "egressgatewaypolicies", &p, p.Spec, p.Status.Conditions, true); err != nil {
				return err
			}
		}
		exists, held := map[string]bool{}, map[string]int{}
		for _, p := range pools.Items {
			if p.DeletionTimestamp != nil {
				if _, wanted := left["egresspools "+p.Name]; wanted || len(p.Status.Allocations) == 0 {
					return fmt.Errorf("pool %s is being deleted, with %d blocks held", p.Name, len(p.Status.Allocations))
				}
				continue
			}
			exists[p.Name] = true
			if p.Name == "shared" {
				continue
			}
			if err := expect(left, "egresspools", &p, p.Spec, p.Status.Conditions, true); err != nil {
				return err
			}
		}
		for _, g := range gateways.Items {
			pool := g.Spec.IPPools[0].Name
			if err := expect(left, "egressgateways", &g, g.Spec, g.Status.Conditions, exists[pool]); err != nil {
				return err
			}
			if !exists[pool] {
				continue // it stands where it stood
			}
			if n := int(*g.Spec.Replicas); len(g.Status.Instances) != n || int(g.Status.Replicas) != n {
				return fmt.Errorf("gateway %s of %d replicas is at %+v", g.Name, n, g.Status.Instances)
			}
			held[pool] += len(g.Status.Instances)
		}
		if len(left) > 0 {
			return fmt.Errorf("lost: %v", left)
		}
		for _, p := range pools.Items {
			if p.DeletionTimestamp != nil {
				continue
			}
			if n := held[p.Name] * len(p.Spec.Prefixes); len(p.Status.Allocations) != n || int(p.Status.Allocated) != n {
				return fmt.Errorf("pool %s: %d held, it says %d, want %d", p.Name, len(p.Status.Allocations), p.Status.Allocated, n)
			}
		}
		return nil
	})
}

// expect takes an object out of what is left to be found.
func expect(left map[string]wanted, resource string, o metav1.Object, spec any, conditions []metav1.Condition, ready bool) error {
	key := resource + " " + o.GetName()
	w, ok := left[key]
	switch {
	case !ok:
		return fmt.Errorf("%s was deleted, and is there", key)
	case o.GetLabels()[labelToken] != w.token || o.GetDeletionTimestamp() != nil:
		return fmt.Errorf("%s is another one: %v", key, o.GetLabels())
	case !reflect.DeepEqual(spec, w.spec):
		return fmt.Errorf("%s is %+v, want %+v", key, spec, w.spec)
	case len(conditions) != 1 || (conditions[0].Status == metav1.ConditionTrue) != ready || conditions[0].ObservedGeneration != o.GetGeneration():
		return fmt.Errorf("%s of generation %d says %+v, want ready %v", key, o.GetGeneration(), conditions, ready)
	}
	delete(left, key)
	return nil
}

// checkHistory holds, in every version that etcd ever had, that a block has one
// holder, who loses it only when the gateway is not placed on the node any more.
func (w *world) checkHistory() {
	w.t.Helper()
	versions, err := w.History(w.t.Context(), v1alpha1.GroupVersion.Group)
	if err != nil {
		w.t.Fatal(err)
	}
	h := history{placed: map[string]map[string]bool{}, uids: map[string]string{}, held: map[string]map[netip.Prefix]v1alpha1.Allocation{},
		last: map[netip.Prefix]v1alpha1.Allocation{}, told: map[string][]string{}}
	for _, v := range versions {
		if err := h.look(v); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Logf("%d versions; %d blocks, which changed hands %d times", len(versions), len(h.last), h.changes)
	if h.changes == 0 {
		w.t.Error("no block ever changed hands: the test tests nothing")
	}
}

// history is what was from one version to the next.
type history struct {
	placed  map[string]map[string]bool                      // nodes by UID of a gateway
	uids    map[string]string                               // by namespace/name
	held    map[string]map[netip.Prefix]v1alpha1.Allocation // by pool
	last    map[netip.Prefix]v1alpha1.Allocation            // who had a block last
	told    map[string][]string                             // where a gateway was
	changes int
}

func (h *history) look(v kube.Version) error {
	if v.Object == nil {
		if v.Resource == "egressgateways" {
			delete(h.placed, h.uids[v.Namespace+"/"+v.Name])
		}
		return nil
	}
	switch v.Resource {
	case "egressgateways":
		var g v1alpha1.EgressGateway
		if err := json.Unmarshal(v.Object, &g); err != nil {
			return err
		}
		h.uids[v.Namespace+"/"+v.Name] = string(g.UID)
		h.placed[string(g.UID)] = map[string]bool{}
		for _, i := range g.Status.Instances {
			h.placed[string(g.UID)][i.Node] = true
		}
		h.told[string(g.UID)] = append(h.told[string(g.UID)], fmt.Sprintf("%d: at %+v, deleted %v", v.Revision, g.Status.Instances, g.DeletionTimestamp))
	case "egresspools":
		var p v1alpha1.EgressPool
		if err := json.Unmarshal(v.Object, &p); err != nil {
			return err
		}
		return h.pool(v.Revision, v.Name, p.Status.Allocations)
	}
	return nil
}

// pool looks at a version of one: what somebody loses must not be in use.
func (h *history) pool(revision int64, name string, allocations []v1alpha1.Allocation) error {
	var errs []error
	is := map[netip.Prefix]v1alpha1.Allocation{}
	for i, a := range allocations {
		block := netip.MustParsePrefix(a.Block)
		is[block] = a
		for _, other := range allocations[:i] {
			if netip.MustParsePrefix(other.Block).Overlaps(block) {
				errs = append(errs, fmt.Errorf("revision %d: %+v and %+v", revision, other, a))
			}
		}
		if last, ever := h.last[block]; ever && last != a {
			h.changes++
		}
		h.last[block] = a
	}
	for block, was := range h.held[name] {
		if is[block] != was && h.placed[was.UID][was.Node] {
			errs = append(errs, fmt.Errorf("revision %d: %s@%s is placed there, and loses block %s to %+v; it was:\n  %s", revision, was.Gateway, was.Node, block, is[block],
				strings.Join(h.told[was.UID], "\n  ")))
		}
	}
	h.held[name] = is
	return errors.Join(errs...)
}
