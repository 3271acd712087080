package crd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
	"github.com/egret-router/egret/lab/kube"
)

// manifests parses documents, by kind and name.
func manifests(t *testing.T, text string) map[string]any {
	t.Helper()
	all := map[string]any{}
	decoder := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		var object map[string]any
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if object != nil {
			all[fmt.Sprintf("%v %v", object["kind"], object["metadata"].(map[string]any)["name"])] = object
		}
	}
}

// TestChart holds that Helm and Kustomize make the same of their defaults, and that
// the chart's values reach what they are for.
func TestChart(t *testing.T) {
	helm := kube.RequireHelm(t)
	binaries := kube.Require(t)
	rendered, err := kube.Command(t.Context(), helm, "template", "egret", "manifests/chart/egret", "--kube-version=v1.36.3", "--namespace=egret-system", "--include-crds")
	if err != nil {
		t.Fatal(err)
	}
	built, err := kube.Command(t.Context(), binaries.Path("kubectl"), "kustomize", "manifests")
	if err != nil {
		t.Fatal(err)
	}
	fromHelm, fromKustomize := manifests(t, rendered), manifests(t, built)
	delete(fromKustomize, "Namespace egret-system") // helm install --create-namespace
	if len(fromHelm) < 15 {
		t.Errorf("only %d objects", len(fromHelm))
	}
	if diff := cmp.Diff(fromKustomize, fromHelm); diff != "" {
		t.Errorf("Kustomize (-) and Helm (+) differ:\n%s", diff)
	}
	rendered, err = kube.Command(t.Context(), helm, "template", "egret", "manifests/chart/egret", "--kube-version=v1.36.3", "--namespace=egret-system", "--include-crds", "--set=agent.startupTaint=true")
	if err != nil {
		t.Fatal(err)
	}
	built, err = kube.Command(t.Context(), binaries.Path("kubectl"), "kustomize", "manifests/startup-taint")
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(fromKustomize, manifests(t, built))
	if diff := cmp.Diff(fromKustomize, manifests(t, rendered)); diff != "" {
		t.Errorf("Kustomize (-) and Helm (+) differ with the startup taint:\n%s", diff)
	}
	rendered, err = kube.Command(t.Context(), helm, "template", "egret", "manifests/chart/egret", "--kube-version=v1.36.3", "--namespace=elsewhere", "--set=agent.startupTaint=true", "--set=image.repository=registry.example/egret",
		"--set=image.tag=v1", "--set=controller.replicas=3", "--set-string=gateway.nodeSelector.role=edge", "--set=egressIPSupport=EnabledPerNamespace", "--set-string=agent.markMask=0x307f")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`image: "registry.example/egret:v1"`, "replicas: 3", `"role":"edge"`, "--egress-ip-support=EnabledPerNamespace]", "--mark-mask=0x307f]", "namespace: elsewhere"} {
		if !strings.Contains(rendered, want) {
			t.Errorf("nothing says %s", want)
		}
	}
	if strings.Contains(rendered, "egret-system") {
		t.Error("a namespace is fixed")
	}
}

// TestManifests applies both to a real API server, and holds that the roles may
// do what they do, and no more.
func TestManifests(t *testing.T) {
	helm := kube.RequireHelm(t)
	s := kube.New(t, kube.Options{})
	if out, err := s.Kubectl("apply", "--validate=strict", "--kustomize=manifests"); err != nil {
		t.Fatal(out, err)
	}
	rendered, err := kube.Command(t.Context(), helm, "template", "egret", "manifests/chart/egret", "--kube-version=v1.36.3", "--namespace=egret-system")
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.KubectlAs("admin", rendered, "apply", "--validate=strict", "--filename=-")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "unchanged") {
			t.Errorf("the chart changes what Kustomize made: %s", line)
		}
	}
	can := func(role, verb, resource, namespace string) bool {
		resource, status := strings.CutSuffix(resource, "/status")
		args := []string{"auth", "can-i", verb, resource, "--as=system:serviceaccount:egret-system:egret-" + role}
		if status {
			args = append(args, "--subresource=status")
		}
		if namespace != "" {
			args = append(args, "--namespace="+namespace)
		} else {
			args = append(args, "--all-namespaces")
		}
		answer, _ := s.Kubectl(args...) // "no" is exit code 1
		return strings.TrimSpace(answer) == "yes"
	}
	kube.Eventually(t, time.Minute, "the roles", func() error {
		if !can("controller", "list", "pods", "") {
			return errors.New("not yet")
		}
		return nil
	})
	for _, c := range []struct {
		role, verb, resource, namespace string
		want                            bool
	}{
		{"controller", "patch", "pods", "", true},
		{"controller", "update", "egresspools.egret-router.io/status", "", true},
		{"controller", "update", "leases.coordination.k8s.io/egret-controller", "egret-system", true},
		{"controller", "update", "leases.coordination.k8s.io/another", "egret-system", false},
		{"controller", "get", "secrets", "egret-system", false},
		{"controller", "delete", "pods", "", false},
		{"controller", "update", "egresspools.egret-router.io", "", false},
		{"gateway", "list", "secrets", "egret-system", true},
		{"gateway", "list", "secrets", "default", false},
		{"gateway", "patch", "egressgateways.egret-router.io/status", "", true},
		{"gateway", "patch", "egresspools.egret-router.io/status", "", false},
		{"gateway", "patch", "pods", "", false},
		{"agent", "list", "pods", "", true},
		{"agent", "list", "secrets", "egret-system", false},
		{"agent", "patch", "egressgateways.egret-router.io/status", "", false},
		{"agent", "patch", "pods", "", false},
	} {
		if got := can(c.role, c.verb, c.resource, c.namespace); got != c.want {
			t.Errorf("%s may %s %s in %q: %v, want %v", c.role, c.verb, c.resource, c.namespace, got, c.want)
		}
	}
}

// TestRolesSuffice runs each role with the rights that it is installed with.
func TestRolesSuffice(t *testing.T) {
	s := kube.New(t, kube.Options{})
	if out, err := s.Kubectl("apply", "--kustomize=manifests"); err != nil {
		t.Fatal(out, err)
	}
	w := &world{Server: s, t: t}
	w.eventually("", "get", "externalnetworks,egresspools,egressgateways,egressgatewaypolicies", "--all-namespaces")
	w.client = w.connect()
	w.node(1)
	w.apply(redNetwork, redPool, redGateway, redPolicy,
		"{apiVersion: v1, kind: Secret, metadata: {name: peers, namespace: "+ownNamespace+"}, stringData: {red: password}}")
	w.pod("default", "client", "n1", "10.244.1.2", map[string]string{cluster.AnnotationPolicy: "red"})
	w.pod("default", "lost", "n1", "10.244.1.3", map[string]string{cluster.AnnotationPolicy: "none"})
	var users []string
	for _, role := range []string{"controller", "gateway", "agent"} {
		user, err := s.AddAccount(ownNamespace, "egret-"+role)
		if err != nil {
			t.Fatal(err)
		}
		users = append(users, user)
	}

	w.user = users[0]
	w.controller("one")
	w.eventually(finalizer, "get", "egw", "red", "--output=jsonpath={.metadata.finalizers}")
	w.eventually("2", "get", "epool", "red", "--output=jsonpath={.status.allocated}")
	w.eventually("Unplaced", "get", "egw", "red", `--output=jsonpath={.status.conditions[?(@.type=="Ready")].reason}`) // one node for two

	w.eventually(`there is no policy "none"`, "get", "events", "--output=jsonpath={.items[*].message}")

	w.user = users[1]
	gateway, _ := w.source(SourceOptions{Role: RoleGateway, Node: "n1"})
	gateway.waitFor(t, "the gateway's View", func(v View) error {
		if len(v.Snapshot.Networks) != 1 || v.Snapshot.Networks[0].Passwords["172.16.0.2"] != "password" {
			return fmt.Errorf("networks %+v", v.Snapshot.Networks)
		}
		return nil
	})
	if err := w.connect().SetNodeState(t.Context(), "default", "red", "n1", &v1alpha1.NodeState{Node: "n1", State: "Ready"}); err != nil {
		t.Error(err)
	}

	w.user = users[2]
	agent, _ := w.source(SourceOptions{Role: RoleAgent, Node: "n1"})
	agent.waitFor(t, "the agent's View", func(v View) error {
		if len(v.Snapshot.Pods) != 2 || len(v.Snapshot.Gateways) != 1 || len(v.Snapshot.Gateways[0].Instances) != 1 {
			return fmt.Errorf("pods %+v, gateways %+v", v.Snapshot.Pods, v.Snapshot.Gateways)
		}
		return nil
	})

	w.kubectl("delete", "egw", "red", "--wait=false")
	w.eventually("198.51.100.", "get", "pod", "client", `--output=jsonpath={.metadata.annotations['egress\.egret-router\.io/gatewayMaintenanceGatewayIP']}`)
}

// TestDocumentedObjects holds that the objects of the document are accepted, by the
// API server and by the controller.
func TestDocumentedObjects(t *testing.T) {
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, found := strings.Cut(example, "```")
	if !found {
		t.Fatal("the document has no example")
	}
	w := newWorld(t)
	node := w.node(1)
	w.kubectl("label", "node", node, "rack=a", "--overwrite")
	w.apply("{apiVersion: v1, kind: Namespace, metadata: {name: egress}}")
	w.apply(example)
	w.controller("one")
	for _, kind := range []string{"extnet/red", "epool/red", "egp/team-a"} {
		w.eventually("True", "get", kind, `--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	}
	w.eventually("1", "get", "egw", "red", "--namespace=egress", "--output=jsonpath={.status.replicas}")
	w.eventually("2 are wanted, but only 1", "get", "egw", "red", "--namespace=egress", `--output=jsonpath={.status.conditions[?(@.type=="Ready")].message}`)
}
