package crd

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egret-router/egret/egress/cluster"
)

// TestSourceByRole holds what each role sees, and what it does not.
func TestSourceByRole(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	w.node(2)
	w.apply(redNetwork, redPool, redGateway, redPolicy,
		"{apiVersion: v1, kind: Secret, metadata: {name: peers, namespace: "+ownNamespace+"}, stringData: {red: \"bgp-password\\n\"}}",
		"{apiVersion: v1, kind: Secret, metadata: {name: peers, namespace: default}, stringData: {red: somebody-elses}}")
	w.pod("default", "one", "n1", "10.244.1.2", map[string]string{cluster.AnnotationPolicy: "red", "unrelated": "x"})
	w.pod("default", "two", "n2", "10.244.2.2", map[string]string{cluster.AnnotationSelector: "a == 'b'", cluster.AnnotationMaxNextHops: "2"})
	pods := func(v View) (names []string) {
		for _, p := range v.Snapshot.Pods {
			names = append(names, p.Name)
		}
		return names
	}
	gateway, _ := w.source(SourceOptions{Role: RoleGateway, Node: "n1"})
	agent, _ := w.source(SourceOptions{Role: RoleAgent, Node: "n2"})
	v := gateway.waitFor(t, "the gateway's View", func(v View) error {
		if diff := cmp.Diff([]string{"one", "two"}, pods(v)); diff != "" {
			return fmt.Errorf("pods: %s", diff)
		}
		return nil
	})
	if got := v.Snapshot.Networks[0].Passwords["172.16.0.2"]; got != "bgp-password" {
		t.Errorf("the password is %q", got)
	}
	if got, want := v.Snapshot.Pods[1].Binding, (cluster.Binding{Selector: "a == 'b'", MaxNextHops: "2"}); got != want {
		t.Errorf("the binding is %+v", got)
	}
	if n := v.Snapshot.Nodes[0]; !n.Ready || len(n.Addresses) != 1 || len(n.PodPrefixes) != 2 {
		t.Errorf("the node is %+v", n)
	}
	v = agent.waitFor(t, "the agent's View", func(v View) error {
		if diff := cmp.Diff([]string{"two"}, pods(v)); diff != "" {
			return fmt.Errorf("pods: %s", diff)
		}
		return nil
	})
	if len(v.Snapshot.Networks) != 0 || len(v.Snapshot.Gateways) != 1 || len(v.Snapshot.Policies) != 1 {
		t.Errorf("the agent sees %d networks, %d gateways, %d policies", len(v.Snapshot.Networks), len(v.Snapshot.Gateways), len(v.Snapshot.Policies))
	}
	w.kubectl("delete", "secret", "peers", "--namespace="+ownNamespace)
	v = gateway.waitFor(t, "a problem with the password", func(v View) error {
		if len(v.Problems) != 1 || v.Problems[0].Field != "spec.bgp.peers[0].password.secretKeyRef" {
			return fmt.Errorf("got %v", v.Problems)
		}
		return nil
	})
	if peer := v.Snapshot.Networks[0].Raw.BGP.Peers[0]; !peer.Shutdown {
		t.Error("a session whose password is missing is not kept down")
	}
}

// TestSourceOutage holds that the end of the API server changes nothing, that a
// process started meanwhile goes on with what was known, and that both see what
// comes after.
func TestSourceOutage(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	w.apply(redNetwork, redPool, redGateway, redPolicy)
	file := filepath.Join(t.TempDir(), "state", "cluster.json")
	first, stop := w.source(SourceOptions{Role: RoleGateway, Node: "n1", StateFile: file})
	known := first.waitFor(t, "the cluster", func(v View) error {
		if len(v.Snapshot.Policies) != 1 || len(v.Snapshot.Nodes) != 1 || len(v.Snapshot.Nodes[0].Addresses) != 1 {
			return fmt.Errorf("got %+v", v.Snapshot)
		}
		return nil
	})
	running, _ := w.source(SourceOptions{Role: RoleGateway, Node: "n1"})
	running.waitFor(t, "the cluster", func(v View) error { return nil })
	stop()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the state file: %v, %v", info, err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("beside the state file there is more: %v, %v", left, err)
	}

	w.KillAPI()
	_, views := running.get()
	second, _ := w.source(SourceOptions{Role: RoleGateway, Node: "n1", StateFile: file, Patience: 200 * time.Millisecond})
	v := second.waitFor(t, "the state of before", func(View) error { return nil })
	if diff := cmp.Diff(known.Snapshot, v.Snapshot, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" || v.Live {
		t.Errorf("live %v, and what was read from the disk differs: %s", v.Live, diff)
	}
	other, _ := w.source(SourceOptions{Role: RoleGateway, Node: "n2", StateFile: file, Patience: time.Millisecond})

	if err := w.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.apply(strings.ReplaceAll(redPolicy, "name: red", "name: blue"))
	for name, s := range map[string]*viewer{"running": running, "started in the outage": second} {
		s.waitFor(t, "what came after, by the one "+name, func(v View) error {
			if !v.Live || len(v.Snapshot.Policies) != 2 || len(v.Snapshot.Nodes) != 1 {
				return fmt.Errorf("live %v, %d policies, %d nodes", v.Live, len(v.Snapshot.Policies), len(v.Snapshot.Nodes))
			}
			return nil
		})
	}
	if _, n := running.get(); n != views+1 {
		t.Errorf("an outage and one change were %d Views", n-views)
	}
	if v := other.waitFor(t, "the cluster", func(View) error { return nil }); !v.Live {
		t.Error("a node went on with the state of another")
	}
}

func TestState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	if err := writeState(file, savedState{Role: RoleAgent, Node: "n1", Snapshot: cluster.Snapshot{Nodes: []cluster.Node{{Name: "n1"}}}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := readState(file); err != nil || s.Snapshot.Nodes[0].Name != "n1" {
		t.Errorf("got %+v, %v", s, err)
	}
	for name, bad := range map[string]string{
		"another version": strings.Replace(string(text), `"Version":1`, `"Version":2`, 1),
		"cut short":       string(text[:len(text)/2]),
		"empty":           "",
	} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := readState(file); err == nil {
			t.Errorf("%s: got %+v", name, s)
		}
	}
}

// TestManyPods holds that a rollout is not a View for each pod.
func TestManyPods(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	s, _ := w.source(SourceOptions{Role: RoleGateway})
	s.waitFor(t, "the cluster", func(View) error { return nil })
	const pods = 60
	for i := range pods {
		w.pod("default", fmt.Sprintf("pod%d", i), "n1", fmt.Sprintf("10.244.1.%d", i+2), nil)
	}
	s.waitFor(t, "all pods", func(v View) error {
		if len(v.Snapshot.Pods) != pods {
			return fmt.Errorf("%d pods", len(v.Snapshot.Pods))
		}
		return nil
	})
	if _, n := s.get(); n >= pods {
		t.Errorf("%d pods were %d Views", pods, n)
	}
}
