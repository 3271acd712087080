package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab/kube"
)

// TestControllerCommand runs the command as it is installed, against a real API
// server with the manifests.
func TestControllerCommand(t *testing.T) {
	s := kube.New(t, kube.Options{})
	if out, err := s.Kubectl("apply", "--kustomize=../../egress/crd/manifests"); err != nil {
		t.Fatal(out, err)
	}
	user, err := s.AddAccount("egret-system", "egret-controller")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cmd := rootCommand()
	cmd.SetArgs([]string{"controller", "--kubeconfig", s.Kubeconfig(user), "--identity", "first", "--log-level", "error"})
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	kube.Eventually(t, time.Minute, "an object and its condition", func() error {
		return s.Apply("{apiVersion: egret-router.io/v1alpha1, kind: EgressPool, metadata: {name: red}, spec: {network: red, prefixes: [192.0.2.0/28]}}")
	})
	kube.Eventually(t, time.Minute, "the condition", func() error {
		out, err := s.Kubectl("get", "egresspool", "red", "--output=jsonpath={.status.conditions[*].message}")
		if err == nil && !strings.Contains(out, `there is no network "red"`) {
			err = fmt.Errorf("got %q", out)
		}
		return err
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if holder, err := s.Kubectl("get", "lease", "egret-controller", "--namespace=egret-system", "--output=jsonpath={.spec.holderIdentity}"); err != nil || holder != "" {
		t.Errorf("the lease was not given back: %q, %v", holder, err)
	}
	cmd = rootCommand()
	cmd.SetArgs([]string{"controller", "--egress-ip-support", "Disabled"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "--egress-ip-support") {
		t.Errorf("an unknown mode: %v", err)
	}
}
