package crd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab/kube"
)

// startServer is an API server that knows our objects.
func startServer(t *testing.T) *kube.Server {
	t.Helper()
	s := kube.New(t, kube.Options{})
	if _, err := s.Kubectl("apply", "--filename=manifests/crd"); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "--filename=manifests/crd"); err != nil {
		t.Fatal(out, err)
	}
	// Discovery follows the condition a moment later.
	kube.Eventually(t, time.Minute, "the API of our objects", func() error {
		_, err := s.Kubectl("get", "externalnetworks,egresspools,egressgateways,egressgatewaypolicies", "--all-namespaces")
		return err
	})
	return s
}

func object(kind, name, spec string) string {
	return "{apiVersion: egret-router.io/v1alpha1, kind: " + kind + ", metadata: {name: " + name + "}, spec: " + spec + "}"
}

// TestAdmission holds what the API server itself refuses, and that it says why.
// The letters are those of the documented rejections (a: two rules with one
// destination, and so on).
func TestAdmission(t *testing.T) {
	s := startServer(t)
	red := "gateway: {selector: egw == 'red', namespaceSelector: all()}"
	for _, c := range []struct{ name, kind, spec, want string }{
		{"a-same", "EgressGatewayPolicy", "{rules: [{destination: {cidr: 11.0.0.0/8}, " + red + "}, {destination: {cidr: 11.0.0.0/8}}]}", "two rules have the same destination"},
		{"a-default", "EgressGatewayPolicy", "{rules: [{" + red + "}, {" + red + "}]}", "two rules have the same destination"},
		{"b-namespace", "EgressGatewayPolicy", "{rules: [{gateway: {selector: egw == 'red', namespaceSelector: ''}}]}", "a rule with a gateway needs a selector and a namespaceSelector"},
		{"b-selector", "EgressGatewayPolicy", "{rules: [{gateway: {namespaceSelector: all()}}]}", "a rule with a gateway needs a selector and a namespaceSelector"},
		{"c-empty", "EgressGatewayPolicy", "{rules: [{}]}", "no rule has a gateway or a destination"},
		{"c-none", "EgressGatewayPolicy", "{rules: []}", "spec.rules in body should have at least 1 items"},
		{"d-negative", "EgressGatewayPolicy", "{rules: [{gateway: {selector: a == 'b', namespaceSelector: all(), maxNextHops: -1}}]}", "spec.rules[0].gateway.maxNextHops in body should be greater than or equal to 0"},
		{"e-preference", "EgressGatewayPolicy", "{rules: [{gatewayPreference: Foo, " + red + "}]}", `spec.rules[0].gatewayPreference: Unsupported value: "Foo": supported values: "None", "PreferNodeLocal"`},
		{"e-place", "EgressGatewayPolicy", "{rules: [{gateway: {selector: a == 'b', namespaceSelector: all(), gatewayPreference: None}}]}", "unknown field"},
		{"destination", "EgressGatewayPolicy", "{rules: [{destination: {cidr: ten}}]}", "must be a CIDR or an address"},
		{"f-none", "EgressGateway", "{}", "spec.ipPools: Required value"},
		{"f-empty", "EgressGateway", "{ipPools: []}", "spec.ipPools in body should have at least 1 items"},
		{"f-nothing", "EgressGateway", "{ipPools: [{}]}", "name a pool, one of its prefixes, or both"},
		{"g", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {healthTimeoutDataStoreSeconds: 30}}", "has neither icmpProbe nor httpProbe"},
		{"h-icmp", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {icmpProbe: {ips: [10.0.0.1], timeoutSeconds: 4}}}", "timeoutSeconds is below intervalSeconds"},
		{"h-http", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {httpProbe: {urls: ['http://10.0.0.1/'], timeoutSeconds: 9}}}", "timeoutSeconds is below intervalSeconds"},
		{"datastore", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {healthTimeoutDataStoreSeconds: 0, icmpProbe: {ips: [10.0.0.1]}}}", "greater than or equal to 1"},
		{"replicas", "EgressGateway", "{replicas: -1, ipPools: [{name: red}]}", "greater than or equal to 0"},
		{"pool-prefix", "EgressPool", "{network: red, prefixes: [192.0.2.0]}", "must be CIDRs"},
		{"pool-block", "EgressPool", "{network: red, prefixes: [192.0.2.0/28], blockSizeIPv4: 33}", "less than or equal to 32"},
		{"network-host", "ExternalNetwork", "{bgp: {asn: 64512, peers: [{address: 172.16.0.2, asn: 65001}]}}", "spec.hosts: Required value"},
		{"network-peer", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 64512, peers: [{asn: 65001}]}}", "a peer has an address or a range"},
		{"network-key", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 64512, peers: [{address: 172.16.0.2, passwordFile: /etc/shadow}]}}", "unknown field"},
		{"sixteen-letters0", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}]}", "at most 15 characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.Apply(object(c.kind, c.name, c.spec))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	t.Run("defaults", func(t *testing.T) { checkDefaults(t, s) })
}

func checkDefaults(t *testing.T, s *kube.Server) {
	for _, c := range []struct{ name, kind, spec, path, want string }{
		{"e-absent", "EgressGatewayPolicy", "{rules: [{destination: {cidr: 8.8.8.8}}, {}]}", "{.spec.rules[*].gatewayPreference}", "None None"},
		{"h-equal", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {icmpProbe: {ips: [10.0.0.1], intervalSeconds: 5, timeoutSeconds: 5}}}",
			"{.spec.egressGatewayFailureDetection.healthTimeoutDataStoreSeconds}", "90"},
		{"icmp", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {icmpProbe: {ips: ['2001:db8::1']}}}",
			"{.spec.replicas} {.spec.terminationGracePeriodSeconds} {.spec.egressGatewayFailureDetection.icmpProbe['intervalSeconds','timeoutSeconds']}", "1 30 5 15"},
		{"http", "EgressGateway", "{ipPools: [{cidr: 192.0.2.0/28}], egressGatewayFailureDetection: {httpProbe: {urls: ['http://10.0.0.1/']}}}",
			"{.spec.egressGatewayFailureDetection.httpProbe['intervalSeconds','timeoutSeconds']}", "10 30"},
		{"pool", "EgressPool", "{network: red, prefixes: [192.0.2.0/28]}", "{.spec['blockSizeIPv4','blockSizeIPv6']}", "32 128"},
	} {
		if err := s.Apply(object(c.kind, c.name, c.spec)); err != nil {
			t.Error(err)
			continue
		}
		if got, err := s.Kubectl("get", c.kind, c.name, "--output=jsonpath="+c.path); err != nil || got != c.want {
			t.Errorf("%s %s: %s is %q, want %q (%v)", c.kind, c.name, c.path, got, c.want, err)
		}
	}
	if err := s.Apply(object("EgressPool", "pool", "{network: red, prefixes: [192.0.2.0/28], blockSizeIPv4: 30}")); err == nil || !strings.Contains(err.Error(), "cannot be changed") {
		t.Errorf("the size of a pool's blocks was changed: %v", err)
	}
}

// TestLargestPolicy holds that what the schema allows fits into the API server's
// budget for checking it.
func TestLargestPolicy(t *testing.T) {
	s := startServer(t)
	for _, n := range []int{250, 1000} {
		if err := s.Apply(object("EgressGatewayPolicy", "large", "{rules: ["+manyRules(n)+"]}")); err != nil {
			t.Errorf("%d rules: %v", n, err)
		}
	}
	red := ", {destination: {cidr: 10.0.0.0/8}}, {destination: {cidr: 10.0.0.0/8}}"
	if err := s.Apply(object("EgressGatewayPolicy", "twice", "{rules: ["+manyRules(248)+red+"]}")); err == nil || !strings.Contains(err.Error(), "two rules have the same destination") {
		t.Errorf("250 rules, two of them the same: %v", err)
	}
}

// manyRules are n different ones.
func manyRules(n int) string {
	var rules strings.Builder
	for i := range n {
		if i > 0 {
			rules.WriteString(", ")
		}
		rules.WriteString("{destination: {cidr: '2001:db8:1111:2222:3333:4444:5555:")
		rules.WriteString(strings.Repeat("0", 3-len(strconv.Itoa(i))) + strconv.Itoa(i))
		rules.WriteString("/128'}}")
	}
	return rules.String()
}

// TestGenerated holds that what controller-gen makes of the types is what is there.
func TestGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds controller-gen")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "tool", "-modfile=../tools/go.mod", "controller-gen", "object", "paths=.", "crd:maxDescLen=300",
		"output:crd:dir="+filepath.Join(dir, "crd"), "output:object:dir="+dir)
	cmd.Dir = "v1alpha1"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("controller-gen: %v\n%s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "crd", "*.yaml"))
	if err != nil || len(made) != 4 {
		t.Fatalf("made %q, %v", made, err)
	}
	same := func(made, kept string) {
		a, err := os.ReadFile(made)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(kept); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is not what go generate ./egress/crd/v1alpha1 makes (%v)", kept, err)
		}
	}
	for _, name := range made {
		same(name, filepath.Join("manifests", "crd", filepath.Base(name)))
	}
	same(filepath.Join(dir, "zz_generated.deepcopy.go"), filepath.Join("v1alpha1", "zz_generated.deepcopy.go"))
}
