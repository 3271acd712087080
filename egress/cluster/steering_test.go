package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egret-router/egret/egress/steer"
)

// bindAll gives namespace a the binding, and pods p1 on n1 and p2 on n2.
func bindAll(b Binding, gateways []Gateway, policies ...Policy) Snapshot {
	return Snapshot{
		Nodes:      []Node{nodeN(1), nodeN(2), nodeN(3)},
		Namespaces: []Namespace{{Name: "a", Binding: b}, {Name: "egress", Labels: map[string]string{"role": "egress"}}},
		Pods:       []Pod{podN("a", "p1", 1, 11), podN("a", "p2", 2, 11)},
		Gateways:   gateways, Policies: policies,
	}
}

// The names of these tests carry the numbers of the documented behaviour's cases.

func TestCase1SingleGateway(t *testing.T) {
	red := gatewayOn("red", "red", 2)
	red.Namespace = "a" // namespaceSelector defaults to the client's own
	elsewhere := gatewayOn("other", "red", 3)
	s := bindAll(Binding{Selector: "egress-code == 'red'"}, []Gateway{red, elsewhere})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{
		"10.244.1.11 > 8.8.8.8":             "a/red@n2",
		"fd00:244:1::11 > 2001:db8::1":      "a/red@n2",
		"10.244.1.11 > 10.244.2.11":         "inside",
		"10.244.1.11 > 192.168.0.3":         "inside",
		"fd00:244:1::11 > fd00:168::2":      "inside",
		"10.244.2.11 > 8.8.8.8":             "unknown", // of another node
		"fd00:244:1::11 > 2001:db8:99::1":   "a/red@n2",
		"fd00:244:1::11 > fd00:244:2::1234": "inside",
	})
	s.Namespaces[0].NamespaceSelector = "projectcalico.org/name == 'egress'"
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "other@n3"})
	s.Namespaces[0].NamespaceSelector = "role == 'egress' || !has(role)"
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "a/red@n2 other@n3"})
}

func TestCase2Several(t *testing.T) {
	s := bindAll(Binding{Selector: "egress-code == 'red'", NamespaceSelector: "all()"}, []Gateway{gatewayOn("r1", "red", 2, 3), gatewayOn("r2", "red", 1)})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "r1@n2 r1@n3 r2@n1(here)"})
}

func TestCase3Policy(t *testing.T) {
	s := bindAll(Binding{Policy: "p"}, []Gateway{gatewayOn("b", "blue", 1, 2, 3), gatewayOn("r", "red", 2, 3)},
		Policy{Name: "p", Rules: []Rule{{Destination: "10.0.0.0/8"}, {Destination: "11.0.0.0/8", Gateway: to("blue", 2)}, {Gateway: to("red", 0)}}})
	expectSteered(t, s, "n3", SteerOptions{}, map[string]string{})
	expectSteered(t, s, "n2", SteerOptions{}, map[string]string{
		"10.244.2.11 > 10.1.1.1":       "normal",
		"10.244.2.11 > 11.1.1.1":       "b@n1 b@n2(here) b@n3 max 2",
		"10.244.2.11 > 8.8.8.8":        "r@n2(here) r@n3",
		"fd00:244:2::11 > 2001:db8::8": "r@n2(here) r@n3",
	})
}

func TestCase4LongestPrefix(t *testing.T) {
	rules := []Rule{{Gateway: to("red", 0)}, {Destination: "11.0.0.0/8", Gateway: to("blue", 0)}, {Destination: "11.1.0.0/16", Gateway: to("green", 0)}}
	gateways := []Gateway{gatewayOn("b", "blue", 2), gatewayOn("g", "green", 2), gatewayOn("r", "red", 2)}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		p := Policy{Name: "p"}
		for _, i := range order {
			p.Rules = append(p.Rules, rules[i])
		}
		expectSteered(t, bindAll(Binding{Policy: "p"}, gateways, p), "n1", SteerOptions{}, map[string]string{
			"10.244.1.11 > 11.1.2.3": "g@n2", "10.244.1.11 > 11.2.0.1": "b@n2", "10.244.1.11 > 9.9.9.9": "r@n2"})
	}
}

func TestCase5NestedSkip(t *testing.T) {
	s := bindAll(Binding{Policy: "p"}, []Gateway{gatewayOn("b", "blue", 2)},
		Policy{Name: "p", Rules: []Rule{{Destination: "11.0.0.0/8", Gateway: to("blue", 0)}, {Destination: "11.5.0.0/16"}}})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 11.5.0.1": "normal", "10.244.1.11 > 11.4.0.1": "b@n2"})
}

func TestCase6NoDefault(t *testing.T) {
	s := bindAll(Binding{Policy: "p"}, []Gateway{gatewayOn("b", "blue", 2)}, Policy{Name: "p", Rules: []Rule{{Destination: "8.8.8.8", Gateway: to("blue", 0)}}})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n2", "10.244.1.11 > 9.9.9.9": "normal", "fd00:244:1::11 > 2001:db8::1": "normal"})
}

func TestCase7MissingPolicy(t *testing.T) {
	s := bindAll(Binding{Policy: "later"}, []Gateway{gatewayOn("b", "blue", 2)})
	blocked := map[string]string{"10.244.1.11 > 8.8.8.8": "blocked", "10.244.1.11 > 10.244.3.3": "inside", "fd00:244:1::11 > 2001:db8::1": "blocked"}
	expectSteered(t, s, "n1", SteerOptions{}, blocked)
	_, problems := Steering(s, "n1", SteerOptions{})
	want := []Problem{{KindNamespace, "", "a", ReasonNotFound, "metadata.annotations[egress.egret-router.io/egressGatewayPolicy]",
		`there is no policy "later": all traffic that would leave the cluster is dropped`}}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Error(diff)
	}
	s.Policies = []Policy{{Name: "later", Rules: []Rule{{Gateway: to("blue", 0)}}}}
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n2"})
	// A policy that is wrong is as good as missing.
	s.Policies[0].Rules = append(s.Policies[0].Rules, Rule{Gateway: to("red", 0)})
	expectSteered(t, s, "n1", SteerOptions{}, blocked)
}

func TestCase9FailClosed(t *testing.T) {
	s := bindAll(Binding{Selector: "egress-code == 'none'", NamespaceSelector: "all()"}, []Gateway{gatewayOn("b", "blue", 2)})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "drop", "fd00:244:1::11 > 2001:db8::1": "drop"})
	s.Gateways[0].Labels["egress-code"] = "none"
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n2"})
	s.Gateways[0].Instances = nil
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "drop"})
	s.Gateways[0].Instances = []Instance{{Node: "gone"}}
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "drop"})
}

func TestCase13MaxNextHops(t *testing.T) {
	s := bindAll(Binding{Selector: "egress-code == 'red'", NamespaceSelector: "all()", MaxNextHops: "1"}, []Gateway{gatewayOn("r", "red", 1, 2, 3)})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "r@n1(here) r@n2 r@n3 max 1"})
	for text, want := range map[string]string{"0": "r@n1(here) r@n2 r@n3", "4": "r@n1(here) r@n2 r@n3 max 4", "-1": "blocked", "all": "blocked", "65536": "blocked"} {
		s.Namespaces[0].MaxNextHops = text
		expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": want})
	}
}

func TestCase15PreferLocal(t *testing.T) {
	s := bindAll(Binding{Policy: "p"}, []Gateway{gatewayOn("b", "blue", 1, 2)}, Policy{Name: "p", Rules: []Rule{{Gateway: to("blue", 0), PreferLocal: true}}})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n1(here) b@n2 prefer local"})
	expectSteered(t, s, "n2", SteerOptions{}, map[string]string{"10.244.2.11 > 8.8.8.8": "b@n1 b@n2(here) prefer local"})
}

func TestCase16Modes(t *testing.T) {
	s := bindAll(Binding{}, []Gateway{gatewayOn("b", "blue", 2), gatewayOn("r", "red", 2)})
	s.Pods[0].Binding = Binding{Selector: "egress-code == 'red'", NamespaceSelector: "all()"}
	expectSteered(t, s, "n1", SteerOptions{Mode: PerNamespace}, map[string]string{"10.244.1.11 > 8.8.8.8": "normal"})
	expectSteered(t, s, "n1", SteerOptions{Mode: PerNamespaceOrPerPod}, map[string]string{"10.244.1.11 > 8.8.8.8": "r@n2"})
	s.Namespaces[0].Binding = Binding{Selector: "egress-code == 'blue'", NamespaceSelector: "all()"}
	expectSteered(t, s, "n1", SteerOptions{Mode: PerNamespace}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n2"})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "r@n2"})
	expectSteered(t, s, "n2", SteerOptions{}, map[string]string{"10.244.2.11 > 8.8.8.8": "b@n2(here)"})
}

func TestCase22SameNode(t *testing.T) {
	s := bindAll(Binding{Selector: "egress-code == 'red'", NamespaceSelector: "all()"}, []Gateway{gatewayOn("r", "red", 1)})
	c, _ := Steering(s, "n1", SteerOptions{})
	want := []steer.Gateway{{ID: "egress/r@n1", Endpoints: []netip.Addr{addr("192.168.0.1"), addr("fd00:168::1")}, Here: true}}
	if diff := cmp.Diff(want, c.Gateways, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// TestPolicySelectors: annotations come before the selectors of policies, of which
// the oldest counts.
func TestPolicySelectors(t *testing.T) {
	gateways := []Gateway{gatewayOn("b", "blue", 2), gatewayOn("r", "red", 2)}
	blue := Policy{Name: "blue", Rules: []Rule{{Gateway: to("blue", 0)}}, Created: day(), Selectors: []ClientSelector{{Selector: "app == 'x'"}}}
	red := Policy{Name: "red", Rules: []Rule{{Gateway: to("red", 0)}}, Created: day(), Selectors: []ClientSelector{{Selector: "bad bad"}, {NamespaceSelector: LabelNamespaceName + " == 'a'"}}}
	s := bindAll(Binding{}, gateways, blue, red)
	packet := "10.244.1.11 > 8.8.8.8"
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{packet: "r@n2"})
	s.Pods[0].Labels = map[string]string{"app": "x"}
	memo := &Memo{}
	expectSteered(t, s, "n1", SteerOptions{Memo: memo}, map[string]string{packet: "b@n2"}) // equally old, first by name
	s.Policies[0].Created = day().Add(time.Hour)
	expectSteered(t, s, "n1", SteerOptions{Memo: memo}, map[string]string{packet: "r@n2"}) // the older one
	s.Policies[1].Selectors = nil
	expectSteered(t, s, "n1", SteerOptions{Memo: memo, Mode: PerNamespace}, map[string]string{packet: "b@n2"})
	s.Namespaces[0].Binding = Binding{Policy: "red"}
	expectSteered(t, s, "n1", SteerOptions{Memo: memo}, map[string]string{packet: "r@n2"})
	s.Namespaces[0].Binding = Binding{}
	s.Policies[0].Rules[0].Destination = "8.8.8.8/8" // wrong: those it selects are blocked
	expectSteered(t, s, "n1", SteerOptions{Memo: memo}, map[string]string{packet: "blocked", "10.244.1.12 > 8.8.8.8": "unknown"})
}

func TestBindingsThatMeanNothing(t *testing.T) {
	gateways := []Gateway{gatewayOn("b", "blue", 2)}
	s := bindAll(Binding{Policy: "p"}, gateways, Policy{Name: "p", Rules: []Rule{{Gateway: to("blue", 0)}}})
	s.Pods[0].Binding = Binding{MaxNextHops: "2"} // without a selector
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n2"})
	if _, problems := Steering(s, "n1", SteerOptions{}); len(problems) != 1 || problems[0].Kind != KindPod {
		t.Errorf("problems %v", problems)
	}
	s.Pods[0].Binding = Binding{Selector: "egress-code = 'blue'"}
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "blocked"})
	expectSteered(t, s, "n2", SteerOptions{}, map[string]string{"10.244.2.11 > 8.8.8.8": "b@n2(here)"})
}

func TestDraining(t *testing.T) {
	g := gatewayOn("b", "blue", 1, 2, 3)
	g.Instances[1].Draining = day()
	s := bindAll(Binding{Selector: "all()", NamespaceSelector: "all()"}, []Gateway{g})
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n1(here) b@n2(draining) b@n3"})
	s.Gateways[0].Deleted = day()
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n1(draining)(here) b@n2(draining) b@n3(draining)"})
}

func TestAddressOfTwoPods(t *testing.T) {
	s := bindAll(Binding{Policy: "p"}, []Gateway{gatewayOn("b", "blue", 2)}, Policy{Name: "p", Rules: []Rule{{Gateway: to("blue", 0)}}})
	twin := podN("a", "twin", 1, 11)
	s.Pods = append(s.Pods, twin)
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "b@n2"})
	s.Pods[2].Namespace = "b"
	expectSteered(t, s, "n1", SteerOptions{}, map[string]string{"10.244.1.11 > 8.8.8.8": "blocked"})
}

// TestInside holds what is never steered, and that a node steers without an
// object of its own.
func TestInside(t *testing.T) {
	s := bindAll(Binding{}, nil)
	s.Nodes[2].PodPrefixes = nil
	s.Pods = append(s.Pods, podN("a", "p3", 3, 7))
	c, problems := Steering(s, "n4", SteerOptions{Inside: []netip.Prefix{prefix("10.96.0.0/12"), prefix("10.244.1.128/25")}})
	if len(problems) > 0 || len(c.Clients) > 0 || len(c.Local) > 0 || len(c.Tunnel.Local) > 0 {
		t.Errorf("%+v, %v", c, problems)
	}
	var got []string
	for _, p := range c.Inside {
		got = append(got, p.String())
	}
	want := []string{"10.96.0.0/12", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.7/32", "192.168.0.1/32", "192.168.0.2/32", "192.168.0.3/32",
		"fd00:168::1/128", "fd00:168::2/128", "fd00:168::3/128", "fd00:244:1::/64", "fd00:244:2::/64", "fd00:244:3::7/128"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c, _ = Steering(s, "n1", SteerOptions{})
	if !slices.Equal(c.Local, s.Nodes[0].PodPrefixes) || !slices.Equal(c.Tunnel.Local, s.Nodes[0].Addresses) {
		t.Errorf("local %v, tunnel %v", c.Local, c.Tunnel.Local)
	}
}

// TestMemo: what is remembered changes nothing.
func TestMemo(t *testing.T) {
	memo := &Memo{}
	for seed := range uint64(50) {
		s := randomSnapshot(seed)
		for _, n := range s.Nodes {
			with, _ := Steering(s, n.Name, SteerOptions{Memo: memo})
			without, _ := Steering(s, n.Name, SteerOptions{})
			if diff := cmp.Diff(without, with, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				t.Fatalf("seed %d, node %s: %s", seed, n.Name, diff)
			}
		}
	}
}

// TestMemoIsBounded: labels that come and go do not stay for ever.
func TestMemoIsBounded(t *testing.T) {
	memo := &Memo{}
	s := bindAll(Binding{}, nil, Policy{Name: "p", Rules: []Rule{{Gateway: to("blue", 0)}}, Selectors: []ClientSelector{{Selector: "all()"}}})
	most := 0
	for i := range maxMemo + 1000 {
		s.Pods[0].Labels = map[string]string{"n": fmt.Sprint(i)}
		if c, _ := Steering(s, "n1", SteerOptions{Memo: memo}); c.Clients[0].Policy != "p" {
			t.Fatal(c.Clients)
		}
		most = max(most, memo.size)
	}
	if most < maxMemo || most > maxMemo+10 {
		t.Errorf("it remembers %d", most)
	}
}

// TestPodAddressable: it is podPrefix of one address.
func TestPodAddressable(t *testing.T) {
	for _, a := range []string{"10.0.0.1", "0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "223.255.255.255",
		"::", "::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "fd00::1", "2001:db8::1"} {
		if podAddressable(addr(a)) != podPrefix(whole(addr(a))) {
			t.Errorf("%s: %v", a, podAddressable(addr(a)))
		}
	}
	if podAddressable(netip.Addr{}) {
		t.Error("no address is one")
	}
}
