package crd

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/lab/kube"
)

const ownNamespace = "egret-system"

// world is an API server with our objects and a client.
type world struct {
	*kube.Server
	t      *testing.T
	client *Client
	// user is whose rights connect takes; the administrator unless set.
	user string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Server: startServer(t), t: t}
	w.client = w.connect()
	w.apply("{apiVersion: v1, kind: Namespace, metadata: {name: " + ownNamespace + "}}")
	return w
}

func (w *world) connect() *Client {
	w.t.Helper()
	c, err := Connect(w.Kubeconfig(cmp.Or(w.user, "admin")), "egret-test")
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) apply(texts ...string) {
	w.t.Helper()
	if err := w.Apply(strings.Join(texts, "\n---\n")); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	out, err := w.Kubectl(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// node adds a node that is ready, with addresses and prefixes made of its number.
func (w *world) node(number int) string {
	w.t.Helper()
	name := fmt.Sprintf("n%d", number)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rack": name}}}
	node.Spec.PodCIDRs = []string{fmt.Sprintf("10.244.%d.0/24", number), fmt.Sprintf("fd00:244:%d::/64", number)}
	ctx := w.t.Context()
	if err := w.client.core.Post().Resource("nodes").Body(node).Do(ctx).Into(node); err != nil {
		w.t.Fatal(err)
	}
	node.Spec.Taints = nil
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Test", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.0.%d", number)}}
	if err := w.client.core.Put().Resource("nodes").Name(name).SubResource("status").Body(node).Do(ctx).Error(); err != nil {
		w.t.Fatal(err)
	}
	return name
}

// pod adds a pod that runs.
func (w *world) pod(namespace, name, node, address string, annotations map[string]string) {
	w.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Annotations: annotations, Labels: map[string]string{"app": name}}}
	pod.Spec = corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "none"}}}
	ctx := w.t.Context()
	if err := w.client.core.Post().Resource("pods").Namespace(namespace).Body(pod).Do(ctx).Into(pod); err != nil {
		w.t.Fatal(err)
	}
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, address, []corev1.PodIP{{IP: address}}
	if err := w.client.core.Put().Resource("pods").Namespace(namespace).Name(name).SubResource("status").Body(pod).Do(ctx).Error(); err != nil {
		w.t.Fatal(err)
	}
}

const (
	redNetwork = `{apiVersion: egret-router.io/v1alpha1, kind: ExternalNetwork, metadata: {name: red}, spec: {
  hosts: [{interfaces: [{name: eth1, addresses: [172.16.0.1/30]}]}],
  bgp: {asn: 64512, peers: [{address: 172.16.0.2, asn: 65001, password: {secretKeyRef: {name: peers, key: red}}}]}}}`
	redPool    = `{apiVersion: egret-router.io/v1alpha1, kind: EgressPool, metadata: {name: red}, spec: {network: red, prefixes: [198.51.100.0/28, "2001:db8:100::/120"]}}`
	redGateway = `{apiVersion: egret-router.io/v1alpha1, kind: EgressGateway, metadata: {name: red, namespace: default}, spec: {replicas: 2, ipPools: [{name: red}], terminationGracePeriodSeconds: 3}}`
	redPolicy  = `{apiVersion: egret-router.io/v1alpha1, kind: EgressGatewayPolicy, metadata: {name: red}, spec: {rules: [
  {destination: {cidr: 10.0.0.0/8}}, {gateway: {selector: "egret-router.io/egw == 'red'", namespaceSelector: all()}}]}}`
)

// readyIs prints the condition Ready: status, reason, message.
const readyIs = `--output=jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason} {.message}{end}`

// viewer keeps the last View that a Source delivered.
type viewer struct {
	mu    sync.Mutex
	views int
	last  View
}

func (v *viewer) deliver(view View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.views, v.last = v.views+1, view
}

func (v *viewer) get() (View, int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last, v.views
}

// waitFor waits for a View that check accepts.
func (v *viewer) waitFor(t *testing.T, what string, check func(View) error) View {
	t.Helper()
	var found View
	kube.Eventually(t, time.Minute, what, func() error {
		view, n := v.get()
		if n == 0 {
			return fmt.Errorf("nothing was delivered")
		}
		found = view
		return check(view)
	})
	return found
}

// source runs a Source to the end of the test, or until stop.
func (w *world) source(o SourceOptions) (*viewer, context.CancelFunc) {
	v := &viewer{}
	if o.Deliver == nil {
		o.Deliver = v.deliver
	}
	o.Namespace, o.Log = ownNamespace, slog.New(slog.DiscardHandler)
	return v, w.background(NewSource(w.connect(), o).Run)
}

// background runs something to the end of the test, or until stop, which waits.
func (w *world) background(run func(context.Context) error) (stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(stop)
	return stop
}

// controller runs a Source and a Controller.
func (w *world) controller(identity string) (stop context.CancelFunc) {
	c := NewController(w.connect(), ControllerOptions{Identity: identity, Namespace: ownNamespace, Mode: cluster.PerNamespaceOrPerPod,
		Log: slog.New(slog.DiscardHandler), Election: ElectionOptions{Lease: 3 * time.Second, Renew: 2 * time.Second, Retry: 200 * time.Millisecond}})
	_, stopSource := w.source(SourceOptions{Role: RoleController, Deliver: c.Deliver})
	stopController := w.background(c.Run)
	return func() { stopController(); stopSource() }
}

// eventually waits until kubectl prints what is wanted.
func (w *world) eventually(want string, args ...string) {
	w.t.Helper()
	kube.Eventually(w.t, time.Minute, fmt.Sprintf("%q from kubectl %s", want, strings.Join(args, " ")), func() error {
		got, err := w.Kubectl(args...)
		if err != nil {
			return err
		}
		if !strings.Contains(got, want) {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}
