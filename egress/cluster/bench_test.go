package cluster

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/egret-router/egret/egress/config"
)

// large is a cluster of 500 policies, 5,000 pods on 50 nodes in 200 namespaces, and
// 50 gateways on ten nodes each. A third of the pods is bound by a namespace's
// annotation, a third by its own, a third by the selectors of policies.
func large() Snapshot {
	var s Snapshot
	for i := range 50 {
		s.Nodes = append(s.Nodes, nodeN(i+1))
	}
	for i := range 200 {
		ns := Namespace{Name: fmt.Sprintf("ns%03d", i), Labels: map[string]string{"team": fmt.Sprint(i % 20)}}
		if i%3 == 0 {
			ns.Binding = Binding{Policy: fmt.Sprintf("p%03d", i)}
		}
		s.Namespaces = append(s.Namespaces, ns)
	}
	s.Namespaces = append(s.Namespaces, Namespace{Name: "egress"})
	for i := range 5000 {
		p := podN(fmt.Sprintf("ns%03d", i/25), fmt.Sprintf("pod%04d", i), 1+i%50, 1+i/50)
		p.Labels = map[string]string{"app": fmt.Sprintf("app%d", i/5), "pod-template-hash": fmt.Sprint(i / 5), "tier": fmt.Sprint(i % 2)}
		if i/25%3 == 1 {
			p.Binding = Binding{Policy: fmt.Sprintf("p%03d", i%500)}
		}
		s.Pods = append(s.Pods, p)
	}
	for i := range 50 {
		name := fmt.Sprintf("c%02d", i)
		networks, pools := colours(name)
		networks[0].Hosts[0].Interfaces[0].Name = "up-" + name
		pools[0].Raw.Prefixes = []string{fmt.Sprintf("198.%d.0.0/24", i), fmt.Sprintf("2001:db8:%x::/120", i)}
		s.Networks, s.Pools = append(s.Networks, networks...), append(s.Pools, pools...)
		g := gatewayOn("g-"+name, name)
		g.Replicas = 10
		s.Gateways = append(s.Gateways, g)
	}
	for i := range 500 {
		s.Policies = append(s.Policies, Policy{Name: fmt.Sprintf("p%03d", i),
			Rules:     []Rule{{Destination: "10.0.0.0/8"}, {Destination: "11.0.0.0/8", Gateway: to(fmt.Sprintf("c%02d", i%50), 2)}, {Gateway: to(fmt.Sprintf("c%02d", (i+7)%50), 0)}},
			Selectors: []ClientSelector{{Selector: fmt.Sprintf("app == 'app%d' && has(tier)", i*2), NamespaceSelector: fmt.Sprintf("team in {'%d', '%d'}", i%20, (i+1)%20)}}})
	}
	for range 2 {
		decide(&s, day())
	}
	return s
}

// onePod is what a single event changes.
func onePod(s Snapshot, i int) Snapshot {
	s.Pods = append([]Pod(nil), s.Pods...)
	s.Pods[i%5000].Addresses = []netip.Addr{addr(fmt.Sprintf("10.244.%d.250", 1+i%50))}
	return s
}

func BenchmarkLarge(b *testing.B) {
	s := large()
	events := make([]Snapshot, 64)
	for i := range events {
		events[i] = onePod(s, i*79)
	}
	run := func(name string, f func(Snapshot)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			f(s)
			for i := 0; b.Loop(); i++ {
				f(events[i%len(events)])
			}
		})
	}
	run("Validate", func(s Snapshot) { Validate(s, "") })
	run("Place", func(s Snapshot) { Place(s, day()) })
	placements, _ := Place(s, day())
	run("Allocate", func(s Snapshot) { Allocate(s, placements) })
	run("Steering", func(s Snapshot) { Steering(s, "n7", SteerOptions{}) })
	memo := &Memo{}
	run("Steering/memo", func(s Snapshot) { Steering(s, "n7", SteerOptions{Memo: memo}) })
	run("GatewayConfig", func(s Snapshot) { GatewayConfig(s, "n7", options()) })
	memo2, o := &Memo{}, options()
	o.Memo = memo2
	run("GatewayConfig/memo", func(s Snapshot) { GatewayConfig(s, "n7", o) })
	plan, _ := GatewayConfig(s, "n7", options())
	run("config.Parse", func(Snapshot) { config.Parse(plan.Raw) })
	run("Affected", func(s Snapshot) {
		Affected(s, InstanceID(s.Gateways[3].Key(), s.Gateways[3].Instances[0].Node), "", memo2)
	})
}

// TestLarge holds that the benchmark's cluster is what it says.
func TestLarge(t *testing.T) {
	s := large()
	if problems := Validate(s, ""); len(problems) > 0 {
		t.Fatal(len(problems), problems[0])
	}
	instances, clients, policies := 0, 0, 0
	for _, g := range s.Gateways {
		instances += len(g.Instances)
	}
	for _, n := range s.Nodes {
		plan, problems := GatewayConfig(s, n.Name, options())
		if len(problems) > 0 {
			t.Fatal(problems[0])
		}
		policies += len(plan.Raw.Policies)
		for _, p := range plan.Raw.Policies {
			clients += len(p.Clients)
		}
	}
	if instances != 500 || clients < 20_000 || policies < 2000 {
		t.Errorf("%d instances, %d clients of %d policies", instances, clients, policies)
	}
	t.Logf("%d instances, %d clients of %d policies", instances, clients, policies)
}
