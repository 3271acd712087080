package cluster

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/steer"
)

// SteerOptions is what a node's agent knows beside the objects.
type SteerOptions struct {
	// Tunnel is taken over; its Local, when empty, are the node's first addresses.
	Tunnel steer.Tunnel
	// MarkMask is taken over.
	MarkMask uint32
	Mode     Mode
	// Inside are destinations that are never steered beside those that the objects
	// name: services, pods without a prefix of their node, what the user wants.
	Inside []netip.Prefix
	// Memo may be nil.
	Memo *Memo
}

// Steering is what a node does with the traffic of its pods. Its order is that
// of the Snapshot, so that equal Snapshots make equal Configs. What is wrong with
// an object blocks the clients concerned, and nobody else.
//
// The gateways of a Config are those that its rules name. Whether they work is
// not decided here: a gateway whose own configuration is wrong is known by its
// node, which answers so when it is asked.
//
// An address that two pods of the node claim is blocked unless both may go the
// same ways.
func Steering(s Snapshot, node string, o SteerOptions) (steer.Config, []Problem) {
	l := newLookup(&s)
	self := l.nodes[node]
	if self == nil {
		self = &Node{Name: node}
	}
	b, c := newBinder(&s, l, o.Mode, o.Memo), newCandidates(&s, l)
	config := steer.Config{Tunnel: o.Tunnel, MarkMask: o.MarkMask, Inside: inside(&s, o.Inside), Local: minimal(self.podPrefixes()), Turn: turn(&s, node)}
	if len(config.Tunnel.Local) == 0 {
		config.Tunnel.Local = self.Ends()
	}
	config.Clients = b.clients(&s, node)
	used, needed := map[string]bool{}, map[int]bool{}
	for _, client := range config.Clients {
		if client.Policy == "" || client.Blocked || used[client.Policy] {
			continue
		}
		used[client.Policy] = true
		config.Policies = append(config.Policies, steerPolicy(b.policy(client.Policy), c, needed))
	}
	slices.SortFunc(config.Policies, func(p, q steer.Policy) int { return strings.Compare(p.Name, q.Name) })
	for i := range s.Gateways {
		if needed[i] {
			config.Gateways = append(config.Gateways, steerGateways(&s.Gateways[i], l, node)...)
		}
	}
	return config, sortProblems(b.problems)
}

// turn is a node's place among all, in an order by hash: in one by name, nodes that
// have something in common, such as every third one's zone, would have turns in common,
// too. Nodes that come and go change it, which concerns new clients only.
func turn(s *Snapshot, node string) int {
	n, own := 0, egress.Hash64(node)
	for i := range s.Nodes {
		name := s.Nodes[i].Name
		if h := egress.Hash64(name); h < own || h == own && name < node {
			n++
		}
	}
	return n
}

// clients are the addresses of a node's pods.
func (b *binder) clients(s *Snapshot, node string) []steer.Client {
	var clients []steer.Client
	at := map[netip.Addr]int{}
	for i := range s.Pods {
		pod := &s.Pods[i]
		if pod.Node != node {
			continue
		}
		of, name := b.of(pod), pod.Namespace+"/"+pod.Name
		for _, a := range pod.Addresses {
			client := steer.Client{Address: whole(a).Addr(), Pod: name, Policy: of.policy, Blocked: of.blocked}
			if !podAddressable(client.Address) {
				continue
			}
			if client.Blocked {
				client.Policy = ""
			}
			first, taken := at[client.Address]
			if !taken {
				at[client.Address] = len(clients)
				clients = append(clients, client)
			} else if clients[first].Policy != client.Policy || clients[first].Blocked != client.Blocked {
				clients[first].Policy, clients[first].Blocked = "", true
				b.claimed(pod, client.Address)
			}
		}
	}
	return clients
}

// claimed reports a pod whose address another pod has as well.
func (b *binder) claimed(pod *Pod, a netip.Addr) {
	r := &reporter{kind: KindPod, namespace: pod.Namespace, name: pod.Name}
	r.add(ReasonConflict, "status.podIPs", "%s is the address of another pod with another policy as well: its traffic is dropped until one of them is gone", a)
	b.problems = append(b.problems, r.problems...)
}

// steerPolicy is a policy with the gateways of each rule. needed gets them.
func steerPolicy(p *policy, c *candidates, needed map[int]bool) steer.Policy {
	result := steer.Policy{Name: p.name}
	for i := range p.rules {
		from := &p.rules[i]
		rule := steer.Rule{Skip: from.to == nil}
		if from.to != nil {
			rule.PreferLocal, rule.MaxNextHops = from.preferLocal, from.to.maxNextHops
			if rule.MaxNextHops > 0 {
				rule.Target = from.to.text()
			}
			for _, g := range c.of(from.to) {
				needed[g] = true
				for j := range c.gateways[g].Instances {
					if at := c.gateways[g].Instances[j].Node; c.lookup.reachable(at) {
						rule.Gateways = append(rule.Gateways, InstanceID(c.gateways[g].Key(), at))
					}
				}
			}
			slices.Sort(rule.Gateways)
			rule.Gateways = slices.Compact(rule.Gateways)
		}
		for _, d := range from.destinations {
			rule.Destination = d
			result.Rules = append(result.Rules, rule)
		}
	}
	return result
}

// reachable says whether a tunnel can lead to a node.
func (l *lookup) reachable(node string) bool {
	n := l.nodes[node]
	return n != nil && len(n.Ends()) > 0
}

func steerGateways(g *Gateway, l *lookup, node string) []steer.Gateway {
	var result []steer.Gateway
	for i := range g.Instances {
		at := &g.Instances[i]
		if !l.reachable(at.Node) || i > 0 && g.at(at.Node) != at {
			continue
		}
		result = append(result, steer.Gateway{ID: InstanceID(g.Key(), at.Node), Endpoints: l.nodes[at.Node].Ends(),
			Here: at.Node == node, Draining: g.draining(at)})
	}
	return result
}

// inside are the destinations that are never steered: pods, nodes, and more.
func inside(s *Snapshot, more []netip.Prefix) []netip.Prefix {
	prefixes := slices.DeleteFunc(slices.Clone(more), func(p netip.Prefix) bool { return !p.IsValid() })
	for i := range s.Nodes {
		for _, a := range s.Nodes[i].Addresses {
			prefixes = append(prefixes, whole(a))
		}
	}
	return podSources(s, prefixes)
}

// podSources are where pods have their addresses, and more.
func podSources(s *Snapshot, more []netip.Prefix) []netip.Prefix {
	prefixes := more
	for i := range s.Nodes {
		prefixes = append(prefixes, s.Nodes[i].podPrefixes()...)
	}
	prefixes = minimal(prefixes)
	known := ranges{prefixes}
	var outside []netip.Prefix
	for i := range s.Pods {
		for _, a := range s.Pods[i].Addresses {
			if p := whole(a); !known.overlaps(p) && podAddressable(p.Addr()) {
				outside = append(outside, p)
			}
		}
	}
	if len(outside) == 0 {
		return prefixes
	}
	return minimal(append(prefixes, outside...))
}

// podPrefixes are those of the node's prefixes that can be: one that took in a
// large part of all addresses would be a mistake that concerns every node.
func (n *Node) podPrefixes() []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(n.PodPrefixes), func(p netip.Prefix) bool { return !podPrefix(p) })
}

// podPrefix says whether pods can have their addresses from p.
func podPrefix(p netip.Prefix) bool {
	if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" || p.Bits() < 16 && p.Addr().Is6() || p.Bits() < 8 {
		return false
	}
	return !slices.ContainsFunc(specialPrefixes[:], p.Overlaps)
}

// podAddressable says whether a pod can have the address: podPrefix of one.
func podAddressable(a netip.Addr) bool {
	if !a.IsValid() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
		return false
	}
	return !a.Is4() || a.As4()[0] != 0 && a.As4()[0] < 224
}

// whole is the prefix of one address.
func whole(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// minimal sorts prefixes and drops those inside others. It owns what it is given.
func minimal(prefixes []netip.Prefix) []netip.Prefix {
	for i, p := range prefixes {
		prefixes[i] = p.Masked()
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	kept := prefixes[:0]
	for _, p := range prefixes {
		// What contains p comes before it, and what lies between is in there, too.
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}
