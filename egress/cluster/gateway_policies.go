package cluster

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
)

// policies adds those that lead to this node, and the bindings to those that are
// missing.
func (p *gatewayPlanner) policies(raw config.Raw) (egress.Spec, config.Raw) {
	clients, blocked := p.boundPods()
	p.served = map[netip.Addr]string{}
	rules := map[string][]config.RawRule{}
	for key := range clients {
		if policy := p.binder.policy(key); policy != nil {
			rules[key] = p.rules(policy)
		}
	}
	keys := make([]string, 0, len(rules))
	for key := range rules {
		if len(rules[key]) > 0 {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var names namer
	var parts []part
	for _, key := range keys {
		policy := config.RawPolicy{Name: names.name(key), Rules: rules[key], Clients: addresses(clients[key])}
		r := &reporter{kind: KindPolicy, name: key}
		parts = append(parts, part{r, func(raw *config.Raw) { raw.Policies = append(raw.Policies, policy) }, func(field string) string {
			_, rest, _ := strings.Cut(field, "].")
			return "spec." + rest
		}})
	}
	for _, key := range sortedKeys(blocked) {
		binding := config.RawBinding{Policy: names.name(key), Clients: addresses(blocked[key])}
		parts = append(parts, part{&reporter{kind: KindPolicy, name: key}, func(raw *config.Raw) { raw.Bindings = append(raw.Bindings, binding) },
			func(field string) string { return field }})
	}
	// The usual case needs the result of the validator as well.
	with := together(raw, parts)
	spec, problems := config.Parse(with)
	if len(problems) > 0 {
		with = p.admit(raw, parts)
		spec, _ = config.Parse(with)
	}
	accepted := map[string]bool{}
	for _, policy := range with.Policies {
		accepted[policy.Name] = true
	}
	for _, key := range keys {
		if accepted[names.name(key)] {
			for _, c := range clients[key] {
				p.served[c.address] = c.node
			}
		}
	}
	return spec, with
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// podAddress is an address of a pod that is bound to a policy.
type podAddress struct {
	address netip.Addr
	node    string
}

func addresses(pods []podAddress) []string {
	slices.SortFunc(pods, func(a, b podAddress) int { return a.address.Compare(b.address) })
	list := make([]string, 0, len(pods))
	for _, pod := range pods {
		list = append(list, pod.address.String())
	}
	return list
}

// boundPods are the addresses of the cluster's pods by the policy they are bound
// to, and those that are bound to one that does not exist. An address that two
// pods with different policies claim is in neither.
func (p *gatewayPlanner) boundPods() (clients, blocked map[string][]podAddress) {
	type claim struct {
		of      bound
		pod     int
		several bool
	}
	claims := make(map[netip.Addr]claim, 2*len(p.snapshot.Pods))
	for i := range p.snapshot.Pods {
		pod := &p.snapshot.Pods[i]
		of := p.binder.of(pod)
		for _, a := range pod.Addresses {
			if a = a.Unmap().WithZone(""); !podAddressable(a) {
				continue
			}
			first, taken := claims[a]
			if !taken {
				claims[a] = claim{of: of, pod: i}
			} else if first.of != of && !first.several {
				first.several = true
				claims[a] = first
				p.binder.claimed(pod, a)
			}
		}
	}
	clients, blocked = map[string][]podAddress{}, map[string][]podAddress{}
	for a, c := range claims {
		to := clients
		if c.of.blocked {
			to = blocked
		}
		missing := c.of.blocked && p.lookup.policies[c.of.policy] != nil // wrong, but there
		if c.several || c.of.policy == "" || missing {
			continue
		}
		to[c.of.policy] = append(to[c.of.policy], podAddress{a, p.snapshot.Pods[c.pod].Node})
	}
	return clients, blocked
}

// lead is where traffic to a destination goes from here: to a gateway of this
// node, or, if that is -1, nowhere.
type lead struct {
	destination netip.Prefix
	gateway     int // in here
	description string
}

// rules are those of a policy that lead here, and around them as many as it takes
// to drop the rest. None, if none leads here.
func (p *gatewayPlanner) rules(of *policy) []config.RawRule {
	leads, any := p.leads(of)
	if !any {
		return nil
	}
	// Shortest first: what contains a destination comes before it.
	slices.SortFunc(leads, func(a, b lead) int {
		return cmp.Or(cmp.Compare(a.destination.Bits(), b.destination.Bits()), a.destination.Compare(b.destination))
	})
	kept := leads[:0]
	for _, l := range leads {
		if l.gateway >= 0 || leadsHere(kept, l.destination) {
			kept = append(kept, l)
		}
	}
	for _, d := range everything() {
		if !slices.ContainsFunc(kept, func(l lead) bool { return l.destination == d }) {
			kept = append(kept, lead{destination: d, gateway: -1})
		}
	}
	slices.SortFunc(kept, func(a, b lead) int { return a.destination.Compare(b.destination) })
	return p.rawRules(kept)
}

// leadsHere says whether the longest of the leads that contain d leads to a gateway
// of this node. Of those that do, the last is the longest.
func leadsHere(leads []lead, d netip.Prefix) bool {
	for _, l := range slices.Backward(leads) {
		if l.destination.Overlaps(d) && l.destination.Bits() <= d.Bits() {
			return l.gateway >= 0
		}
	}
	return false
}

// leads are where each destination of a policy goes from here.
func (p *gatewayPlanner) leads(of *policy) (leads []lead, any bool) {
	for i := range of.rules {
		rule := &of.rules[i]
		var chosen []int
		if rule.to != nil {
			chosen = p.candidates.of(rule.to)
		}
		for _, d := range rule.destinations {
			l := lead{destination: d, gateway: -1}
			if len(chosen) > 0 {
				l.gateway = slices.IndexFunc(p.here, func(h here) bool {
					_, selected := slices.BinarySearch(chosen, h.place)
					return selected && h.families[familyIndex(d)]
				})
			}
			if l.gateway >= 0 {
				any = true
				if oneLine(rule.description) {
					l.description = rule.description
				}
			}
			leads = append(leads, l)
		}
	}
	return leads, any
}

// rawRules writes leads, and both defaults as one where they are the same.
func (p *gatewayPlanner) rawRules(leads []lead) []config.RawRule {
	var rules []config.RawRule
	defaults := slices.DeleteFunc(slices.Clone(leads), func(l lead) bool { return l.destination.Bits() > 0 })
	one := defaults[0].gateway == defaults[1].gateway && defaults[0].description == defaults[1].description
	for _, l := range leads {
		rule := config.RawRule{Destination: l.destination.String(), Action: string(egress.ActionDrop)}
		if l.gateway >= 0 {
			h := p.here[l.gateway]
			rule.Action, rule.Network, rule.Pool, rule.Description = "", h.gateway.Network, h.pool.Name, l.description
		}
		if one && l.destination.Bits() == 0 {
			if l.destination.Addr().Is6() {
				continue
			}
			rule.Destination = ""
		}
		rules = append(rules, rule)
	}
	return rules
}

// returns lead back to the clients of this node's policies: by the prefixes of
// their nodes, or their addresses where these are outside, or in what another node
// has as well.
func (p *gatewayPlanner) returns() []Return {
	owner := map[netip.Prefix]string{}
	prefixes := map[string][]netip.Prefix{}
	for i := range p.snapshot.Nodes {
		n := &p.snapshot.Nodes[i]
		prefixes[n.Name] = minimal(n.podPrefixes())
		for _, prefix := range prefixes[n.Name] {
			if _, taken := owner[prefix]; !taken {
				owner[prefix] = n.Name
			}
		}
	}
	wanted := map[netip.Prefix]string{}
	for a, node := range p.served {
		prefix := whole(a)
		if within, inside := (&ranges{prefixes[node]}).overlapping(prefix); inside && owner[within] == node {
			prefix = within
		}
		wanted[prefix] = node
	}
	result := make([]Return, 0, len(wanted))
	for prefix, node := range wanted {
		if endpoint, ok := p.endpoint(node); ok {
			result = append(result, Return{Prefix: prefix, Node: node, Endpoint: endpoint, Here: node == p.node.Name})
		}
	}
	slices.SortFunc(result, func(a, b Return) int { return a.Prefix.Compare(b.Prefix) })
	return result
}

// endpoint is the end of the tunnel to a node: in the first family that both have.
func (p *gatewayPlanner) endpoint(node string) (netip.Addr, bool) {
	n := p.lookup.nodes[node]
	if n == nil {
		return netip.Addr{}, false
	}
	for _, a := range n.Ends() {
		if slices.ContainsFunc(p.node.Ends(), func(own netip.Addr) bool { return own.Is4() == a.Is4() }) {
			return a, true
		}
	}
	return netip.Addr{}, false
}
