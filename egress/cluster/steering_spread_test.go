package cluster

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/egret-router/egret/egress/steer"
)

// TestCase13Spread: what the nodes of a cluster decide together, each of its own pods:
// gateways have the same number of pods, to a tenth.
func TestCase13Spread(t *testing.T) {
	for _, shape := range []struct{ pods, nodes, gateways, max int }{
		{30, 1, 3, 1}, {30, 3, 3, 1}, {30, 30, 3, 1},
		{300, 1, 7, 2}, {300, 10, 7, 1}, {300, 100, 7, 1}, {300, 100, 10, 3},
	} {
		s := Snapshot{Namespaces: []Namespace{{Name: "a", Binding: Binding{Selector: "egress-code == 'red'", NamespaceSelector: "all()", MaxNextHops: fmt.Sprint(shape.max)}}}}
		var on []int
		for i := range max(shape.nodes, shape.gateways) {
			s.Nodes = append(s.Nodes, nodeN(i+1))
			if i < shape.gateways {
				on = append(on, i+1)
			}
		}
		for i := range shape.pods {
			s.Pods = append(s.Pods, podN("a", fmt.Sprintf("p%d", i), 1+i%shape.nodes, 10+i/shape.nodes%200))
			if i/shape.nodes >= 200 {
				s.Pods[i].Addresses = []netip.Addr{addr(fmt.Sprintf("10.245.%d.%d", 1+i%shape.nodes, i/shape.nodes-200))}
			}
		}
		s.Gateways = []Gateway{gatewayOn("r", "red", on...)}
		health := map[string]steer.Health{}
		for _, n := range on {
			health[InstanceID(s.Gateways[0].Key(), fmt.Sprintf("n%d", n))] = steer.Ready
		}
		load := map[string]int{}
		for i := range shape.nodes {
			cfg, problems := Steering(s, fmt.Sprintf("n%d", i+1), SteerOptions{Tunnel: steer.Tunnel{Device: "vx", Loop: "lo1"}})
			d := steer.Decide(cfg, steer.Observed{Health: health})
			if len(problems)+len(d.Problems) > 0 {
				t.Fatal(problems, d.Problems)
			}
			for _, g := range d.Gateways {
				load[g.ID] += g.Clients
			}
		}
		mean := float64(shape.pods*shape.max) / float64(shape.gateways)
		for id := range health {
			if n := float64(load[id]); n < .9*mean || n > 1.1*mean {
				t.Errorf("%+v: %s has %.0f pods of a mean of %.1f", shape, id, n, mean)
			}
		}
		t.Logf("%+v: %v", shape, load)
	}
}

// TestSteeringIdentity: a pod's addresses are known to be one pod's, nodes have different
// turns, and a bounded rule's target outlives a change of its gateways.
func TestSteeringIdentity(t *testing.T) {
	s := bindAll(Binding{Selector: "egress-code == 'red'", NamespaceSelector: "all()", MaxNextHops: "1"}, []Gateway{gatewayOn("r", "red", 1, 2)})
	first, _ := Steering(s, "n1", SteerOptions{MarkMask: 0x307f})
	second, _ := Steering(s, "n2", SteerOptions{})
	if first.Turn == second.Turn || max(first.Turn, second.Turn) > 2 || first.MarkMask != 0x307f || second.MarkMask != 0 {
		t.Errorf("turns %d and %d, masks %#x and %#x", first.Turn, second.Turn, first.MarkMask, second.MarkMask)
	}
	for _, c := range first.Clients {
		if c.Pod != "a/p1" {
			t.Errorf("%s is of %q", c.Address, c.Pod)
		}
	}
	s.Gateways[0].Instances = append(s.Gateways[0].Instances, Instance{Node: "n3"})
	later, _ := Steering(s, "n1", SteerOptions{})
	for i, r := range later.Policies[0].Rules {
		before := first.Policies[0].Rules[i]
		if r.Target == "" || r.Target != before.Target || len(r.Gateways) != 3 || len(before.Gateways) != 2 {
			t.Errorf("%+v was %+v", r, before)
		}
	}
	// Two pods that claim one address, with the same policy, are no conflict.
	s.Pods = append(s.Pods, podN("a", "twin", 1, 11))
	if twice, problems := Steering(s, "n1", SteerOptions{}); len(problems) > 0 || len(twice.Clients) != len(first.Clients) {
		t.Errorf("%v, clients %v", problems, twice.Clients)
	}
}

// TestTurns: the turns of all nodes are those of a ring, and nodes of one zone, which have
// every third name, have no turns in common.
func TestTurns(t *testing.T) {
	var s Snapshot
	for i := range 300 {
		s.Nodes = append(s.Nodes, Node{Name: fmt.Sprintf("worker-%03d", i)})
	}
	all, zone := map[int]int{}, map[int]int{}
	for i := range s.Nodes {
		n := turn(&s, s.Nodes[i].Name)
		all[n]++
		if i%3 == 0 {
			zone[n%3]++
		}
	}
	if len(all) != 300 || all[0] != 1 || all[299] != 1 {
		t.Errorf("%d different turns of 300 nodes", len(all))
	}
	for n := range 3 {
		if zone[n] < 20 || zone[n] > 47 {
			t.Errorf("%d of 100 nodes of a zone have turn %d of 3", zone[n], n)
		}
	}
}
