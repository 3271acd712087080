package cluster

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/steer"
)

// placed is sound with its gateways on nodes, blocks handed out.
func placed() Snapshot {
	s := sound()
	s.Gateways[0].Instances, s.Gateways[1].Instances = nil, nil
	s.Gateways[0].NodeSelector, s.Gateways[1].NodeSelector = "kubernetes.io/hostname == 'n3'", "kubernetes.io/hostname in {'n2', 'n3'}"
	decide(&s, day())
	return s
}

func options() GatewayOptions {
	table := int64(300)
	return GatewayOptions{Interfaces: []string{"egret-tun", "egret-loop0"}, ReturnTable: &table}
}

// lines are the problems of a plan.
func lines(problems []Problem) string {
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

func TestGatewayConfig(t *testing.T) {
	s := placed()
	asn := int64(64512)
	s.Networks[1].Raw.BGP = &config.RawBGP{ASN: &asn, RouterID: "1.1.1.1", Peers: []config.RawPeer{{Address: "172.16.0.253", ASN: &asn}, {Address: "172.16.0.252", ASN: &asn}}}
	s.Networks[1].Hosts = append([]Host{{NodeSelector: "kubernetes.io/hostname == 'n2'", Interfaces: []config.RawInterface{{Name: "eth7", Addresses: []string{"172.16.0.9/24"}}}, RouterID: "9.9.9.9"}}, s.Networks[1].Hosts...)
	s.Networks[1].Passwords = map[string]string{"172.16.0.253": "secret"}
	s.Pods[1].Binding = Binding{Policy: "missing"}
	s.Gateways[1].FailureDetection = &FailureDetection{ICMP: &ICMPProbe{IPs: []string{"8.8.8.8"}}}
	plan, problems := GatewayConfig(s, "n2", options())
	if want := `Pod a/p2: metadata.annotations[egress.egret-router.io/egressGatewayPolicy]: there is no policy "missing": all traffic that would leave the cluster is dropped`; lines(problems) != want {
		t.Errorf("problems %s", lines(problems))
	}
	table, one, two := int64(300), int64(1), int64(2)
	want := config.Raw{
		Clients: config.RawClients{Interfaces: []string{"egret-tun", "egret-loop0"}, Unmatched: "drop", ReturnTable: &table,
			Prefixes: []string{"10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24", "fd00:244:1::/64", "fd00:244:2::/64", "fd00:244:3::/64"}},
		Networks: []config.RawNetwork{{Name: "red", Interfaces: []config.RawInterface{{Name: "eth7", Addresses: []string{"172.16.0.9/24"}}},
			BGP: &config.RawBGP{ASN: &asn, RouterID: "9.9.9.9", Peers: []config.RawPeer{
				{Address: "172.16.0.253", ASN: &asn, PasswordFile: "/run/egret/passwords/red-" + plainName("172.16.0.253.")}, {Address: "172.16.0.252", ASN: &asn}}},
			Probes: []config.RawProbe{{Name: "egress--r-icmp", Type: "icmp", Targets: []config.RawTarget{{Target: "8.8.8.8"}}, Interval: "5s", AttemptTimeout: "5s", Rise: &one, Fall: &two}}}},
		Pools: []config.RawPool{{Name: "egress--r", Network: "red", Prefixes: []string{"198.51.1.0/32", "2001:db8:1::/128"}}},
		Policies: []config.RawPolicy{{Name: "p", Clients: []string{"10.244.1.11", "fd00:244:1::11"}, Rules: []config.RawRule{
			{Network: "red", Pool: "egress--r"}, {Destination: "10.0.0.0/8", Action: "drop"}, {Destination: "11.0.0.0/8", Action: "drop"}}}},
		Bindings: []config.RawBinding{{Policy: "missing", Clients: []string{"10.244.2.11", "fd00:244:2::11"}}},
	}
	if diff := cmp.Diff(want, plan.Raw, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	returns := []Return{{Prefix: prefix("10.244.1.0/24"), Node: "n1", Endpoint: addr("192.168.0.1")}, {Prefix: prefix("fd00:244:1::/64"), Node: "n1", Endpoint: addr("192.168.0.1")}}
	if !slices.Equal(plan.Returns, returns) {
		t.Errorf("returns %v", plan.Returns)
	}
	if len(plan.Files) != 1 || plan.Files[want.Networks[0].BGP.Peers[0].PasswordFile] != "secret" {
		t.Errorf("files %v", plan.Files)
	}
	if !slices.Equal(plan.Here, []GatewayHere{{"egress/r@n2", "red", "egress--r", false}}) {
		t.Errorf("here %v", plan.Here)
	}
	if len(plan.Spec.Networks) != 1 || len(plan.Spec.Policies) != 2 || s.Networks[1].Raw.BGP.Peers[0].PasswordFile != "" {
		t.Errorf("spec %+v", plan.Spec)
	}
	// A node without gateways is a gateway of nothing.
	plan, problems = GatewayConfig(s, "n1", options())
	if len(plan.Raw.Networks)+len(plan.Raw.Pools)+len(plan.Raw.Policies)+len(plan.Returns)+len(plan.Here) > 0 || len(problems) != 1 {
		t.Errorf("%+v, %v", plan, problems)
	}
}

// TestGatewayRules: what leads here, with drops around it only where they matter.
func TestGatewayRules(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []Rule
		want  string
	}{
		{"nothing here", []Rule{{Gateway: to("green", 0)}}, ""},
		{"everything", []Rule{{Gateway: to("red", 0)}}, "*=red"},
		{"two families", []Rule{{Destination: "0.0.0.0/0", Gateway: to("red", 0)}, {Destination: "::/0", Gateway: to("blue", 0)}}, "0.0.0.0/0=red ::/0=blue"},
		{"both to one", []Rule{{Destination: "0.0.0.0/0", Gateway: to("red", 0)}, {Destination: "::/0", Gateway: to("red", 0)}}, "*=red"},
		{"no default", []Rule{{Destination: "11.0.0.0/8", Gateway: to("red", 0)}}, "*=drop 11.0.0.0/8=red"},
		{"one family", []Rule{{Destination: "0.0.0.0/0", Gateway: to("red", 0)}}, "0.0.0.0/0=red ::/0=drop"},
		{"skip inside", []Rule{{Gateway: to("red", 0)}, {Destination: "11.0.0.0/8"}}, "*=red 11.0.0.0/8=drop"},
		{"skip outside", []Rule{{Destination: "11.1.0.0/16", Gateway: to("red", 0)}, {Destination: "11.0.0.0/8"}}, "*=drop 11.1.0.0/16=red"},
		{"elsewhere inside", []Rule{{Gateway: to("red", 0)}, {Destination: "11.0.0.0/8", Gateway: to("green", 0)}}, "*=red 11.0.0.0/8=drop"},
		{"drop in drop", []Rule{{Gateway: to("red", 0)}, {Destination: "11.0.0.0/8"}, {Destination: "11.1.0.0/16"}, {Destination: "11.1.1.1", Gateway: to("blue", 0)}, {Destination: "11.1.1.0/24"}},
			"*=red 11.0.0.0/8=drop 11.1.1.1/32=blue"},
	} {
		s := placed()
		s.Policies[0].Rules = c.rules
		plan, problems := GatewayConfig(s, "n3", options())
		if len(problems) > 0 {
			t.Errorf("%s: %v", c.name, problems)
		}
		var words []string
		for _, p := range plan.Raw.Policies {
			for _, r := range p.Rules {
				if r.Destination == "" {
					r.Destination = "*"
				}
				words = append(words, r.Destination+"="+r.Network+r.Action)
			}
		}
		if got := strings.Join(words, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestGatewayOrder: of several gateways of a node those that do not drain, then the
// first by name; and the family decides as well.
func TestGatewayOrder(t *testing.T) {
	s := placed()
	s.Networks[1].Hosts[0].Interfaces[0].Name = "eth9"
	for _, name := range []string{"a", "z"} {
		s.Gateways = append(s.Gateways, gatewayOn(name, "red", 3))
	}
	decide(&s, day())
	pools := func(s Snapshot) string {
		plan, problems := GatewayConfig(s, "n3", options())
		if len(problems) > 0 {
			t.Error(problems)
		}
		var words []string
		for _, r := range plan.Raw.Policies[0].Rules {
			words = append(words, r.Pool+r.Action)
		}
		return strings.Join(words, " ")
	}
	if got := pools(s); got != "egress--a drop egress--b" {
		t.Error(got)
	}
	at := slices.IndexFunc(s.Gateways, func(g Gateway) bool { return g.Name == "a" })
	s.Gateways[at].Deleted = day()
	if got := pools(s); got != "egress--r drop egress--b" {
		t.Error(got)
	}
	s.Gateways[at].Deleted = Gateway{}.Deleted
	s.Pools[1].Allocations = slices.DeleteFunc(slices.Clone(s.Pools[1].Allocations), func(a Allocation) bool {
		return a.Gateway == "egress/a" && a.Block.Addr().Is4()
	})
	if got := pools(s); got != "egress--r drop egress--b egress--a" {
		t.Error(got)
	}
}

// TestGatewayIsolation: what the validator refuses is left out, and nothing else.
func TestGatewayIsolation(t *testing.T) {
	s := placed()
	s.Networks[0].Hosts[0].Addresses = []string{"nonsense"}
	s.Policies = append(s.Policies, Policy{Name: "own", Rules: []Rule{{Gateway: to("red", 0)}, {Destination: "172.16.0.1", Gateway: to("red", 0)}}})
	s.Namespaces = append(s.Namespaces, Namespace{Name: "b", Binding: Binding{Policy: "own"}})
	s.Pods = append(s.Pods, podN("b", "q", 1, 12))
	s.Nodes[0].PodPrefixes = append(s.Nodes[0].PodPrefixes, prefix("0.0.0.0/0"))
	s.Pods[1].Addresses = append(s.Pods[1].Addresses, addr("127.0.0.1"))
	o := options()
	o.Prefixes = []netip.Prefix{prefix("198.51.7.0/24")}
	s.Networks = append(s.Networks, Network{Name: "clash", Hosts: []Host{{Interfaces: []config.RawInterface{{Name: "up-clash"}}}}})
	clash := gatewayOn("clash", "clash", 3)
	s.Gateways = append(s.Gateways, clash)
	s.Pools = append(s.Pools, Pool{Name: "clash", Raw: config.RawPool{Network: "clash"}, Allocations: []Allocation{{prefix("198.51.7.7/32"), "egress/clash", "n3", "uid-clash"}}})
	plan, problems := GatewayConfig(s, "n3", o)
	want := `EgressGateway egress/clash: spec.pool: 198.51.7.7/32 overlaps 198.51.7.0/24 of clients.prefixes: a client with such an address could leave without being translated
EgressGateway egress/b: spec.externalNetwork: there is no network "blue" that node n3 can carry
EgressGatewayPolicy own: spec.rules[1].destination: 172.16.0.1 is an address of this gateway itself in network "red": it would be delivered here
ExternalNetwork blue: spec.hosts[0].addresses[0]: "nonsense" is not an IPv4 or IPv6 address
ExternalNetwork blue: spec.hosts[0].addresses: is given here and in interfaces[0]: write all in one place`
	if got := lines(problems); !sameLines(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(plan.Spec.Networks) != 2 || len(plan.Spec.Policies) != 1 || len(plan.Here) != 1 || plan.Spec.Policies[0].Name != "p" || len(plan.Spec.Policies[0].Clients) != 4 {
		t.Errorf("%+v", plan.Raw)
	}
}

func sameLines(a, b string) bool {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// through is what a gateway's node does with a packet from a client: the network
// it leaves by, or "".
func through(spec egress.Spec, source, destination netip.Addr) string {
	for _, p := range spec.Policies {
		if p.Missing || !slices.ContainsFunc(p.Clients, func(c netip.Prefix) bool { return c.Contains(source) }) {
			continue
		}
		var best *egress.Rule
		for i, r := range p.Rules {
			if r.Destination.Contains(destination) && (best == nil || r.Destination.Bits() > best.Destination.Bits()) {
				best = &p.Rules[i]
			}
		}
		switch {
		case best == nil || best.Action == egress.ActionSkip:
			return "routed normally"
		case best.Action == egress.ActionNetwork:
			return best.Network
		}
		return ""
	}
	return ""
}

// TestGatewaysAgreeWithSteering builds random clusters, wrong things included, and
// holds that the configuration of every node is sound and the same each time, and
// that each packet that a client's node may send to a gateway is let through
// there, and no other.
func TestGatewaysAgreeWithSteering(t *testing.T) {
	passed, dropped := 0, 0
	for seed := range uint64(150) {
		s := randomSnapshot(seed)
		for _, gw := range s.Nodes {
			plan, _ := GatewayConfig(s, gw.Name, options())
			spec, problems := config.Parse(plan.Raw)
			if len(problems) > 0 {
				t.Fatalf("seed %d, node %s: %v", seed, gw.Name, problems)
			}
			again, _ := GatewayConfig(s, gw.Name, options())
			if !reflect.DeepEqual(plan, again) || !reflect.DeepEqual(plan.Spec, spec) {
				t.Fatalf("seed %d, node %s: %+v\nthen %+v", seed, gw.Name, plan, again)
			}
			works := map[string]string{}
			for _, h := range plan.Here {
				works[h.ID] = h.Network
			}
			for _, cl := range s.Nodes {
				c, _ := Steering(s, cl.Name, SteerOptions{})
				for _, client := range c.Clients {
					for _, d := range []string{"10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "9.9.9.9", "2001:db8:ffff:1::1", "2001:db8:ffff::1", "2001:db9::1"} {
						if client.Address.Is4() != addr(d).Is4() {
							continue
						}
						may := slices.ContainsFunc(strings.Fields(steered(t, c, client.Address.String(), d)), func(word string) bool {
							word, _, _ = strings.Cut("egress/"+word, "(")
							return works[word] != ""
						})
						got := through(spec, client.Address, addr(d))
						if got == "routed normally" || (got != "") != may && !familyGap(plan.Raw, addr(d)) {
							t.Fatalf("seed %d: %s > %s by %s: steering allows %v, the gateway does %q", seed, client.Address, d, gw.Name, may, got)
						}
						if got != "" {
							passed++
						} else {
							dropped++
						}
					}
				}
				if !returned(plan, c.Clients, cl.Name) {
					t.Fatalf("seed %d: %s has no way back to %s: %v", seed, gw.Name, cl.Name, plan.Returns)
				}
			}
		}
	}
	if passed < 100 || dropped < 100 {
		t.Errorf("%d passed, %d dropped: that is no test", passed, dropped)
	}
}

// familyGap says whether a pool lacks addresses of the destination's family: then
// a gateway drops what a client's node may send.
func familyGap(raw config.Raw, d netip.Addr) bool {
	return slices.ContainsFunc(raw.Pools, func(p config.RawPool) bool {
		return !slices.ContainsFunc(p.Prefixes, func(s string) bool { return prefix(s).Addr().Is4() == d.Is4() })
	})
}

// returned says whether the gateway has the way back to each of its clients on a
// node.
func returned(plan GatewayPlan, clients []steer.Client, node string) bool {
	for _, client := range clients {
		for _, p := range plan.Spec.Policies {
			if p.Missing || !slices.Contains(p.Clients, whole(client.Address)) {
				continue
			}
			best := Return{}
			for _, r := range plan.Returns {
				if r.Prefix.Contains(client.Address) && (best.Node == "" || r.Prefix.Bits() > best.Prefix.Bits()) {
					best = r
				}
			}
			if best.Node != node {
				return false
			}
		}
	}
	return true
}
