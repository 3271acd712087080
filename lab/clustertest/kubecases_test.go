package clustertest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

const (
	ns4 = "projectcalico.org/name == 'egress'"
	// annotation is the prefix of ours.
	annotation = "egress.egret-router.io/"
)

func byPolicy(name string) string { return annotation + "egressGatewayPolicy: " + name }

func bySelector(selector string) string {
	return fmt.Sprintf(`%sselector: "%s", %snamespaceSelector: "%s"`, annotation, selector, annotation, ns4)
}

// rule is a rule of a policy, in YAML; without a selector it skips.
func rule(destination, selector, more string) string {
	var parts []string
	if destination != "" {
		parts = append(parts, "destination: {cidr: "+destination+"}")
	}
	if selector != "" {
		parts = append(parts, fmt.Sprintf(`gateway: {selector: "%s", namespaceSelector: "%s"%s}`, selector, ns4, more))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (k *kubernetes) policy(name string, rules ...string) {
	k.t.Helper()
	k.apply(fmt.Sprintf("{kind: EgressGatewayPolicy, metadata: {name: %s}, spec: {rules: [%s]}}", name, strings.Join(rules, ", ")))
}

// TestKubernetes has the behavioural cases of Calico's egress gateways, by their
// number in that list, with a real API server, the real roles and FRR outside.
func TestKubernetes(t *testing.T) {
	k := newKubernetes(t)
	// The process that answers for a gateway may not get to run for a second, here: that
	// is no case of this list, and moves flows. Benchmarks have the defaults.
	k.agentArgs = []string{"--health-interval=1s", "--health-fall=5"}
	k.objects()
	for _, step := range []struct {
		name string
		run  func(*kubernetes)
	}{
		{"01_SingleGateway", case01}, {"02_ECMP", case02}, {"03_SamplePolicy", case03}, {"04_05_LongestPrefix", case04}, {"06_NoDefaultRule", case06},
		{"07_MissingPolicy", case07}, {"09_FailClosed", case09}, {"10_PollFailure", case10}, {"11_20_24_ProbesAndAdvertisement", case11},
		{"13_MaxNextHops", case13}, {"15_22_PreferNodeLocal", case15}, {"16_ModeGate", case16}, {"17_OverlappingNetworks", case17}, {"14_Maintenance", case14},
		{"21_Restart", case21}, {"NodeKilled", caseKilled}, {"NoAPI", caseNoAPI},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			k.t = t
			step.run(k)
			if out, err := k.Leaks(); err != nil || !strings.Contains(out, "packets 0 ") {
				t.Errorf("something left with the address of a pod: %v %s", err, out)
			}
		}) {
			break
		}
	}
}

// objects are nodes, pods, two networks that overlap in everything, and gateways;
// and the roles that serve them.
func (k *kubernetes) objects() {
	k.t.Helper()
	for _, name := range []string{"egret-system", "egress", "app", "team"} {
		k.apply(fmt.Sprintf("{kind: Namespace, metadata: {name: %s, labels: {projectcalico.org/name: %[1]s}}}", name))
	}
	var hosts [2][]string
	var peers string
	for _, n := range k.Nodes {
		k.apply(fmt.Sprintf(`{kind: Node, metadata: {name: node%d, labels: {number: "%[1]d"}}, spec: {podCIDR: %s, podCIDRs: [%[2]s, "%s"]}}`, n.Number, n.Pods4(), n.Pods6()))
		k.status(fmt.Sprintf(`{kind: Node, metadata: {name: node%d}, status: {conditions: [{type: Ready, status: "True", reason: Test, lastHeartbeatTime: "2026-01-01T00:00:00Z",
  lastTransitionTime: "2026-01-01T00:00:00Z"}], addresses: [{type: InternalIP, address: "%s"}, {type: InternalIP, address: "%s"}]}}`, n.Number, n.IP4(), n.IP6()))
		for i := range n.Pods {
			k.pod(n, i, "")
		}
		if n.Gateway {
			own4, router4 := n.Uplink4()
			own6, router6 := n.Uplink6()
			for i := range hosts {
				hosts[i] = append(hosts[i], fmt.Sprintf(`{nodeSelector: "number == '%d'", interfaces: [{name: eth%d, addresses: [%s, "%s"]}]}`, n.Number, i+1, own4, own6))
			}
			peers = fmt.Sprintf(`{address: %s, asn: %d, import: [{prefix: 0.0.0.0/0}]}, {address: "%s", asn: %[2]d, import: [{prefix: "::/0"}]}`, router4, lab.ClusterUpstreamASN, router6)
		}
	}
	for i, name := range []string{"red", "yellow"} {
		k.apply(fmt.Sprintf(`{kind: ExternalNetwork, metadata: {name: %s}, spec: {bgp: {asn: %d, peers: [%s]}, hosts: [%s]}}`, name, lab.ClusterASN, peers, strings.Join(hosts[i], ", ")))
		// The same addresses in both networks.
		k.apply(fmt.Sprintf(`{kind: EgressPool, metadata: {name: %s}, spec: {network: %[1]s, prefixes: [198.51.100.0/29, "2001:db8:51::/125"]}}`, name))
	}
	k.apply(`{kind: EgressPool, metadata: {name: blue}, spec: {network: red, prefixes: [198.51.100.64/29, "2001:db8:51::40/125"]}}`)
	gateway := `{kind: EgressGateway, metadata: {name: %s, namespace: egress}, spec: {labels: {egw: %[1]s}, replicas: %d, nodeSelector: "%s", ipPools: [{name: %[1]s}], terminationGracePeriodSeconds: 60}}`
	k.apply(fmt.Sprintf(gateway, "red", 3, "has(number)"), fmt.Sprintf(gateway, "blue", 3, "has(number)"), fmt.Sprintf(gateway, "yellow", 1, "number == '3'"))
	k.start("controller", k.Outside, 0, "--identity=c0")
	for _, n := range k.Nodes {
		k.startNode("agent", n)
		if n.Gateway {
			k.startNode("gateway", n)
		}
	}
	k.ready("red", 3, false)
	k.ready("blue", 3, false)
	k.ready("yellow", 1, false)
}

// A namespace names one gateway: its pods are seen with that address, both families.
func case01(k *kubernetes) {
	k.apply(fmt.Sprintf("{kind: Namespace, metadata: {name: team, labels: {projectcalico.org/name: team}, annotations: {%s}}}", bySelector("egw == 'yellow'")))
	k.sees("IPv4", k.Nodes[0].Pods[1], lab.ClusterServer4, "yellow", k.ready("yellow", 1, false)...)
	k.sees("IPv6", k.Nodes[0].Pods[1], lab.ClusterServer6, "yellow", k.ready("yellow", 1, true)...)
	k.sees("a pod without annotations", k.Nodes[0].Pods[0], lab.ClusterServer4, "outside", k.Nodes[0].IP4())
}

// Three gateways: new flows are spread over all, one flow stays with one.
func case02(k *kubernetes) {
	pod := k.Nodes[0].Pods[0]
	k.pod(k.Nodes[0], 0, bySelector("egw == 'red'"))
	k.sees("IPv4", pod, lab.ClusterServer4, "outside", k.ready("red", 3, false)...)
	red6 := k.ready("red", 3, true)
	reports := k.stream(pod, 4, func() { k.sees("IPv6", pod, lab.ClusterServer6, "outside", red6...) })
	for _, s := range reports {
		if len(s.Answers) != 1 || s.Lost > 0 {
			k.t.Errorf("one flow was seen as %v and lost %d of %d", s.Answers, s.Lost, s.Sent)
		}
	}
}

// The sample policy of the documentation.
func case03(k *kubernetes) {
	pod, other := k.Nodes[0].Pods[0], k.Nodes[1].Pods[0]
	k.policy("sample", rule("10.0.0.0/8", "", ""), rule("11.0.0.0/8", "egw == 'blue'", ", maxNextHops: 2"), rule("", "egw == 'red'", ""))
	k.pod(k.Nodes[0], 0, byPolicy("sample"))
	k.pod(k.Nodes[1], 0, byPolicy("sample"))
	red, blue := k.ready("red", 3, false), k.ready("blue", 3, false)
	k.sees("a skipped destination", pod, lab.ClusterServer4, "outside", k.Nodes[0].IP4())
	k.sees("the default", pod, "8.8.8.8", "outside", red...)
	k.sees("the default of another pod", other, "8.8.8.8", "outside", red...)
	for _, p := range []*lab.NS{pod, other} {
		seen := map[netip.Addr]bool{}
		for range 24 {
			a, err := k.ask(p, "11.0.0.5", askLimit)
			k.must(err)
			seen[a.Client.Addr()] = true
		}
		n := 0
		for _, a := range blue {
			if seen[a] {
				n++
			}
		}
		if n != 2 || len(seen) != 2 {
			k.t.Errorf("with maxNextHops 2 the server saw %v, of %v", seen, blue)
		}
	}
}

// The longest prefix counts, in whatever order rules are, and skips nest.
func case04(k *kubernetes) {
	pod := k.Nodes[0].Pods[0]
	rules := []string{rule("", "egw == 'red'", ""), rule("11.0.0.0/8", "egw == 'blue'", ""), rule("11.1.0.0/16", "egw == 'yellow'", ""), rule("11.5.0.0/16", "", "")}
	red, blue, yellow := k.ready("red", 3, false), k.ready("blue", 3, false), k.ready("yellow", 1, false)
	for turn := range rules {
		name := fmt.Sprint("turn", turn)
		k.policy(name, append(append([]string{}, rules[turn:]...), rules[:turn]...)...)
		k.pod(k.Nodes[0], 0, byPolicy(name))
		k.sees(name+": 11.5/16 leaves directly", pod, "11.5.0.5", "outside", k.Nodes[0].IP4())
		k.sees(name+": 11.1/16", pod, "11.1.0.5", "yellow", yellow...)
		k.sees(name+": 11/8", pod, "11.0.0.5", "outside", blue...)
		k.sees(name+": the default", pod, "8.8.8.8", "outside", red...)
	}
}

// What no rule is for takes the normal way.
func case06(k *kubernetes) {
	k.policy("one", rule("8.8.8.8", "egw == 'red'", ""))
	k.pod(k.Nodes[0], 0, byPolicy("one"))
	k.sees("no rule", k.Nodes[0].Pods[0], "9.9.9.9", "outside", k.Nodes[0].IP4())
	k.sees("the rule", k.Nodes[0].Pods[0], "8.8.8.8", "outside", k.ready("red", 3, false)...)
}

// A policy that does not exist blocks; it works as soon as it does exist.
func case07(k *kubernetes) {
	k.pod(k.Nodes[0], 0, byPolicy("later"))
	k.refused("without its policy", k.Nodes[0].Pods[0], "8.8.8.8", "9.9.9.9", lab.ClusterServer4, lab.ClusterServer6)
	k.policy("later", rule("", "egw == 'red'", ""))
	k.sees("with its policy", k.Nodes[0].Pods[0], "9.9.9.9", "outside", k.ready("red", 3, false)...)
}

// A selector that selects nothing lets nothing out, until there is a gateway.
func case09(k *kubernetes) {
	pod := k.Nodes[1].Pods[0]
	k.pod(k.Nodes[1], 0, bySelector("egw == 'late'"))
	k.refused("without a gateway", pod, lab.ClusterServer4, lab.ClusterServer6)
	k.apply(`{kind: EgressPool, metadata: {name: late}, spec: {network: red, prefixes: [198.51.100.80/30]}}`,
		`{kind: EgressGateway, metadata: {name: late, namespace: egress}, spec: {labels: {egw: late}, nodeSelector: "number == '5'", ipPools: [{name: late}], terminationGracePeriodSeconds: 0}}`)
	k.sees("with a gateway", pod, lab.ClusterServer4, "outside", k.ready("late", 1, false)...)
	k.refused("in the family that its pool lacks", pod, lab.ClusterServer6)
}

// A gateway's node that is not heard gets no new flows, from nobody.
func case10(k *kubernetes) {
	pod, node := k.Nodes[0].Pods[0], k.Nodes[3]
	red := k.ready("red", 3, false)
	k.pod(k.Nodes[0], 0, bySelector("egw == 'red'"))
	k.sees("all", pod, lab.ClusterServer4, "outside", red...)
	k.deafen(node)
	k.sees("without the deaf one", pod, lab.ClusterServer4, "outside", red[0], red[2])
	node.Must("nft", "delete", "table", "inet", "deaf")
	k.sees("all again", pod, lab.ClusterServer4, "outside", red...)
}

// deafen lets nobody ask a node for its gateways; it ends with the table deaf.
func (k *kubernetes) deafen(n *lab.ClusterNode) {
	n.Must("nft", "table inet deaf { chain in { type filter hook prerouting priority -400; udp dport 9644 drop; }; }")
}

// Of two addresses one is enough; without both, the network is down on that node:
// clients are refused, and its addresses are withdrawn, and those of no other network.
func case11(k *kubernetes) {
	pod := k.Nodes[0].Pods[1] // of the namespace that uses yellow
	k.apply(`{kind: EgressGateway, metadata: {name: yellow, namespace: egress}, spec: {labels: {egw: yellow}, replicas: 1, nodeSelector: "number == '3'", ipPools: [{name: yellow}], terminationGracePeriodSeconds: 60,
  egressGatewayFailureDetection: {icmpProbe: {ips: [10.9.9.1, 10.9.9.2], intervalSeconds: 1, timeoutSeconds: 3}}}}`)
	yellow, red := k.ready("yellow", 1, false), k.ready("red", 3, false)
	k.sees("both answer", pod, lab.ClusterServer4, "yellow", yellow...)
	own, _ := k.Nodes[2].Uplink4()
	k.advertised(k.yellow, map[netip.Addr]netip.Addr{yellow[0]: own.Addr()})
	k.must(k.other.IP("addr del 10.9.9.1/32 dev lo"))
	stop := time.Now().Add(6 * time.Second)
	for time.Now().Before(stop) { // twice the timeout: it must not go
		if _, err := k.ask(pod, lab.ClusterServer4, askLimit); err != nil {
			k.t.Fatalf("one of two addresses is enough: %v", err)
		}
	}
	k.must(k.other.IP("addr del 10.9.9.2/32 dev lo"))
	k.refused("neither answers", pod, lab.ClusterServer4)
	k.advertised(k.yellow, nil)
	k.sees("the other network", k.Nodes[0].Pods[0], lab.ClusterServer4, "outside", red...)
	k.must(k.other.IP("addr add 10.9.9.2/32 dev lo"))
	k.sees("one answers again", pod, lab.ClusterServer4, "yellow", k.ready("yellow", 1, false)...)
	// Whoever forbids the node to ask (24) has a network that is down, too.
	k.Nodes[2].Must("nft", "table inet forbid { chain out { type filter hook output priority 0; ip daddr 10.9.9.0/24 drop; }; }")
	k.refused("it may not be asked", pod, lab.ClusterServer4)
	k.advertised(k.yellow, nil)
	k.Nodes[2].Must("nft", "delete", "table", "inet", "forbid")
	k.sees("it may be asked again", pod, lab.ClusterServer4, "yellow", k.ready("yellow", 1, false)...)
	// A gateway that moves takes its address along.
	k.must(k.other.IP("addr add 10.9.9.1/32 dev lo"))
	k.apply(`{kind: EgressGateway, metadata: {name: yellow, namespace: egress}, spec: {labels: {egw: yellow}, replicas: 1, nodeSelector: "number == '4'", ipPools: [{name: yellow}], terminationGracePeriodSeconds: 0}}`)
	own, _ = k.Nodes[3].Uplink4()
	lab.Eventually(k.t, patience, "yellow on node4", func() error {
		if list := k.instances("yellow"); len(list) != 1 || list[0].node != "node4" || list[0].state != "Ready" {
			return fmt.Errorf("%v", list)
		}
		return nil
	})
	moved := k.ready("yellow", 1, false)
	k.advertised(k.yellow, map[netip.Addr]netip.Addr{moved[0]: own.Addr()})
	k.sees("after the move", pod, lab.ClusterServer4, "yellow", moved...)
}

// advertised waits until a router has routes to just these addresses of the pools, IPv4.
func (k *kubernetes) advertised(r *lab.Router, want map[netip.Addr]netip.Addr) {
	k.t.Helper()
	lab.Eventually(k.t, 2*patience, fmt.Sprint("routes of ", r.NS.Name), func() error {
		routes, err := r.Routes(lab.IPv4)
		if err != nil {
			return err
		}
		n := 0
		for prefix, hops := range routes {
			if !netip.MustParsePrefix("198.51.100.0/24").Contains(prefix.Addr()) {
				continue
			}
			n++
			if hop, ok := want[prefix.Addr()]; !ok || !prefix.IsSingleIP() || len(hops) != 1 || hops[0] != hop {
				return fmt.Errorf("%s by %v, want %v", prefix, hops, want)
			}
		}
		if n != len(want) {
			return fmt.Errorf("%v, want %v", routes, want)
		}
		return nil
	})
}

// stream runs datagram streams of a pod to red's server while something is done.
func (k *kubernetes) stream(pod *lab.NS, count int, while func()) []traffic.StreamReport {
	k.t.Helper()
	_, stop := streamsOf(k.t, pod, count, 60*time.Millisecond, false, true)
	while()
	return stop()
}
