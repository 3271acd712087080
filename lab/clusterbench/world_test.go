//go:build bench

package clusterbench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/egret-router/egret/egress/crd/v1alpha1"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/kube"
)

const (
	clientNodes, gatewayNodes = 40, 10
	nodes                     = clientNodes + gatewayNodes
	pods, policies, gateways  = 5000, 500, 50
	networks, replicas        = 10, 3
	namespaces                = 200
	// here is the node that the agent is on.
	here = nodes

	patience = 5 * time.Minute
	// writers is how many requests of ours are under way at a time.
	writers = 16
)

// world is an API server in a namespace with the addresses of the gateways' nodes, and
// beside it the namespace of the node that is looked at.
type world struct {
	*kube.Server
	t             *testing.T
	lab           *lab.Lab
	cluster, node *lab.NS
	core, objects *rest.RESTClient
	dir           string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	lab.Require(t, lab.Root, lab.Nft, lab.Conntrack)
	binaries := kube.Require(t)
	dir, files := t.TempDir(), t.TempDir() // before the lab, which is closed before they go
	w := &world{t: t, lab: lab.New(t), dir: dir}
	w.cluster, w.node = w.lab.MustNamespace("cluster"), w.lab.MustNamespace("node")
	w.lab.MustLink(w.cluster, "eth0", w.node, "eth0")
	addresses := []string{"addr add 192.168.0.254/24 dev eth0", "addr add fd00:168::fe/64 dev eth0"}
	for i := range gatewayNodes {
		addresses = append(addresses, fmt.Sprintf("addr add 192.168.0.%d/24 dev eth0", i+1), fmt.Sprintf("addr add fd00:168::%x/64 dev eth0", i+1))
	}
	w.cluster.MustIP(addresses...)
	w.node.MustIP(fmt.Sprintf("addr add 192.168.0.%d/24 dev eth0", here), fmt.Sprintf("addr add fd00:168::%x/64 dev eth0", here),
		"route add default via 192.168.0.254", "route add ::/0 via fd00:168::fe")
	server, err := kube.Start(t.Context(), binaries, files, kube.Options{Namespace: w.cluster, Address: "192.168.0.254"})
	if err != nil {
		t.Fatal(err)
	}
	w.Server = server
	w.lab.Defer(server.Close)
	w.connect()
	w.install()
	return w
}

// connect makes clients without a limit of their own.
func (w *world) connect() {
	w.t.Helper()
	kinds := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(kinds); err != nil {
			w.t.Fatal(err)
		}
	}
	client := func(of schema.GroupVersion, path string) *rest.RESTClient {
		c, err := rest.RESTClientFor(&rest.Config{Host: w.URL, BearerToken: w.Token, QPS: -1, APIPath: path, Dial: w.Dial,
			TLSClientConfig: rest.TLSClientConfig{CAData: w.CA},
			ContentConfig:   rest.ContentConfig{GroupVersion: &of, NegotiatedSerializer: serializer.NewCodecFactory(kinds).WithoutConversion()}})
		if err != nil {
			w.t.Fatal(err)
		}
		return c
	}
	w.core, w.objects = client(corev1.SchemeGroupVersion, "/api"), client(v1alpha1.GroupVersion, "/apis")
}

// install adds the kinds of objects and the namespace of Egret.
func (w *world) install() {
	w.t.Helper()
	const crds = "../../egress/crd/manifests/crd"
	for _, args := range [][]string{{"apply", "--filename=" + crds}, {"wait", "--for=condition=Established", "--timeout=60s", "--filename=" + crds},
		{"create", "namespace", "egret-system"}} {
		if out, err := w.Kubectl(args...); err != nil {
			w.t.Fatal(out, err)
		}
	}
	kube.Eventually(w.t, patience, "the API of our objects", func() error {
		return w.objects.Get().Resource("egresspools").Do(w.t.Context()).Error()
	})
}

// each does something for all numbers below n, some at a time.
func (w *world) each(n int, do func(ctx context.Context, i int) error) {
	w.t.Helper()
	group, ctx := errgroup.WithContext(w.t.Context())
	group.SetLimit(writers)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		w.t.Fatal(err)
	}
}

func meta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

func create(ctx context.Context, c *rest.RESTClient, resource, namespace string, object runtime.Object) error {
	return c.Post().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Body(object).Do(ctx).Into(object)
}

// putStatus writes the status of an object as it was read or made.
func putStatus(ctx context.Context, c *rest.RESTClient, resource string, object interface {
	runtime.Object
	metav1.Object
}) error {
	namespace := object.GetNamespace()
	return c.Put().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(object.GetName()).SubResource("status").Body(object).Do(ctx).Into(object)
}

// requests counts the requests that the API server has had, by verb and resource.
func (w *world) requests() map[string]int {
	w.t.Helper()
	text, err := w.core.Get().AbsPath("/metrics").Do(w.t.Context()).Raw()
	if err != nil {
		w.t.Fatal(err)
	}
	return requestsIn(string(text))
}

// binary is that of make build.
func (w *world) binary() string {
	w.t.Helper()
	path, err := filepath.Abs("../../bin/egret")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		w.t.Fatal("make build makes it: ", err)
	}
	return path
}

// get asks for a page within the node's namespace.
func (w *world) get(url string) (*http.Response, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dialIn(w.node), DisableKeepAlives: true}}
	return client.Get(url)
}
