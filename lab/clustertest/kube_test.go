package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/kube"
	"github.com/egret-router/egret/lab/traffic"
)

// askLimit is how long a pod waits for an answer.
const askLimit = 10 * time.Second

// plural names the resources of the kinds that tests apply.
var plural = map[string]string{"Namespace": "namespaces", "Node": "nodes", "Pod": "pods", "ExternalNetwork": "externalnetworks",
	"EgressPool": "egresspools", "EgressGateway": "egressgateways", "EgressGatewayPolicy": "egressgatewaypolicies"}

// kubernetes is a cluster of namespaces with a real API server, real FRR outside and
// the roles as they are installed.
type kubernetes struct {
	*lab.Cluster
	t      *testing.T
	api    *kube.Server
	client *dynamic.DynamicClient
	red    *lab.Router
	yellow *lab.Router
	other  *lab.NS // the network yellow
	dir    string
	binary string
	roles  map[string]*lab.Proc // by role and number of the node
	// agentArgs are further arguments of the agents.
	agentArgs []string
}

func newKubernetes(t *testing.T) *kubernetes {
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.Conntrack, lab.FRR)
	k := &kubernetes{t: t, dir: t.TempDir(), roles: map[string]*lab.Proc{}}
	var err error
	if k.binary, err = filepath.Abs("../../bin/egret"); err == nil {
		_, err = os.Stat(k.binary)
	}
	if err != nil {
		t.Fatalf("the binary under test is missing (make build): %v", err)
	}
	k.Cluster = lab.MustCluster(lab.New(t), 2, 3, 2)
	k.must(k.Outside.IP("addr add 11.0.0.5/32 dev lo", "addr add 11.5.0.5/32 dev lo", "addr add 8.8.8.8/32 dev lo", "addr add 9.9.9.9/32 dev lo"))
	if k.other, err = k.AddNetwork("yellow", "eth2"); err != nil {
		t.Fatal(err)
	}
	k.must(k.other.IP("addr add 11.1.0.5/32 dev lo", "addr add 10.9.9.1/32 dev lo", "addr add 10.9.9.2/32 dev lo"))
	if k.red, err = k.StartRouter(k.Outside); err != nil {
		t.Fatal(err)
	}
	if k.yellow, err = k.StartRouter(k.other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			k.diagnose(t)
		}
	})
	k.api = kube.New(t, kube.Options{Namespace: k.Outside, Address: lab.ClusterWAN4})
	k.install()
	return k
}

// diagnose logs what the agents and gateways say of themselves.
func (k *kubernetes) diagnose(t *testing.T) {
	for _, n := range k.Nodes {
		out, err := n.Run("curl", "--silent", "--max-time", "10", "http://127.0.0.1:9645/v1/status")
		t.Logf("agent of %s: %v %s", n.Name, err, out)
		if n.Gateway {
			out, err := n.Run(k.binary, "status")
			t.Logf("gateway of %s: %v\n%s", n.Name, err, out)
		}
		out, _ = n.Run("ss", "-lunp")
		t.Logf("%s", out)
	}
}

func (k *kubernetes) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// install applies the definitions of our objects and makes the client.
func (k *kubernetes) install() {
	k.t.Helper()
	settings, err := clientcmd.BuildConfigFromFlags("", k.api.Kubeconfig("admin"))
	k.must(err)
	settings.Dial, settings.QPS, settings.Timeout = k.api.Dial, -1, time.Minute
	k.client, err = dynamic.NewForConfig(settings)
	k.must(err)
	crds, err := filepath.Abs("../../egress/crd/manifests/crd")
	k.must(err)
	for _, args := range [][]string{{"apply", "--filename=" + crds}, {"wait", "--for=condition=Established", "--timeout=120s", "--filename=" + crds}} {
		if out, err := k.api.Kubectl(args...); err != nil {
			k.t.Fatal(err, out)
		}
	}
	lab.Eventually(k.t, patience, "the API of our objects", func() error {
		var errs []error
		for _, kind := range []string{"ExternalNetwork", "EgressPool", "EgressGateway", "EgressGatewayPolicy"} {
			_, err := k.client.Resource(resource(kind)).List(k.t.Context(), metav1.ListOptions{})
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

func resource(kind string) schema.GroupVersionResource {
	if strings.HasPrefix(kind, "E") {
		return schema.GroupVersionResource{Group: "egret-router.io", Version: "v1alpha1", Resource: plural[kind]}
	}
	return schema.GroupVersionResource{Version: "v1", Resource: plural[kind]}
}

// apply applies objects, server-side; what an earlier apply had and these have not is taken away.
func (k *kubernetes) apply(texts ...string) {
	k.t.Helper()
	for _, text := range texts {
		o := k.parse(text)
		lab.Eventually(k.t, patience, "apply "+o.GetKind()+" "+o.GetName(), func() error {
			_, err := k.client.Resource(resource(o.GetKind())).Namespace(o.GetNamespace()).Apply(k.t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", Force: true})
			return err
		})
	}
}

// status patches the status of an object: server-side apply refuses two addresses
// of one type, which every dual-stack node has.
func (k *kubernetes) status(text string) {
	k.t.Helper()
	o := k.parse(text)
	patch, err := json.Marshal(map[string]any{"status": o.Object["status"]})
	k.must(err)
	lab.Eventually(k.t, patience, "status of "+o.GetKind()+" "+o.GetName(), func() error {
		_, err := k.client.Resource(resource(o.GetKind())).Namespace(o.GetNamespace()).Patch(k.t.Context(), o.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
}

func (k *kubernetes) parse(text string) *unstructured.Unstructured {
	k.t.Helper()
	var o unstructured.Unstructured
	k.must(yaml.NewYAMLOrJSONDecoder(bytes.NewBufferString(text), 4096).Decode(&o.Object))
	o.SetAPIVersion(resource(o.GetKind()).GroupVersion().String())
	return &o
}

func (k *kubernetes) get(kind, namespace, name string) *unstructured.Unstructured {
	k.t.Helper()
	var o *unstructured.Unstructured
	lab.Eventually(k.t, patience, kind+" "+name, func() (err error) {
		o, err = k.client.Resource(resource(kind)).Namespace(namespace).Get(k.t.Context(), name, metav1.GetOptions{})
		return err
	})
	return o
}

func (k *kubernetes) delete(kind, namespace, name string) {
	k.t.Helper()
	k.must(k.client.Resource(resource(kind)).Namespace(namespace).Delete(k.t.Context(), name, metav1.DeleteOptions{}))
}

// instance is what a node says of a gateway.
type instance struct {
	node, state string
	addresses   []netip.Addr
}

// instances are what nodes say of a gateway of namespace egress, by node.
func (k *kubernetes) instances(name string) []instance {
	k.t.Helper()
	list, _, err := unstructured.NestedSlice(k.get("EgressGateway", "egress", name).Object, "status", "nodes")
	k.must(err)
	var out []instance
	for _, item := range list {
		m := item.(map[string]any)
		i := instance{node: fmt.Sprint(m["node"]), state: fmt.Sprint(m["state"])}
		addresses, _, err := unstructured.NestedStringSlice(m, "addresses")
		k.must(err)
		for _, a := range addresses {
			p, err := netip.ParsePrefix(a)
			k.must(err)
			i.addresses = append(i.addresses, p.Addr())
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b instance) int { return strings.Compare(a.node, b.node) })
	return out
}

// ready waits until a gateway is ready on just so many nodes, and returns its
// addresses of one family, in the order of the nodes.
func (k *kubernetes) ready(name string, nodes int, v6 bool) []netip.Addr {
	k.t.Helper()
	var out []netip.Addr
	lab.Eventually(k.t, 2*patience, fmt.Sprintf("gateway %s is ready on %d nodes", name, nodes), func() error {
		out = nil
		list := k.instances(name)
		for _, i := range list {
			for _, a := range i.addresses {
				if a.Is6() == v6 && i.state == "Ready" {
					out = append(out, a)
				}
			}
		}
		if len(out) != nodes || len(list) != nodes {
			return fmt.Errorf("it is %v", list)
		}
		return nil
	})
	return out
}

// pod says what annotations the i-th pod of a node has, from now on.
func (k *kubernetes) pod(n *lab.ClusterNode, i int, annotations string) {
	k.t.Helper()
	namespace := "app"
	if i == 1 {
		namespace = "team"
	}
	k.podObject(n, fmt.Sprintf("pod%d-%d", n.Number, i), namespace, annotations, n.PodAddress(i, false), n.PodAddress(i, true))
}

func (k *kubernetes) podObject(n *lab.ClusterNode, name, namespace, annotations string, addresses ...netip.Addr) {
	k.t.Helper()
	var ips []string
	for _, a := range addresses {
		ips = append(ips, fmt.Sprintf(`{ip: "%s"}`, a))
	}
	k.apply(fmt.Sprintf(`{kind: Pod, metadata: {name: %s, namespace: %s, annotations: {%s}}, spec: {nodeName: node%d, containers: [{name: main, image: none}]}}`,
		name, namespace, annotations, n.Number))
	k.status(fmt.Sprintf(`{kind: Pod, metadata: {name: %s, namespace: %s}, status: {phase: Running, podIP: "%s", podIPs: [%s]}}`,
		name, namespace, addresses[0], strings.Join(ips, ", ")))
}

// start starts a role, on a node or outside.
func (k *kubernetes) start(role string, ns *lab.NS, number int, args ...string) {
	k.t.Helper()
	p, err := ns.Start(fmt.Sprint(role, number), append([]string{k.binary, role, "--kubeconfig", k.api.Kubeconfig("admin"), "--log-level=debug"}, args...)...)
	k.must(err)
	k.roles[fmt.Sprint(role, number)] = p
}

func (k *kubernetes) startNode(role string, n *lab.ClusterNode) {
	k.t.Helper()
	var more []string
	if role == "agent" {
		more = slices.Clone(k.agentArgs)
	}
	k.start(role, n.NS, n.Number, append(more, "--node", fmt.Sprint("node", n.Number), "--state-dir", filepath.Join(k.dir, fmt.Sprint("node", n.Number)))...)
}

// ask lets a pod ask a server who it is.
func (k *kubernetes) ask(pod *lab.NS, server string, limit time.Duration) (a traffic.Answer, err error) {
	ctx, cancel := context.WithTimeout(k.t.Context(), limit)
	defer cancel()
	err = pod.Do(func() (err error) {
		a, err = traffic.FetchAnswer(ctx, netip.AddrPort{}, netip.AddrPortFrom(netip.MustParseAddr(server), lab.HTTPPort))
		return err
	})
	return a, err
}

// sees waits until the servers of a network see new flows of a pod with just these
// addresses, all of them.
func (k *kubernetes) sees(what string, pod *lab.NS, server, network string, want ...netip.Addr) {
	k.t.Helper()
	if len(want) == 0 {
		k.t.Fatal("nothing is wanted")
	}
	lab.Eventually(k.t, patience, what, func() error {
		seen := map[netip.Addr]int{}
		for range 16 * len(want) {
			// A flow that began while objects changed may have been bound to a way that is
			// no longer its own: the next one counts.
			a, err := k.ask(pod, server, askLimit)
			if err != nil {
				return err
			}
			if a.Server != network || !slices.Contains(want, a.Client.Addr()) {
				return fmt.Errorf("%s, want %s and %v", a, network, want)
			}
			if seen[a.Client.Addr()]++; len(seen) == len(want) && seen[a.Client.Addr()] > 2 {
				return nil
			}
		}
		return fmt.Errorf("seen %v, want %v", seen, want)
	})
}

// refused waits until a pod gets no answer from outside.
func (k *kubernetes) refused(what string, pod *lab.NS, servers ...string) {
	k.t.Helper()
	for _, server := range servers {
		lab.Eventually(k.t, patience, what, func() error {
			if a, err := k.ask(pod, server, 3*time.Second); err == nil {
				return fmt.Errorf("%s was answered: %s", server, a)
			}
			return nil
		})
	}
}
