package crd

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// TestKept: a View does not depend on those before it, and an event converts one object.
func TestKept(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	w, known := filled(t, 200, 20, 3), newConversions(ownNamespace)
	for step := range 300 {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("ns-%d", random.IntN(100)), Name: fmt.Sprintf("pod-%d", random.IntN(250)), Labels: map[string]string{"step": fmt.Sprint(step)}},
			Spec: corev1.PodSpec{NodeName: "node-1"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.9.0.%d", step%256)}}}}
		policy := &v1alpha1.EgressGatewayPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("policy-%d", random.IntN(25))}}
		var err error
		switch random.IntN(5) {
		case 0:
			err = w.pods.store.Delete(w.pods.store.List()[random.IntN(len(w.pods.store.List()))])
		case 1:
			pod.Spec.HostNetwork = true
			err = w.pods.store.Add(pod)
		case 2:
			pod.Annotations = map[string]string{AnnotationMaintenanceIP: "198.51.100.1"}
			err = w.pods.store.Add(pod)
		case 3:
			err = w.policies.store.Add(policy)
		case 4:
			err = w.policies.store.Delete(policy)
		}
		if err != nil {
			t.Fatal(err)
		}
		if random.IntN(3) == 0 {
			continue // several changes in one View
		}
		got, want := w.view(known), w.view(newConversions(ownNamespace))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("step %d: %+v instead of %+v", step, got, want)
		}
	}
	converted := 0
	count := func(p *corev1.Pod) madePod { converted++; return makePod(p) }
	if err := w.pods.store.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "new"}}); err != nil {
		t.Fatal(err)
	}
	for range known.pods.look(w.pods, count) {
	}
	if converted != 1 {
		t.Errorf("one new pod: %d were converted", converted)
	}
}
