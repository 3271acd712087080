package crd

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/egret-router/egret/egress/crd/v1alpha1"
	"github.com/egret-router/egret/lab/kube"
)

// labelToken is on the objects of a writer: another one for each that it makes, so
// that it knows its own from one of before under the same name.
const labelToken = "token"

// wanted is an object that a writer made or changed, and had acknowledged.
type wanted struct {
	resource string // plural
	token    string
	spec     any
}

// writer makes, changes and deletes objects of its own, each change until the API
// server acknowledges it. What it knows to be there is in has.
type writer struct {
	t      *testing.T
	client *Client
	number int
	random *rand.Rand
	has    map[string]wanted // by name
	made   int
	acked  *atomic.Int32
}

func (w *writer) request(method func() error) {
	for w.t.Context().Err() == nil {
		if method() == nil {
			w.acked.Add(1)
			return
		}
		select {
		case <-w.t.Context().Done():
		case <-time.After(20 * time.Millisecond): // the API server is away, or the object is still leaving
		}
	}
}

func namespaceOf(resource string) string {
	if resource == "egressgateways" {
		return "default"
	}
	return ""
}

func (w *writer) body(name string, o wanted) runtime.Object {
	meta := metav1.ObjectMeta{Name: name, Namespace: namespaceOf(o.resource), Labels: map[string]string{labelToken: o.token}}
	switch spec := o.spec.(type) {
	case v1alpha1.EgressGatewaySpec:
		return &v1alpha1.EgressGateway{ObjectMeta: meta, Spec: spec}
	case v1alpha1.EgressPoolSpec:
		return &v1alpha1.EgressPool{ObjectMeta: meta, Spec: spec}
	case v1alpha1.EgressGatewayPolicySpec:
		return &v1alpha1.EgressGatewayPolicy{ObjectMeta: meta, Spec: spec}
	}
	panic(fmt.Sprintf("%T", o.spec))
}

// put makes an object, or changes its spec.
func (w *writer) put(name string, o wanted) {
	old, exists := w.has[name]
	o.token = old.token
	if !exists {
		w.made++
		o.token = fmt.Sprintf("%d-%d", w.number, w.made)
	}
	w.request(func() error {
		ctx := w.t.Context()
		have := reflect.New(reflect.TypeOf(w.body(name, o)).Elem()).Interface().(interface {
			runtime.Object
			metav1.Object
		})
		err := w.client.objects.Get().Resource(o.resource).NamespaceIfScoped(namespaceOf(o.resource), namespaceOf(o.resource) != "").Name(name).Do(ctx).Into(have)
		switch {
		case apierrors.IsNotFound(err) && !exists:
			return w.client.objects.Post().Resource(o.resource).NamespaceIfScoped(namespaceOf(o.resource), namespaceOf(o.resource) != "").Body(w.body(name, o)).Do(ctx).Error()
		case err != nil:
			return err
		case have.GetLabels()[labelToken] != o.token:
			return fmt.Errorf("%s %s of before is still there", o.resource, name)
		}
		body := w.body(name, o).(metav1.Object)
		body.SetResourceVersion(have.GetResourceVersion())
		body.SetFinalizers(have.GetFinalizers())
		return w.client.objects.Put().Resource(o.resource).NamespaceIfScoped(namespaceOf(o.resource), namespaceOf(o.resource) != "").Name(name).Body(body.(runtime.Object)).Do(ctx).Error()
	})
	w.has[name] = o
}

func (w *writer) remove(name string) {
	o, exists := w.has[name]
	if !exists {
		return
	}
	w.request(func() error {
		err := w.client.objects.Delete().Resource(o.resource).NamespaceIfScoped(namespaceOf(o.resource), namespaceOf(o.resource) != "").Name(name).Do(w.t.Context()).Error()
		if isGone(err) {
			return nil
		}
		return err
	})
	delete(w.has, name)
}

// step is one thing that a user may do.
func (w *writer) step() {
	name := func(kind string, of int) string { return fmt.Sprintf("%s%d-%d", kind, w.number, w.random.IntN(of)) }
	own := fmt.Sprintf("own%d", w.number)
	switch w.random.IntN(8) {
	case 0, 1, 2:
		replicas, grace, pool := int32(1+w.random.IntN(3)), int64(w.random.IntN(2)), "shared"
		if _, has := w.has[own]; has && w.random.IntN(2) == 0 {
			pool = own
		}
		gateway := name("g", 3)
		if old, exists := w.has[gateway]; exists { // a pool is kept: that blocks change hands at once is the user's wish then
			pool = old.spec.(v1alpha1.EgressGatewaySpec).IPPools[0].Name
		}
		w.put(gateway, wanted{resource: "egressgateways", spec: v1alpha1.EgressGatewaySpec{Replicas: &replicas, Blocks: 1, TerminationGracePeriodSeconds: &grace,
			IPPools: []v1alpha1.PoolReference{{Name: pool}}}})
	case 3:
		w.remove(name("g", 3))
	case 4:
		if _, has := w.has[own]; !has { // it is there until nobody holds a block of it
			for i := range 3 {
				gateway := fmt.Sprintf("g%d-%d", w.number, i)
				if o, has := w.has[gateway]; has && o.spec.(v1alpha1.EgressGatewaySpec).IPPools[0].Name == own {
					w.remove(gateway)
				}
			}
		}
		w.put(own, wanted{resource: "egresspools", spec: v1alpha1.EgressPoolSpec{BlockSizeIPv4: 32, BlockSizeIPv6: 128, PoolSettings: v1alpha1.PoolSettings{Network: "red",
			Prefixes: []string{fmt.Sprintf("198.51.%d.0/28", w.number)}}}})
	case 5:
		w.remove(own)
	case 6:
		w.put(name("p", 4), wanted{resource: "egressgatewaypolicies", spec: v1alpha1.EgressGatewayPolicySpec{Rules: []v1alpha1.EgressRule{{GatewayPreference: "None",
			Destination: &v1alpha1.EgressDestination{CIDR: fmt.Sprintf("10.%d.0.0/16", w.random.IntN(256))}}}}})
	case 7:
		w.remove(name("p", 4))
	}
}

// TestRestartUnderLoad ends the API server three times while ten writers make,
// change and delete objects and three controllers, one of them beside the election,
// decide. Nothing that was acknowledged is lost, no address is given to a second
// holder while its first one is placed, and all who watch go on by themselves.
func TestRestartUnderLoad(t *testing.T) {
	const writers, restarts, between = 10, 3, 150
	w := newWorld(t)
	for i := range 3 {
		w.node(i + 1)
	}
	w.apply(redNetwork, object("EgressPool", "shared", "{network: red, prefixes: [203.0.113.0/24, '2001:db8:100::/120']}"))
	w.controller("one")
	w.controller("two")
	rogue := NewController(w.connect(), ControllerOptions{Identity: "rogue", Log: slog.New(slog.DiscardHandler)})
	_, _ = w.source(SourceOptions{Role: RoleController, Deliver: rogue.Deliver})
	w.background(func(ctx context.Context) error { rogue.lead(ctx); return nil })
	gateway, _ := w.source(SourceOptions{Role: RoleGateway, Node: "n1"})
	agent, _ := w.source(SourceOptions{Role: RoleAgent, Node: "n1"})

	var acked atomic.Int32
	var running sync.WaitGroup
	stop := make(chan struct{})
	list := make([]*writer, writers)
	for i := range list {
		list[i] = &writer{t: t, client: w.connect(), number: i, random: rand.New(rand.NewPCG(1, uint64(i))), has: map[string]wanted{}, acked: &acked}
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-t.Context().Done():
					return
				default:
					list[i].step()
				}
			}
		})
	}
	progress := func(what string) {
		t.Helper()
		from := acked.Load()
		kube.Eventually(t, 2*time.Minute, "changes "+what, func() error {
			if n := acked.Load() - from; n < between {
				return fmt.Errorf("%d acknowledged", n)
			}
			return nil
		})
	}
	progress("at the beginning")
	for i := range restarts {
		w.KillAPI()
		if err := w.StartAPI(t.Context()); err != nil {
			t.Fatal(err)
		}
		progress(fmt.Sprintf("after restart %d", i+1))
	}
	close(stop)
	running.Wait()
	w.settles(list)
	t.Logf("%d changes acknowledged", acked.Load())
	w.checkHistory()

	fresh, _ := w.source(SourceOptions{Role: RoleGateway, Node: "n1"})
	for name, old := range map[string]*viewer{"gateway's": gateway, "agent's": agent} {
		old.waitFor(t, "the same in the "+name+" watches as in new ones", func(v View) error {
			now, n := fresh.get()
			if n == 0 {
				return fmt.Errorf("the new ones have nothing yet")
			}
			now.Snapshot.Networks, v.Snapshot.Networks = nil, nil // an agent has none
			if diff := cmp.Diff(now.Snapshot, v.Snapshot, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				return fmt.Errorf("%s", diff)
			}
			return nil
		})
	}
}
