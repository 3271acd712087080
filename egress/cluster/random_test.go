package cluster

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/egret-router/egret/egress/config"
)

// randomSnapshot makes a small cluster with everything in it that can be said,
// also wrong things.
func randomSnapshot(seed uint64) Snapshot {
	r := rand.New(rand.NewPCG(seed, 1))
	var s Snapshot
	names := []string{"blue", "green", "red"}
	for i := range 2 + r.IntN(4) {
		n := nodeN(i + 1)
		n.Ready, n.Unschedulable = r.IntN(8) > 0, r.IntN(8) == 0
		n.Labels["zone"] = names[r.IntN(3)]
		n.Labels[LabelZone] = names[r.IntN(3)]
		if r.IntN(8) == 0 {
			n.PodPrefixes = nil
		}
		s.Nodes = append(s.Nodes, n)
	}
	bindings := []Binding{{}, {}, {}, {Policy: "p0"}, {Policy: "p1"}, {Policy: "missing"}, {Policy: "p2", MaxNextHops: "3"},
		{Selector: "egress-code == 'red'", NamespaceSelector: "all()"}, {Selector: "has(egress-code)", MaxNextHops: "1"}, {Selector: "x y"}, {MaxNextHops: "x"}}
	for _, name := range []string{"a", "b", "egress"} {
		s.Namespaces = append(s.Namespaces, Namespace{Name: name, Labels: map[string]string{"team": names[r.IntN(3)]}, Binding: bindings[r.IntN(len(bindings))]})
	}
	for i := range r.IntN(20) {
		p := podN([]string{"a", "b", "c", "egress"}[r.IntN(4)], fmt.Sprintf("p%02d", i), 1+r.IntN(len(s.Nodes)), 1+r.IntN(30))
		p.Labels = map[string]string{"app": names[r.IntN(3)]}
		if r.IntN(3) == 0 {
			p.Binding = bindings[r.IntN(len(bindings))]
		}
		s.Pods = append(s.Pods, p)
	}
	s.Networks, s.Pools = colours(names...)
	for i := range s.Networks {
		randomNetwork(r, &s.Networks[i])
		s.Pools[i].BlockSize4 = []int{0, 30, 31, 32}[r.IntN(4)]
		s.Pools[i].BlockSize6 = []int{0, 126, 128}[r.IntN(3)]
		if r.IntN(8) == 0 {
			s.Pools[i].Raw.Network = "green"
		}
	}
	for i := range r.IntN(6) {
		g := gatewayOn(fmt.Sprintf("g%d", i), names[r.IntN(3)])
		g.Replicas, g.Blocks = r.IntN(4), r.IntN(3)
		g.NodeSelector = []string{"", "", "zone == 'red'", "zone != 'blue'", "oops"}[r.IntN(5)]
		if r.IntN(8) == 0 {
			g.Network = "nowhere"
		}
		if r.IntN(6) == 0 {
			g.Deleted = day()
		}
		if r.IntN(4) == 0 {
			g.FailureDetection = &FailureDetection{ICMP: &ICMPProbe{IPs: []string{"8.8.8.8"}, Interval: time.Duration(r.IntN(4)) * time.Second, Timeout: 3 * time.Second}}
		}
		s.Gateways = append(s.Gateways, g)
	}
	for i := range 4 {
		s.Policies = append(s.Policies, randomPolicy(r, fmt.Sprintf("p%d", i)))
	}
	// As the controller would have it.
	for range 2 {
		decide(&s, day())
	}
	return s
}

func randomNetwork(r *rand.Rand, n *Network) {
	if r.IntN(4) == 0 {
		n.Hosts[0].NodeSelector = "zone == 'green'"
	}
	if r.IntN(10) == 0 {
		n.Hosts[0].Interfaces[0].Name = "shared" // with another network
	}
	if r.IntN(10) == 0 {
		n.Hosts[0].Addresses = []string{"nonsense"}
	}
	if r.IntN(2) == 0 {
		asn := int64(64512)
		n.Raw.BGP = &config.RawBGP{ASN: &asn, RouterID: "1.1.1.1", Peers: []config.RawPeer{{Address: "172.16.0.253", ASN: &asn}}}
		n.Passwords = map[string]string{"172.16.0.253": "secret-" + n.Name}
	}
}

func randomPolicy(r *rand.Rand, name string) Policy {
	p := Policy{Name: name, Created: day().Add(time.Duration(r.IntN(3)) * time.Hour)}
	destinations := []string{"", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "::/0", "2001:db8:ffff::/48", "10.1.2.0/23", "11.0.0.1/8", "2001:db8:ffff:1::/64"}
	for _, d := range r.Perm(len(destinations))[:r.IntN(5)] {
		rule := Rule{Destination: destinations[d], PreferLocal: r.IntN(2) == 0, Description: "rule"}
		if r.IntN(4) > 0 {
			rule.Gateway = to([]string{"blue", "green", "red", "none"}[r.IntN(4)], r.IntN(3))
		}
		p.Rules = append(p.Rules, rule)
	}
	if r.IntN(2) == 0 {
		p.Selectors = []ClientSelector{{Selector: []string{"app == 'red'", "app != 'red'", "oops", ""}[r.IntN(4)], NamespaceSelector: []string{"", "team == 'red'", "has(team)"}[r.IntN(3)]}}
	}
	return p
}
