package crd

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/lab/kube"
)

// told is what a pod was told of a gateway's maintenance: addresses, begin, end.
func (w *world) told(pod string) string {
	w.t.Helper()
	var paths strings.Builder
	for _, key := range []string{AnnotationMaintenanceIP, AnnotationMaintenanceStarted, AnnotationMaintenanceFinished} {
		fmt.Fprintf(&paths, "{.metadata.annotations['%s']} ", strings.ReplaceAll(key, ".", `\.`))
	}
	return strings.TrimSpace(w.kubectl("get", "pod", pod, "--output=jsonpath="+paths.String()))
}

// expectTold waits until these pods, and no others, were told exactly this.
func (w *world) expectTold(want string, pods ...string) {
	w.t.Helper()
	kube.Eventually(w.t, time.Minute, fmt.Sprintf("%q in %q", want, pods), func() error {
		for _, pod := range strings.Fields(w.kubectl("get", "pods", "--output=jsonpath={.items[*].metadata.name}")) {
			expected := ""
			if slices.Contains(pods, pod) {
				expected = want
			}
			if got := w.told(pod); got != expected {
				return fmt.Errorf("pod %s was told %q, not %q", pod, got, expected)
			}
		}
		return nil
	})
}

// during is the time of maintenance of an instance, as annotations say it.
func (w *world) during(began string, grace time.Duration) string {
	w.t.Helper()
	from, err := time.Parse(time.RFC3339Nano, began)
	if err != nil {
		w.t.Fatal(err)
	}
	return from.UTC().Format(time.RFC3339) + " " + from.Add(grace).UTC().Format(time.RFC3339)
}

// addresses are those that a gateway holds on a node, as annotations say them.
func (w *world) addresses(gateway, node string) string {
	w.t.Helper()
	var list []string
	for block := range strings.FieldsSeq(w.kubectl("get", "epool", "red",
		`--output=jsonpath={range .status.allocations[?(@.gateway=="default/`+gateway+`")]}{.node}={.block} {end}`)) {
		if at, block, _ := strings.Cut(block, "="); at == node {
			list = append(list, strings.TrimSuffix(strings.TrimSuffix(block, "/32"), "/128"))
		}
	}
	return strings.Join(list, ",")
}

// TestMaintenance is case 14 of the documented behaviour: who is told of a gateway
// that leaves, and what, and who is not.
func TestMaintenance(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.node(i + 1)
	}
	gateway := func(name, node string, grace int) string {
		return object("EgressGateway", name, fmt.Sprintf("{replicas: 1, ipPools: [{name: red}], nodeSelector: rack == '%s', terminationGracePeriodSeconds: %d}", node, grace))
	}
	by := func(name string) string {
		return "gateway: {selector: egret-router.io/egw == '" + name + "', namespaceSelector: all()}"
	}
	w.apply(redNetwork, redPool, gateway("red", "n1", 60), gateway("blue", "n2", 60), gateway("green", "n3", 0),
		object("EgressGatewayPolicy", "red", "{rules: [{"+by("red")+"}]}"),
		object("EgressGatewayPolicy", "blue", "{rules: [{"+by("blue")+"}]}"),
		object("EgressGatewayPolicy", "both", "{rules: [{destination: {cidr: 10.0.0.0/8}, "+by("red")+"}, {"+by("blue")+"}]}"),
		object("EgressGatewayPolicy", "one", "{rules: [{gateway: {selector: all(), namespaceSelector: all(), maxNextHops: 1}}]}"))
	for i, policy := range []string{"red", "blue", "both", "one", "none"} {
		w.pod("default", policy, "n1", fmt.Sprintf("10.244.1.%d", i+2), map[string]string{cluster.AnnotationPolicy: policy})
	}
	w.pod("default", "free", "n1", "10.244.1.9", nil)
	w.pod("default", "green", "n1", "10.244.1.10", map[string]string{cluster.AnnotationSelector: "egret-router.io/egw == 'green'"})
	w.controller("one")
	w.eventually("6", "get", "epool", "red", "--output=jsonpath={.status.allocated}")

	// Without a grace period nobody is told, at no time.
	var mu sync.Mutex
	ever := map[string]bool{}
	_, _ = w.source(SourceOptions{Role: RoleController, Log: slog.New(slog.DiscardHandler), Deliver: func(v View) {
		mu.Lock()
		defer mu.Unlock()
		for pod := range v.maintained {
			ever[pod] = true
		}
	}})
	w.kubectl("delete", "egw", "green")
	w.expectTold("")

	w.kubectl("delete", "egw", "red", "--wait=false")
	// "one" may use red: which gateways it has, only its node knows.
	began := w.kubectl("get", "egw", "red", "--output=jsonpath={.metadata.deletionTimestamp}")
	w.expectTold(w.addresses("red", "n1")+" "+w.during(began, time.Minute), "red", "both", "one")
	// The end follows an edit, and the annotations go with the gateway.
	w.kubectl("patch", "egw", "red", "--type=merge", `--patch={"spec":{"terminationGracePeriodSeconds":1}}`)
	kube.Eventually(t, time.Minute, "the end of red", func() error {
		if _, err := w.Kubectl("get", "egw", "red"); err == nil {
			return errors.New("still there")
		}
		return nil
	})
	w.expectTold("")
	mu.Lock()
	defer mu.Unlock()
	if got, want := slices.Sorted(maps.Keys(ever)), []string{"default/both", "default/one", "default/red"}; !slices.Equal(got, want) {
		t.Errorf("ever told: %q, want %q", got, want)
	}
}

// TestMaintenanceOfNodes holds that a gateway which leaves for another reason than its
// deletion is told of in the same way: a cordon, the taint of an autoscaler, fewer
// replicas.
func TestMaintenanceOfNodes(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	w.node(2)
	w.apply(redNetwork, redPool, object("EgressGateway", "red", "{replicas: 1, ipPools: [{name: red}], terminationGracePeriodSeconds: 4}"), redPolicy)
	w.pod("default", "client", "n1", "10.244.1.2", map[string]string{cluster.AnnotationPolicy: "red"})
	w.pod("default", "free", "n1", "10.244.1.3", nil)
	w.controller("one")
	w.eventually("2", "get", "epool", "red", "--output=jsonpath={.status.allocated}")
	leaves := func(what string) {
		t.Helper()
		leaving := `--output=jsonpath={range .status.instances[?(@.draining)]}{.node} {.draining}{end}`
		w.eventually("n", "get", "egw", "red", leaving)
		node, began, _ := strings.Cut(w.kubectl("get", "egw", "red", leaving), " ")
		w.expectTold(w.addresses("red", node)+" "+w.during(began, 4*time.Second), "client")
		w.eventually("[]", "get", "egw", "red", `--output=jsonpath=[{.status.instances[?(@.node=="`+node+`")].node}]`)
		w.expectTold("")
		t.Logf("%s: left %s", what, node)
	}
	at := w.kubectl("get", "egw", "red", "--output=jsonpath={.status.instances[0].node}")
	w.kubectl("cordon", at)
	leaves("cordon")
	w.kubectl("uncordon", at)
	at = w.kubectl("get", "egw", "red", "--output=jsonpath={.status.instances[0].node}")
	w.kubectl("taint", "node", at, "ToBeDeletedByClusterAutoscaler=1795000000:NoSchedule")
	leaves("taint")
	w.kubectl("taint", "node", at, "ToBeDeletedByClusterAutoscaler-")
	w.kubectl("scale", "egw", "red", "--replicas=2")
	w.eventually("2", "get", "egw", "red", "--output=jsonpath={.status.replicas}")
	w.eventually("4", "get", "epool", "red", "--output=jsonpath={.status.allocated}")
	w.kubectl("scale", "egw", "red", "--replicas=1")
	leaves("fewer replicas")
}
