package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/steer"
)

// day is when everything happens.
func day() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// nodeN is the n-th node: 192.168.0.n, pods in 10.244.n.0/24, both families.
func nodeN(n int) Node {
	return Node{Name: fmt.Sprintf("n%d", n), Ready: true, Labels: map[string]string{"kubernetes.io/hostname": fmt.Sprintf("n%d", n)},
		Addresses:   []netip.Addr{addr(fmt.Sprintf("192.168.0.%d", n)), addr(fmt.Sprintf("fd00:168::%x", n))},
		PodPrefixes: []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", n)), prefix(fmt.Sprintf("fd00:244:%x::/64", n))}}
}

// podN is the i-th pod of a node, in namespace ns.
func podN(ns, name string, node, i int) Pod {
	return Pod{Namespace: ns, Name: name, Node: fmt.Sprintf("n%d", node),
		Addresses: []netip.Addr{addr(fmt.Sprintf("10.244.%d.%d", node, i)), addr(fmt.Sprintf("fd00:244:%x::%d", node, i))}}
}

// gatewayOn is a gateway in namespace egress with a colour, placed on nodes.
func gatewayOn(name, colour string, nodes ...int) Gateway {
	g := Gateway{Namespace: "egress", Name: name, UID: "uid-" + name, Labels: map[string]string{"egress-code": colour},
		Network: colour, Pool: colour, Blocks: 1, GracePeriod: time.Minute}
	for _, n := range nodes {
		g.Instances = append(g.Instances, Instance{Node: fmt.Sprintf("n%d", n)})
	}
	return g
}

// colours makes a network and a pool for each colour: host configuration on every
// node.
func colours(names ...string) (networks []Network, pools []Pool) {
	for i, name := range names {
		networks = append(networks, Network{Name: name, Raw: config.RawNetwork{Name: name},
			Hosts: []Host{{NodeSelector: "all()", Interfaces: []config.RawInterface{{Name: "up-" + name, Addresses: []string{"172.16.0.1/24"}}},
				StaticRoutes: []config.RawStaticRoute{{Prefix: "0.0.0.0/0", NextHops: []config.RawNextHop{{Address: "172.16.0.254"}}}}}}})
		pools = append(pools, Pool{Name: name, BlockSize4: 32, BlockSize6: 128,
			Raw: config.RawPool{Name: name, Network: name, Prefixes: []string{fmt.Sprintf("198.51.%d.0/28", i), fmt.Sprintf("2001:db8:%x::/124", i)}}})
	}
	return networks, pools
}

// to leads to the gateways of a colour in any namespace.
func to(colour string, max int) *GatewayRef {
	return &GatewayRef{Selector: "egress-code == '" + colour + "'", NamespaceSelector: "all()", MaxNextHops: max}
}

// steered is what a Config does with a packet: "inside", "normal", "blocked",
// "unknown" (a source that is no client), "drop" (a rule without gateways), or
// the gateways, with the bound of next hops and marks for preference and draining.
func steered(t *testing.T, c steer.Config, source, destination string) string {
	t.Helper()
	if slices.ContainsFunc(c.Inside, func(p netip.Prefix) bool { return p.Contains(addr(destination)) }) {
		return "inside"
	}
	i := slices.IndexFunc(c.Clients, func(c steer.Client) bool { return c.Address == addr(source) })
	if i < 0 {
		return "unknown"
	}
	client := c.Clients[i]
	if client.Blocked {
		return "blocked"
	}
	if client.Policy == "" {
		return "normal"
	}
	p := slices.IndexFunc(c.Policies, func(p steer.Policy) bool { return p.Name == client.Policy })
	if p < 0 {
		t.Fatalf("%s has policy %q, which is not there", source, client.Policy)
	}
	var best *steer.Rule
	for i, r := range c.Policies[p].Rules {
		if r.Destination.Contains(addr(destination)) && (best == nil || r.Destination.Bits() > best.Destination.Bits()) {
			best = &c.Policies[p].Rules[i]
		}
	}
	switch {
	case best == nil || best.Skip:
		return "normal"
	case len(best.Gateways) == 0:
		return "drop"
	}
	var words []string
	for _, id := range best.Gateways {
		g := slices.IndexFunc(c.Gateways, func(g steer.Gateway) bool { return g.ID == id })
		if g < 0 {
			t.Fatalf("rule %s names gateway %q, which is not there", best.Destination, id)
		}
		word := strings.TrimPrefix(id, "egress/")
		if c.Gateways[g].Draining {
			word += "(draining)"
		}
		if c.Gateways[g].Here {
			word += "(here)"
		}
		words = append(words, word)
	}
	if best.MaxNextHops > 0 {
		words = append(words, fmt.Sprintf("max %d", best.MaxNextHops))
	}
	if best.PreferLocal {
		words = append(words, "prefer local")
	}
	return strings.Join(words, " ")
}

// expectSteered holds what a node does with packets, written "source > destination".
func expectSteered(t *testing.T, s Snapshot, node string, o SteerOptions, want map[string]string) {
	t.Helper()
	c, _ := Steering(s, node, o)
	for packet, want := range want {
		source, destination, _ := strings.Cut(packet, " > ")
		if got := steered(t, c, source, destination); got != want {
			t.Errorf("%s: %s, want %s", packet, got, want)
		}
	}
}

// decide writes into s what the controller would.
func decide(s *Snapshot, now time.Time) []Problem {
	placements, problems := Place(*s, now)
	allocations, more := Allocate(*s, placements)
	s.Gateways, s.Pools = slices.Clone(s.Gateways), slices.Clone(s.Pools)
	for i, p := range placements {
		s.Gateways[i].Instances = p.Instances
	}
	for i, a := range allocations {
		s.Pools[i].Allocations = a.Allocations
	}
	return append(problems, more...)
}
