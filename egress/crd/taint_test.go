package crd

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/egret-router/egret/lab/kube"
)

// TestStartupTaint has an agent, with the rights that the manifests give it, take the
// taint from its node when it is ready, each time, and change nothing else.
func TestStartupTaint(t *testing.T) {
	s := kube.New(t, kube.Options{})
	for _, folder := range []string{"manifests", "manifests/startup-taint"} {
		if out, err := s.Kubectl("apply", "--validate=strict", "--kustomize="+folder); err != nil {
			t.Fatal(out, err)
		}
	}
	w := &world{Server: s, t: t}
	w.eventually("", "get", "externalnetworks,egresspools,egressgateways,egressgatewaypolicies", "--all-namespaces")
	w.client = w.connect()
	w.node(1)
	w.node(2)
	w.kubectl("taint", "node", "n1", "n2", TaintAgentNotReady+"=true:NoSchedule", "other=x:NoSchedule")
	user, err := s.AddAccount(ownNamespace, "egret-agent")
	if err != nil {
		t.Fatal(err)
	}
	w.user = user
	var ready, asked atomic.Bool
	untainter := NewUntainter(w.connect(), "n1", func() bool { asked.Store(true); return ready.Load() }, slog.New(slog.DiscardHandler))
	_, _ = w.source(SourceOptions{Role: RoleAgent, Node: "n1", Deliver: untainter.Deliver})
	w.background(untainter.Run)
	taints := func(node string) string {
		return w.kubectl("get", "node", node, "--output=jsonpath={.spec.taints[*].key}")
	}
	kube.Eventually(t, time.Minute, "the agent to be asked", func() error {
		if !asked.Load() {
			return errors.New("not yet")
		}
		return nil
	})
	if got := taints("n1"); !strings.Contains(got, TaintAgentNotReady) {
		t.Errorf("an agent that is not ready took its taint away: %s", got)
	}
	ready.Store(true)
	gone := func() {
		t.Helper()
		kube.Eventually(t, time.Minute, "the end of the taint", func() error {
			if got := taints("n1"); strings.Contains(got, TaintAgentNotReady) || !strings.Contains(got, "other") {
				return errors.New(got)
			}
			return nil
		})
	}
	gone()
	w.kubectl("taint", "node", "n1", TaintAgentNotReady+"=true:NoSchedule")
	gone()
	if got := taints("n2"); !strings.Contains(got, TaintAgentNotReady) {
		t.Errorf("the taint of another node is gone: %s", got)
	}
	w.agentMayNot()
}

// agentMayNot holds what the rights of an agent do not reach to.
func (w *world) agentMayNot() {
	w.t.Helper()
	settings, err := clientcmd.BuildConfigFromFlags("", w.Kubeconfig("admin"))
	if err != nil {
		w.t.Fatal(err)
	}
	// As the token of a pod on n1 has it.
	settings.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:egret-system:egret-agent",
		Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}}}
	agent, err := newClient(settings)
	if err != nil {
		w.t.Fatal(err)
	}
	kube.Eventually(w.t, time.Minute, "the policy to hold", func() error {
		if agent.core.Patch(types.MergePatchType).Resource("nodes").Name("n1").Param("dryRun", "All").Body([]byte(`{"spec":{"unschedulable":true}}`)).Do(w.t.Context()).Error() == nil {
			return errors.New("not yet")
		}
		return nil
	})
	for _, c := range []struct{ node, patch, want string }{
		{"n2", `{"spec":{"taints":[{"key":"other","value":"x","effect":"NoSchedule"}]}}`, "an agent changes no other node than its own"},
		{"n1", `{"spec":{"taints":null}}`, "an agent changes no other taint than egret-router.io/agent-not-ready, and only takes it away"},
		{"n1", `{"spec":{"unschedulable":true}}`, "an agent changes nothing of a node but its taint"},
		{"n1", `{"metadata":{"labels":{"egret-router.io/gateway":"true"}}}`, "an agent changes nothing of a node but its taint"},
		{"n1", `{"metadata":{"annotations":{"a":"b"}}}`, "an agent changes nothing of a node but its taint"},
	} {
		err := agent.core.Patch(types.MergePatchType).Resource("nodes").Name(c.node).Body([]byte(c.patch)).Do(w.t.Context()).Error()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			w.t.Errorf("%s %s: %v, want %q", c.node, c.patch, err, c.want)
		}
	}
}
