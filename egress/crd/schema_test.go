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

// TestAdmission holds what the API server itself refuses, and with what words: they
// name the field, and say what would do.
// The letters are those of the documented rejections (a: two rules with one
// destination, and so on).
func TestAdmission(t *testing.T) {
	s := startServer(t)
	red := "gateway: {selector: egw == 'red', namespaceSelector: all()}"
	for _, c := range []struct{ name, kind, spec, want string }{
		{"a-same", "EgressGatewayPolicy", "{rules: [{destination: {cidr: 11.0.0.0/8}, " + red + "}, {destination: {cidr: 11.0.0.0/8}}]}",
			"spec.rules: Invalid value: two rules have the same destination (without one a rule is for everything): keep one of them"},
		{"a-default", "EgressGatewayPolicy", "{rules: [{" + red + "}, {" + red + "}]}",
			"spec.rules: Invalid value: two rules have the same destination (without one a rule is for everything): keep one of them"},
		{"b-namespace", "EgressGatewayPolicy", "{rules: [{gateway: {selector: egw == 'red', namespaceSelector: ''}}]}",
			"spec.rules[0].gateway: Invalid value: a rule with a gateway needs a selector and a namespaceSelector, neither of them empty"},
		{"b-selector", "EgressGatewayPolicy", "{rules: [{gateway: {namespaceSelector: all()}}]}",
			"spec.rules[0].gateway: Invalid value: a rule with a gateway needs a selector and a namespaceSelector, neither of them empty"},
		{"c-empty", "EgressGatewayPolicy", "{rules: [{}]}",
			"spec.rules: Invalid value: no rule has a gateway or a destination: the policy would do nothing: add one"},
		{"c-none", "EgressGatewayPolicy", "{rules: []}",
			"spec.rules: Invalid value: 0: spec.rules in body should have at least 1 items spec.rules: Invalid value: no rule has a gateway or a destination: the policy would do nothing: add one"},
		{"d-negative", "EgressGatewayPolicy", "{rules: [{gateway: {selector: a == 'b', namespaceSelector: all(), maxNextHops: -1}}]}",
			"spec.rules[0].gateway.maxNextHops: Invalid value: -1: spec.rules[0].gateway.maxNextHops in body should be greater than or equal to 0"},
		{"e-preference", "EgressGatewayPolicy", "{rules: [{gatewayPreference: Foo, " + red + "}]}",
			`spec.rules[0].gatewayPreference: Unsupported value: "Foo": supported values: "None", "PreferNodeLocal"`},
		{"e-place", "EgressGatewayPolicy", "{rules: [{gateway: {selector: a == 'b', namespaceSelector: all(), gatewayPreference: None}}]}",
			`unknown field "spec.rules[0].gateway.gatewayPreference"`},
		{"destination", "EgressGatewayPolicy", "{rules: [{destination: {cidr: ten}}]}",
			`spec.rules[0].destination.cidr: Invalid value: "ten": must be a CIDR or an address, like 10.0.0.0/8 or 2001:db8::1`},
		{"f-none", "EgressGateway", "{}",
			"spec.ipPools: Required value"},
		{"f-empty", "EgressGateway", "{ipPools: []}",
			"spec.ipPools: Invalid value: 0: spec.ipPools in body should have at least 1 items"},
		{"f-nothing", "EgressGateway", "{ipPools: [{}]}",
			"spec.ipPools[0]: Invalid value: name a pool, one of its prefixes, or both"},
		{"g", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {healthTimeoutDataStoreSeconds: 30}}",
			"spec.egressGatewayFailureDetection: Invalid value: has neither icmpProbe nor httpProbe: name one, or leave it out"},
		{"h-icmp", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {icmpProbe: {ips: [10.0.0.1], timeoutSeconds: 4}}}",
			"spec.egressGatewayFailureDetection.icmpProbe.timeoutSeconds: Invalid value: timeoutSeconds is below intervalSeconds: no attempt would be made in that time, raise it"},
		{"h-http", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {httpProbe: {urls: ['http://10.0.0.1/'], timeoutSeconds: 9}}}",
			"spec.egressGatewayFailureDetection.httpProbe.timeoutSeconds: Invalid value: timeoutSeconds is below intervalSeconds: no attempt would be made in that time, raise it"},
		{"datastore", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {healthTimeoutDataStoreSeconds: 0, icmpProbe: {ips: [10.0.0.1]}}}",
			"spec.egressGatewayFailureDetection.healthTimeoutDataStoreSeconds: Invalid value: 0: spec.egressGatewayFailureDetection.healthTimeoutDataStoreSeconds in body should be greater than or equal to 1"},
		{"replicas", "EgressGateway", "{replicas: -1, ipPools: [{name: red}]}",
			"spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0 .spec.replicas: Invalid value: -1: should be a non-negative integer"},
		{"f-two", "EgressGateway", "{ipPools: [{name: red}, {name: blue}]}",
			"spec.ipPools: Too many: 2: must have at most 1 item"},
		{"f-bare", "EgressGateway", "{ipPools: [{cidr: 192.0.2.1}]}",
			`spec.ipPools[0].cidr: Invalid value: "192.0.2.1": must be a CIDR, like 192.0.2.0/28`},
		{"networks", "EgressGateway", "{ipPools: [{name: red}], externalNetworks: [red, blue]}",
			"spec.externalNetworks: Too many: 2: must have at most 1 item"},
		{"i", "EgressGateway", "{ipPools: [{name: red}], aws: {nativeIP: Disabled, elasticIPs: [192.0.2.1]}}",
			`unknown field "spec.aws"`},
		{"template", "EgressGateway", "{ipPools: [{name: red}], template: {metadata: {labels: {a: b}}}}",
			`unknown field "spec.template"`},
		{"severity", "EgressGateway", "{ipPools: [{name: red}], logSeverity: Loud}",
			`unknown field "spec.logSeverity"`},
		{"grace", "EgressGateway", "{ipPools: [{name: red}], terminationGracePeriodSeconds: -1}",
			"spec.terminationGracePeriodSeconds: Invalid value: -1: spec.terminationGracePeriodSeconds in body should be greater than or equal to 0"},
		{"blocks", "EgressGateway", "{ipPools: [{name: red}], blocks: 0}",
			"spec.blocks: Invalid value: 0: spec.blocks in body should be greater than or equal to 1"},
		{"h-zero", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {icmpProbe: {ips: [10.0.0.1], intervalSeconds: 0}}}",
			"spec.egressGatewayFailureDetection.icmpProbe.intervalSeconds: Invalid value: 0: spec.egressGatewayFailureDetection.icmpProbe.intervalSeconds in body should be greater than or equal to 1"},
		{"h-name", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {icmpProbe: {ips: [example.com]}}}",
			"spec.egressGatewayFailureDetection.icmpProbe.ips: Invalid value: must be addresses"},
		{"h-none", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {httpProbe: {urls: []}}}",
			"spec.egressGatewayFailureDetection.httpProbe.urls: Invalid value: 0: spec.egressGatewayFailureDetection.httpProbe.urls in body should have at least 1 items"},
		{"clients", "EgressGatewayPolicy", "{rules: [{destination: {cidr: 10.0.0.0/8}}], clients: [{}]}",
			"spec.clients[0]: Invalid value: name a selector, a namespaceSelector or both: all() selects everything"},
		{"pool-none", "EgressPool", "{network: red, prefixes: []}",
			"spec.prefixes: Invalid value: 0: spec.prefixes in body should have at least 1 items"},
		{"pool-network", "EgressPool", "{prefixes: [192.0.2.0/28]}",
			"spec.network: Required value"},
		{"table-index", "ExternalNetwork", "{routeTableIndex: 500, hosts: [{interfaces: [{name: eth1}]}]}",
			`unknown field "spec.routeTableIndex"`},
		{"k", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 64512, peers: [{address: 172.16.0.2, asn: 65001, network: red, externalNetwork: blue}]}}",
			`unknown field "spec.bgp.peers[0].externalNetwork", unknown field "spec.bgp.peers[0].network"`},
		{"peer-both", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 64512, peers: [{address: 172.16.0.2, range: 172.16.0.0/24, asn: 65001}]}}",
			"spec.bgp.peers: Invalid value: a peer has an address or a range, and not both"},
		{"asn", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 0, peers: [{address: 172.16.0.2}]}}",
			"spec.bgp.asn: Invalid value: 0: spec.bgp.asn in body should be greater than or equal to 1"},
		{"peers", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 1, peers: []}}",
			"spec.bgp.peers: Invalid value: 0: spec.bgp.peers in body should have at least 1 items"},
		{"secret", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 1, peers: [{address: 172.16.0.2, password: {secretKeyRef: {name: x}}}]}}",
			"spec.bgp.peers[0].password.secretKeyRef.key: Required value"},
		{"vlan", "ExternalNetwork", "{hosts: [{interfaces: [{vlan: {parent: eth1, id: 4095}}]}]}",
			"spec.hosts[0].interfaces[0].vlan.id: Invalid value: 4095: spec.hosts[0].interfaces[0].vlan.id in body should be less than or equal to 4094"},
		{"pool-prefix", "EgressPool", "{network: red, prefixes: [192.0.2.0]}",
			"spec.prefixes: Invalid value: must be CIDRs, like 192.0.2.0/28 or 2001:db8::/120"},
		{"pool-block", "EgressPool", "{network: red, prefixes: [192.0.2.0/28], blockSizeIPv4: 33}",
			"spec.blockSizeIPv4: Invalid value: 33: spec.blockSizeIPv4 in body should be less than or equal to 32"},
		{"network-host", "ExternalNetwork", "{bgp: {asn: 64512, peers: [{address: 172.16.0.2, asn: 65001}]}}",
			"spec.hosts: Required value"},
		{"network-peer", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 64512, peers: [{asn: 65001}]}}",
			"spec.bgp.peers: Invalid value: a peer has an address or a range, and not both"},
		{"network-key", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}], bgp: {asn: 64512, peers: [{address: 172.16.0.2, passwordFile: /etc/shadow}]}}",
			`unknown field "spec.bgp.peers[0].passwordFile"`},
		{"sixteen-letters0", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}]}",
			"<nil>: Invalid value: metadata.name: the name of a network is that of its VRF device: at most 15 characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := refusal(s.Apply(object(c.kind, c.name, c.spec))); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("defaults", func(t *testing.T) { checkDefaults(t, s) })
}

// refusal is why the API server refused an object, without the lead-in, in one line.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n*", "\n")), " ")
	for _, lead := range []string{" is invalid: ", "strict decoding error: "} {
		if _, after, ok := strings.Cut(text, lead); ok {
			// What else could be wrong is no answer to what is.
			after, _, _ = strings.Cut(after, " <nil>: Invalid value: null: some validation rules were not checked")
			return after
		}
	}
	return text
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
