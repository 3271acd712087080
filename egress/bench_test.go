package egress

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// manyRoutes is a network that learned so many routes from two routers.
func manyRoutes(n int) (*Spec, State) {
	spec, st := twoNetworks(), readyState()
	hops := []netip.Addr{netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("172.16.0.3")}
	spec.Networks[0].Ports[0].Addresses[0] = netip.MustParsePrefix("172.16.0.1/24")
	var routes []bgp.Route
	for i := range n {
		routes = append(routes, bgp.Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32), NextHops: hops})
	}
	st.Learned["red"] = routes
	return spec, st
}

// manyPolicies is a Spec with so many policies of so many destinations.
func manyPolicies(policies, destinations int) *Spec {
	spec := twoNetworks()
	spec.Policies = nil
	for p := range policies {
		policy := Policy{Name: fmt.Sprintf("p%d", p)}
		for c := range 10 {
			policy.Clients = append(policy.Clients, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(p >> 2), byte(p<<6 | c)}), 32))
		}
		for d := range destinations {
			policy.Rules = append(policy.Rules, Rule{Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + p>>8), byte(p), byte(d), 0}), 24),
				Action: ActionNetwork, Network: "red", Pool: "red-pool"})
		}
		spec.Policies = append(spec.Policies, policy)
	}
	return spec
}

func BenchmarkCompile(b *testing.B) {
	spec := manyPolicies(1000, 100)
	for b.Loop() {
		compile(spec)
	}
}

func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("%d-routes", n), func(b *testing.B) {
			spec, st := manyRoutes(n)
			c := compile(spec)
			for b.Loop() {
				c.resolve(st)
			}
		})
	}
	b.Run("1000-policies", func(b *testing.B) {
		c := compile(manyPolicies(1000, 100))
		st := readyState()
		for b.Loop() {
			c.resolve(st)
		}
	})
}

// BenchmarkObserve is what a round makes of a snapshot with many routes.
func BenchmarkObserve(b *testing.B) {
	spec, st := manyRoutes(100_000)
	have := vrf.Snapshot{Owner: spec.Settings.Ownership.Owner(), Config: Resolve(spec, st).Kernel}
	for b.Loop() {
		Observe(have, spec.Settings.Ownership)
	}
}

// BenchmarkLoseHops is from the verdict to the message for the kernel, with
// 100,000 routes on the group that loses a next hop: what the daemon adds to the
// kernel's own time for one message.
func BenchmarkLoseHops(b *testing.B) {
	spec, st := manyRoutes(100_000)
	spec.Networks[0].NextHopProbes = []probes.Config{{Name: "red/nh", Network: "red", Device: "red", Type: probes.ICMP}}
	for _, a := range []string{"172.16.0.2", "172.16.0.3"} {
		st.Verdicts["red/nh@"+a] = probes.Up
	}
	d := compile(spec).resolve(st)
	have := vrf.Snapshot{Owner: spec.Settings.Ownership.Owner(), Config: d.Kernel}
	lost := netip.MustParseAddr("172.16.0.3")
	for b.Loop() {
		groups := d.objects.without(func(_ string, h hop) bool { return h.Gateway == lost })
		if len(groups) != 1 {
			b.Fatalf("%d groups change, want 1", len(groups))
		}
		plan := vrf.Plan{Ops: []vrf.Op{{Action: vrf.PutGroup{Group: groups[0].Group, Replace: true}, Network: groups[0].network}}}
		if _, ok := plan.ApplyTo(have); !ok {
			b.Fatal("the snapshot does not follow")
		}
	}
}
