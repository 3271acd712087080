package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egret-router/egret/egress/config"
)

// sound is a cluster without a mistake.
func sound() Snapshot {
	s := bindAll(Binding{Policy: "p"}, []Gateway{gatewayOn("b", "blue", 1), gatewayOn("r", "red", 2)},
		Policy{Name: "p", Rules: []Rule{{Destination: "10.0.0.0/8"}, {Destination: "11.0.0.0/8", Gateway: to("blue", 2)}, {Gateway: to("red", 0)}}})
	s.Networks, s.Pools = colours("blue", "red")
	s.Networks[1].Hosts[0].Interfaces[0].Name = "up-red"
	return s
}

// TestCase8Rejects holds every documented rejection, and more, to its message.
func TestCase8Rejects(t *testing.T) {
	if problems := Validate(sound(), ""); len(problems) > 0 {
		t.Fatalf("a sound cluster has problems: %v", problems)
	}
	detect := func(f FailureDetection) func(*Snapshot) {
		return func(s *Snapshot) { s.Gateways[0].FailureDetection = &f }
	}
	icmp := func(interval, timeout time.Duration, ips ...string) func(*Snapshot) {
		return detect(FailureDetection{ICMP: &ICMPProbe{IPs: ips, Interval: interval, Timeout: timeout}})
	}
	rules := func(rules ...Rule) func(*Snapshot) { return func(s *Snapshot) { s.Policies[0].Rules = rules } }
	table := int64(500)
	for _, c := range []struct {
		name string
		edit func(*Snapshot)
		want string
	}{
		{"a: the same destination twice", rules(Rule{Destination: "11.0.0.0/8"}, Rule{Destination: "11.0.0.0/8", Gateway: to("red", 0)}),
			"EgressGatewayPolicy p: spec.rules[1].destination: 11.0.0.0/8 is the destination of rules[0] already"},
		{"no destination twice", rules(Rule{Gateway: to("blue", 0)}, Rule{Gateway: to("red", 0)}),
			"EgressGatewayPolicy p: spec.rules[1].destination: is missing, which means 0.0.0.0/0 and ::/0, and 0.0.0.0/0 is the destination of rules[0] already"},
		{"a default of one family and none", rules(Rule{Destination: "::/0"}, Rule{Gateway: to("red", 0)}),
			"EgressGatewayPolicy p: spec.rules[1].destination: is missing, which means 0.0.0.0/0 and ::/0, and ::/0 is the destination of rules[0] already"},
		{"b: empty namespaceSelector", rules(Rule{Gateway: &GatewayRef{Selector: "all()"}}),
			"EgressGatewayPolicy p: spec.rules[0].gateway.namespaceSelector: is missing: which gateways; all() selects every namespace"},
		{"b: empty selector", rules(Rule{Gateway: &GatewayRef{Selector: " ", NamespaceSelector: "all()"}}),
			"EgressGatewayPolicy p: spec.rules[0].gateway.selector: is missing: which gateways; all() selects every gateway of the namespaces"},
		{"a selector that is none", rules(Rule{Gateway: &GatewayRef{Selector: "a = 'b'", NamespaceSelector: "all()"}}),
			`EgressGatewayPolicy p: spec.rules[0].gateway.selector: "a = 'b'" is no selector: at character 3: ==, !=, in, not in, contains, starts with or ends with is expected, not "= 'b'"`},
		{"c: a rule that says nothing", rules(Rule{}), "EgressGatewayPolicy p: spec.rules: no rule has a gateway or a destination: the policy would do nothing"},
		{"no rules", rules(), "EgressGatewayPolicy p: spec.rules: no rule has a gateway or a destination: the policy would do nothing"},
		{"d: maxNextHops -1", rules(Rule{Gateway: to("red", -1)}), "EgressGatewayPolicy p: spec.rules[0].gateway.maxNextHops: -1 is out of range: 0 (all) to 65535 are allowed"},
		{"host bits", rules(Rule{Destination: "11.1.0.0/8"}), "EgressGatewayPolicy p: spec.rules[0].destination.cidr: 11.1.0.0/8 has host bits set: write 11.0.0.0/8, or 11.1.0.0 for the one address"},
		{"no prefix", rules(Rule{Destination: "example.com"}), `EgressGatewayPolicy p: spec.rules[0].destination.cidr: "example.com" is not a prefix or an address, such as 10.0.0.0/8 or 2001:db8::1`},
		{"multicast", rules(Rule{Destination: "224.0.0.5"}), "EgressGatewayPolicy p: spec.rules[0].destination.cidr: 224.0.0.5/32 is multicast: such traffic never goes to a network"},
		{"client selector", func(s *Snapshot) { s.Policies[0].Selectors = []ClientSelector{{Selector: "x"}} },
			`EgressGatewayPolicy p: spec.clients[0].selector: "x" is no selector: at character 2: ==, !=, in, not in, contains, starts with or ends with is expected, not the end`},
		{"f: no pool", func(s *Snapshot) { s.Gateways[0].Pool = "" }, "EgressGateway egress/b: spec.pool: is missing: the name of a pool"},
		{"f: unknown pool", func(s *Snapshot) { s.Gateways[0].Pool = "x" }, `EgressGateway egress/b: spec.pool: there is no pool "x"`},
		{"f: pool of another network", func(s *Snapshot) { s.Gateways[0].Pool = "red" }, `EgressGateway egress/b: spec.pool: "red" is a pool of network "red", not of "blue"`},
		{"g: failure detection without probes", detect(FailureDetection{HealthTimeoutDataStore: 90 * time.Second}),
			"EgressGateway egress/b: spec.egressGatewayFailureDetection: has neither icmpProbe nor httpProbe: name one, or leave it out"},
		{"h: timeout below interval", icmp(5*time.Second, 4*time.Second, "8.8.8.8"),
			"EgressGateway egress/b: spec.egressGatewayFailureDetection.icmpProbe.timeoutSeconds: 4s is below intervalSeconds (5s): no attempt would be made in that time"},
		{"h: timeout below the default interval", detect(FailureDetection{HTTP: &HTTPProbe{URLs: []string{"http://8.8.8.8/"}, Timeout: 9 * time.Second}}),
			"EgressGateway egress/b: spec.egressGatewayFailureDetection.httpProbe.timeoutSeconds: 9s is below intervalSeconds (10s): no attempt would be made in that time"},
		{"h: equal", icmp(5*time.Second, 5*time.Second, "8.8.8.8"), ""},
		{"no targets", icmp(0, 0), "EgressGateway egress/b: spec.egressGatewayFailureDetection.icmpProbe.ips: is missing: name at least one"},
		{"a name as target", detect(FailureDetection{HTTP: &HTTPProbe{URLs: []string{"http://example.com/"}}}),
			`EgressGateway egress/b: spec.egressGatewayFailureDetection.httpProbe.urls[0]: "http://example.com/" names its host: write the address; an entry of spec.probes can have the name, too (http.host)`},
		{"j: unknown network", func(s *Snapshot) { s.Gateways[0].Network = "x" }, `EgressGateway egress/b: spec.externalNetwork: there is no network "x"
EgressGateway egress/b: spec.pool: "blue" is a pool of network "blue", not of "x"`},
		{"node selector", func(s *Snapshot) { s.Gateways[0].NodeSelector = "(" },
			`EgressGateway egress/b: spec.nodeSelector: "(" is no selector: at character 2: a label, all(), global(), has(), ! or ( is expected, not the end`},
		{"replicas", func(s *Snapshot) { s.Gateways[0].Replicas = -1 }, "EgressGateway egress/b: spec.replicas: -1 is out of range: 0 (every node) to 2147483647 are allowed"},
		{"pool without a network", func(s *Snapshot) { s.Pools[0].Raw.Network = "x" }, `EgressGateway egress/b: spec.pool: "blue" is a pool of network "x", not of "blue"
EgressPool blue: spec.network: there is no network "x"`},
		{"pool that leaves", func(s *Snapshot) { s.Pools[0].Deleted = true },
			`EgressGateway egress/b: spec.pool: pool "blue" is being deleted, and goes when no gateway holds its addresses: name another pool`},
		{"pools overlap", func(s *Snapshot) {
			s.Pools = append(s.Pools, Pool{Name: "z", Raw: config.RawPool{Network: "red", Prefixes: []string{"198.51.1.8/30"}}})
		}, `EgressPool z: spec.prefixes: 198.51.1.8/30 overlaps 198.51.1.0/28 of pool "red" in the same network "red"`},
		{"pools of two networks overlap", func(s *Snapshot) { s.Pools[1].Raw.Prefixes = s.Pools[0].Raw.Prefixes }, ""},
		{"block size", func(s *Snapshot) { s.Pools[0].BlockSize4 = 24 }, "EgressPool blue: spec.blockSizeIPv4: 198.51.0.0/28 has no block of /24 in it"},
		{"pool prefix", func(s *Snapshot) { s.Pools[0].Raw.Prefixes = []string{"127.0.0.0/30"} },
			"EgressPool blue: spec.prefixes[0]: 127.0.0.0/30 has loopback addresses in it: egress addresses are unicast addresses of the network"},
		{"network without hosts", func(s *Snapshot) { s.Networks[0].Hosts = nil }, "ExternalNetwork blue: spec.hosts: is missing: no node can carry the network"},
		{"name of a network", func(s *Snapshot) {
			s.Networks = append(s.Networks, Network{Name: "a-long-network-name", Hosts: s.Networks[0].Hosts[:0:0]})
		},
			"ExternalNetwork a-long-network-name: spec.hosts: is missing: no node can carry the network"},
		{"host configuration", func(s *Snapshot) { s.Networks[0].Hosts[0].Interfaces = []config.RawInterface{{Name: "a b"}} },
			`ExternalNetwork blue: spec.hosts[0].interfaces[0].name: "a b" is not a device name: no spaces, slashes, colons, quotes, '*', backslashes or non-ASCII characters`},
		{"one table", func(s *Snapshot) { s.Networks[0].Raw.Table, s.Networks[1].Raw.Table = &table, &table },
			`ExternalNetwork red: spec.table: 500 is the table of network "blue" already`},
		{"one interface", func(s *Snapshot) { s.Networks[1].Hosts[0].Interfaces[0].Name = "up-blue" },
			`ExternalNetwork red: spec.hosts[0].interfaces: "up-blue" is an interface of network "blue" already, on node n1 for one`},
		{"missing policy", func(s *Snapshot) { s.Pods[0].Binding.Policy = "x" },
			`Pod a/p1: metadata.annotations[egress.egret-router.io/egressGatewayPolicy]: there is no policy "x": all traffic that would leave the cluster is dropped`},
		{"bound of next hops", func(s *Snapshot) { s.Pods[0].Binding = Binding{Selector: "all()", MaxNextHops: "two"} },
			`Pod a/p1: metadata.annotations[egress.egret-router.io/maxNextHops]: "two" is not allowed: a number is, 0 (all) to 65535`},
	} {
		s := sound()
		c.edit(&s)
		var lines []string
		for _, p := range Validate(s, "") {
			lines = append(lines, p.String())
		}
		if got := strings.Join(lines, "\n"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// TestOneBadObject: what is wrong concerns what refers to it, and nothing else.
func TestOneBadObject(t *testing.T) {
	s := sound()
	s.Pods = append(s.Pods, podN("b", "q", 1, 12))
	s.Namespaces = append(s.Namespaces, Namespace{Name: "b", Binding: Binding{Policy: "q"}})
	s.Policies = append(s.Policies, Policy{Name: "q", Rules: []Rule{{Gateway: to("red", 0)}, {Gateway: to("red", 0)}}})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "r@n2", "10.244.1.12 > 8.8.8.8": "blocked"})
	s.Gateways[0].Network = "x"
	decide(&s, day())
	if where(s.Gateways[0]) != "n1" || len(s.Gateways[1].Instances) != 3 {
		t.Error(where(s.Gateways[0]), where(s.Gateways[1]))
	}
}

// TestDetection holds how Calico's window becomes attempts: the last of those that
// count ends at the timeout.
func TestDetection(t *testing.T) {
	for _, c := range []struct {
		interval, timeout time.Duration
		fall              int64
		attempt           time.Duration
	}{
		{5 * time.Second, 15 * time.Second, 2, 5 * time.Second},
		{0, 0, 2, 5 * time.Second},
		{10 * time.Second, 30 * time.Second, 2, 10 * time.Second},
		{5 * time.Second, 12 * time.Second, 2, 2 * time.Second},
		{5 * time.Second, 5 * time.Second, 1, time.Second},
		{5 * time.Second, 6 * time.Second, 1, time.Second},
		{time.Second, 3 * time.Second, 2, time.Second},
		{time.Second, time.Second, 1, time.Second},
		{500 * time.Millisecond, time.Second, 1, 500 * time.Millisecond},
	} {
		r := &reporter{}
		f := FailureDetection{ICMP: &ICMPProbe{IPs: []string{"8.8.8.8", "2001:db8::1"}, Interval: c.interval, Timeout: c.timeout}}
		got := f.probes("egress--r", r)
		one := int64(1)
		want := []config.RawProbe{{Name: "egress--r-icmp", Type: "icmp", Targets: []config.RawTarget{{Target: "8.8.8.8"}, {Target: "2001:db8::1"}},
			Interval: config.Duration(orDefault(c.interval, 5*time.Second).String()), AttemptTimeout: config.Duration(c.attempt.String()), Rise: &one, Fall: &c.fall}}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || !r.ok() {
			t.Errorf("%v %v: %s %v", c.interval, c.timeout, diff, r.problems)
		}
	}
}

func TestNames(t *testing.T) {
	var n namer
	seen := map[string]string{}
	long := strings.Repeat("x", 70)
	for _, s := range []string{"red", "a.b", "a-b", "a.b.c", long + "1", long + "2", "Ä", "...", "egress--r", plainName("a.b"), "UPPER", "-a", "a-", ""} {
		name := n.name(s)
		if !validName(name) {
			t.Errorf("%q becomes %q", s, name)
		}
		if other, taken := seen[name]; taken {
			t.Errorf("%q and %q both become %q", s, other, name)
		}
		if again := n.name(s); again != name {
			t.Errorf("%q becomes %q, then %q", s, name, again)
		}
		seen[name] = s
	}
	if n.name("red") != "red" || n.name("egress--r") != "egress--r" {
		t.Error("a name that can stay does not")
	}
	if got := fmt.Sprint(plainName("team-a.example.com")); got != "team-a-example-com-"+got[len(got)-10:] {
		t.Error(got)
	}
}
