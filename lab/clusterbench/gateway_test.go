//go:build bench

package clusterbench

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/kube"
)

// guestEnv is the folder that the guest shares with us, with the kubeconfig; files in it
// are how we tell each other how far we are.
const guestEnv = "EGRET_BENCH_GUEST"

// TestGatewayFigures runs gateway and agent of a gateway's node in a VM, which has VRFs,
// with the API server outside, and tells their memory.
func TestGatewayFigures(t *testing.T) {
	w := newWorld(t)
	w.each(nodes, w.createNodes)
	w.each(namespaces, w.createNamespaces)
	controller := w.startController()
	w.each(networks, w.createNetworks)
	w.each(gateways, w.createGateways)
	w.each(policies, w.createPolicies)
	w.each(pods, func(ctx context.Context, i int) error { return w.createPod(ctx, podOf(i)) })
	kube.Eventually(t, patience, "the gateways to be placed", func() error {
		var list v1alpha1.EgressGatewayList
		if err := w.objects.Get().Resource("egressgateways").Do(t.Context()).Into(&list); err != nil {
			return err
		}
		for _, g := range list.Items {
			if len(g.Status.Instances) != replicas {
				return fmt.Errorf("%s is on %d nodes", g.Name, len(g.Status.Instances))
			}
		}
		return nil
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shared, err := os.MkdirTemp(filepath.Dir(self), "guest") // programs in /tmp share their folder with the guest
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(shared)
	port := w.forward()
	if err := os.WriteFile(filepath.Join(shared, "kubeconfig"), []byte(w.guestKubeconfig(port)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "../../bin/vmrun", "-host-port", port, self, "-test.v", "-test.timeout=30m", "-test.run=^TestGuest$")
	cmd.Env = append(os.Environ(), guestEnv+"="+shared, "EGRET_VM_TIMEOUT=35m")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = lab.Poll(t.Context(), 25*time.Minute, "the guest to rest", func() error {
		select {
		case err := <-ended:
			return lab.Final(fmt.Errorf("the guest ended: %w\n%s", err, out.String()))
		default:
			_, err := os.Stat(filepath.Join(shared, "rests"))
			return err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	w.each(pods, w.annotate)
	if err := os.WriteFile(filepath.Join(shared, "storm"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = <-ended
	for line := range strings.Lines(out.String()) {
		if _, figure, ok := strings.Cut(line, "FIGURE "); ok {
			t.Logf("FIGURE %s", strings.TrimSpace(figure))
		}
	}
	if err != nil {
		t.Fatalf("guest: %v\n%s", err, out.String())
	}
	t.Logf("FIGURE memory then: controller %s", memory(controller.PID(), controller.Log()))
}

// annotate gives a pod of podOf another policy.
func (w *world) annotate(ctx context.Context, i int) error {
	p := podOf(i)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, cluster.AnnotationPolicy, stormPolicy(i))
	return w.core.Patch(types.MergePatchType).Namespace(p.Namespace).Resource("pods").Name(p.Name).Body([]byte(patch)).Do(ctx).Error()
}

func stormPolicy(i int) string { return policyName((i + i/nodes + 1) % policies) }

// forward leads from a port of this machine's loopback to the API server.
func (w *world) forward() (port string) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := w.Dial(context.Background(), "tcp", strings.TrimPrefix(w.URL, "https://"))
			if err != nil {
				near.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() {
					_, _ = io.Copy(way[0], way[1]) // either end may go at any time
					_ = errors.Join(way[0].Close(), way[1].Close())
				}()
			}
		}
	}()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	return port
}

// guestKubeconfig is the administrator's, for the address at which the guest finds this machine.
func (w *world) guestKubeconfig(port string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(w.URL, "https://"), ":")
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://10.0.2.100:%s", tls-server-name: %q, certificate-authority-data: %s}}]
users: [{name: user, user: {token: %q}}]
contexts: [{name: lab, context: {cluster: lab, user: user}}]
current-context: lab
`, port, host, base64.StdEncoding.EncodeToString(w.CA), w.Token)
}
