package kube

import (
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// TestServer holds what tests rely on: objects survive the end of the API
// server, an account has the rights it was given and no others.
func TestServer(t *testing.T) {
	s := New(t, Options{})
	if out, err := s.Kubectl("version"); err != nil || !strings.Contains(out, "Server Version: v1.36.3") {
		t.Fatalf("version: %q, %v", out, err)
	}
	if err := s.Apply("{apiVersion: v1, kind: Namespace, metadata: {name: red}}\n---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: reader, namespace: red}}"); err != nil {
		t.Fatal(err)
	}
	user, err := s.AddAccount("red", "reader")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.KubectlAs(user, "", "get", "namespace", "red"); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("an account without rights reads namespaces: %q, %v", out, err)
	}
	if _, err := s.Kubectl("create", "clusterrole", "reader", "--verb=get", "--resource=namespaces"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kubectl("create", "clusterrolebinding", "reader", "--clusterrole=reader", "--serviceaccount=red:reader"); err != nil {
		t.Fatal(err)
	}
	Eventually(t, time.Minute, "the account's rights", func() error {
		_, err := s.KubectlAs(user, "", "get", "namespace", "red")
		return err
	})

	s.KillAPI()
	if out, err := s.Kubectl("get", "namespace", "red"); err == nil {
		t.Errorf("the API server was killed, and still answers: %q", out)
	}
	if err := s.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kubectl("get", "namespace", "red"); err != nil {
		t.Error(err)
	}
}

func TestServerInNamespace(t *testing.T) {
	lab.Require(t, lab.Root)
	binaries := Require(t)
	l := lab.New(t)
	ns := l.MustNamespace("api")
	ns.MustIP("addr add 10.99.0.1/32 dev lo")
	s, err := Start(t.Context(), binaries, t.TempDir(), Options{Namespace: ns, Address: "10.99.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	l.Defer(s.Close)
	if out, err := s.Kubectl("get", "namespace", "default", "--output=name"); err != nil || out != "namespace/default\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
