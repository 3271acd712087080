package cluster

import (
	"slices"
	"testing"
)

func TestAffected(t *testing.T) {
	s := bindAll(Binding{Policy: "p"}, []Gateway{gatewayOn("b", "blue", 1, 3), gatewayOn("r", "red", 2)},
		Policy{Name: "p", Rules: []Rule{{Destination: "11.0.0.0/8", Gateway: to("blue", 0)}, {Gateway: to("red", 0)}}})
	s.Pods = append(s.Pods, podN("free", "q", 1, 12))
	p1, p2 := AffectedPod{"a", "p1", false}, AffectedPod{"a", "p2", false}
	expect := func(instance string, want ...AffectedPod) {
		t.Helper()
		if got := Affected(s, instance, "", nil); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", instance, got, want)
		}
	}
	expect("egress/b@n1", p1, p2)
	expect("egress/r@n2", p1, p2)
	expect("egress/r@n1")
	expect("egress/x@n1")
	expect("nonsense")
	s.Policies[0].Rules[0].Gateway.MaxNextHops = 1
	expect("egress/b@n3", AffectedPod{"a", "p1", true}, AffectedPod{"a", "p2", true})
	s.Policies[0].Rules[0].Gateway.MaxNextHops = 2
	expect("egress/b@n3", p1, p2)
	s.Policies[0].Rules[0].PreferLocal = true
	expect("egress/b@n3", p2) // p1 has one on its own node
	s.Gateways[0].Instances[0].Draining = day()
	expect("egress/b@n3", p1, p2)
	s.Pods[1].Binding = Binding{Policy: "missing"}
	expect("egress/b@n3", p1)
}
