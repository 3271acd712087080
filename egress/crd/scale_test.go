package crd

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// filled are watches with a large cluster in them, without an API server.
func filled(tb testing.TB, pods, policies, gateways int) *watches {
	tb.Helper()
	add := func(store cache.Store, object any) {
		stripped, err := strip(object)
		if err == nil {
			err = store.Add(stripped)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	one := func() watch { return watch{store: cache.NewStore(cache.MetaNamespaceKeyFunc)} }
	w := &watches{nodes: one(), namespaces: one(), pods: one(), secrets: one(), networks: one(), pools: one(), gateways: one(), policies: one()}
	for i := range pods {
		add(w.pods.store, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i), Namespace: fmt.Sprintf("ns-%d", i%100),
			Labels: map[string]string{"app": fmt.Sprint(i % 50)}, Annotations: map[string]string{cluster.AnnotationPolicy: fmt.Sprintf("policy-%d", i%policies)}},
			Spec:   corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%100)},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.244.%d.%d", i/250, i%250+1)}}}})
	}
	for i := range policies {
		add(w.policies.store, &v1alpha1.EgressGatewayPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("policy-%d", i)},
			Spec: v1alpha1.EgressGatewayPolicySpec{Rules: []v1alpha1.EgressRule{{Gateway: &v1alpha1.EgressGatewayReference{Selector: "all()", NamespaceSelector: "all()"}}}}})
	}
	add(w.networks.store, &v1alpha1.ExternalNetwork{ObjectMeta: metav1.ObjectMeta{Name: "red"}, Spec: v1alpha1.ExternalNetworkSpec{Hosts: []v1alpha1.Host{{Interfaces: []v1alpha1.Interface{{Name: "eth1"}}}}}})
	add(w.pools.store, &v1alpha1.EgressPool{ObjectMeta: metav1.ObjectMeta{Name: "red"}, Spec: v1alpha1.EgressPoolSpec{PoolSettings: v1alpha1.PoolSettings{Network: "red", Prefixes: []string{"198.51.100.0/24"}}}})
	for i := range gateways {
		add(w.gateways.store, &v1alpha1.EgressGateway{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("gateway-%d", i), Namespace: "default"},
			Spec: v1alpha1.EgressGatewaySpec{IPPools: []v1alpha1.PoolReference{{Name: "red"}}}})
	}
	return w
}

// BenchmarkView is one look at a cluster of 5,000 pods, 500 policies and 50
// gateways, as it follows every change.
func BenchmarkView(b *testing.B) {
	w, known := filled(b, 5000, 500, 50), newConversions(ownNamespace)
	for b.Loop() {
		if v := w.view(known); len(v.Snapshot.Pods) != 5000 || len(v.Problems) != 0 {
			b.Fatal(len(v.Snapshot.Pods), v.Problems)
		}
	}
}

// BenchmarkState is what it costs to keep the same cluster on the disk.
func BenchmarkState(b *testing.B) {
	v := filled(b, 5000, 500, 50).view(newConversions(ownNamespace))
	file := b.TempDir() + "/state"
	for b.Loop() {
		if err := writeState(file, savedState{Snapshot: v.Snapshot}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestViewOfLargeCluster holds that everything is in a View, in its order.
func TestViewOfLargeCluster(t *testing.T) {
	v := filled(t, 500, 50, 20).view(newConversions(ownNamespace))
	s := v.Snapshot
	if len(s.Pods) != 500 || len(s.Policies) != 50 || len(s.Gateways) != 20 || len(v.Problems) != 0 {
		t.Fatalf("%d pods, %d policies, %d gateways, %v", len(s.Pods), len(s.Policies), len(s.Gateways), v.Problems)
	}
	for i := range s.Pods[1:] {
		a, b := s.Pods[i], s.Pods[i+1]
		if a.Namespace > b.Namespace || a.Namespace == b.Namespace && a.Name >= b.Name {
			t.Fatalf("%s/%s before %s/%s", a.Namespace, a.Name, b.Namespace, b.Name)
		}
	}
}
