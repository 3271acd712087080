package config

import (
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/egret-router/egret/egress"
)

// maxDescription bounds a rule's description, in bytes.
const maxDescription = 256

func (p *parser) policies(raws []RawPolicy, bindings []RawBinding) []egress.Policy {
	at := path("policies")
	var policies []egress.Policy
	names := map[string]path{}
	owners := map[netip.Prefix]path{}
	bound := map[string]bool{}
	for _, b := range bindings {
		bound[b.Policy] = true
	}
	for i, raw := range raws {
		at := at.index(i)
		if p.name(at.key("name"), raw.Name, maxName) {
			if first, taken := names[raw.Name]; taken {
				p.add(at.key("name"), "%s is the name of %s already", quote(raw.Name), first)
			} else {
				names[raw.Name] = at
			}
		}
		policies = append(policies, egress.Policy{
			Name:    raw.Name,
			Clients: p.policyClients(at, raw.Clients, owners, bound[raw.Name]),
			Rules:   p.rules(at.key("rules"), raw.Rules),
			Cut:     p.oneOf(at.key("onChange"), raw.OnChange, "keep", "keep", "cut") == "cut",
		})
	}
	return p.bind(policies, bindings, owners)
}

// bind gives clients to the policies that bindings name. A policy that does not
// exist is no mistake here: who makes policies and who binds clients may be two,
// and its clients are blocked until it is there.
func (p *parser) bind(policies []egress.Policy, raws []RawBinding, owners map[netip.Prefix]path) []egress.Policy {
	at := path("bindings")
	for i, raw := range raws {
		at := at.index(i)
		clients := p.policyClients(at, raw.Clients, owners, false)
		if !p.name(at.key("policy"), raw.Policy, maxName) {
			continue
		}
		of := slices.IndexFunc(policies, func(p egress.Policy) bool { return p.Name == raw.Policy })
		if of < 0 {
			policies = append(policies, egress.Policy{Name: raw.Policy, Missing: true})
			of = len(policies) - 1
		}
		policies[of].Clients = append(policies[of].Clients, clients...)
	}
	return policies
}

// hopSets checks that all hop sets find their numbers in a mark.
func (p *parser) hopSets(spec egress.Spec) {
	if len(p.findings) > 0 {
		return
	}
	numbers, spreads := egress.CountNumbers(&spec)
	if spreads > MaxSpreads {
		p.add("policies", "rules with nextHops or maxNextHops make %d different combinations of next hops and pool, at most %d are possible: give rules equal next hops, or fewer", spreads, MaxSpreads)
	}
	if n := numbers; n > MaxNetworks {
		p.add("policies", "networks and rules with nextHops or maxNextHops need %d different marks, at most %d are possible: give rules equal next hops, or fewer", n, MaxNetworks)
	}
}

// policyClients checks the clients of the policy or binding at. owners says
// which policy a prefix belongs to already. A policy that a binding names may do
// without clients of its own.
func (p *parser) policyClients(at path, raws []string, owners map[netip.Prefix]path, bound bool) []netip.Prefix {
	if len(raws) == 0 && !bound {
		p.add(at.key("clients"), "is missing: name at least one client prefix or address")
	}
	var clients []netip.Prefix
	for i, s := range raws {
		atClient := at.key("clients").index(i)
		prefix, ok := p.prefix(atClient, s)
		if !ok {
			continue
		}
		owner, taken := owners[prefix]
		switch {
		case taken && owner == at:
			p.add(atClient, "%s is listed twice", prefix)
		case taken:
			p.add(atClient, "%s is a client of %s already: a client prefix has one policy (a longer prefix may have another)", prefix, owner)
		case p.clientsSound && !p.clientPrefixes.LookupPrefix(prefix):
			p.dangling("clients", atClient, "%s is not inside clients.prefixes", prefix)
		}
		if !taken {
			owners[prefix] = at
		}
		clients = append(clients, prefix)
	}
	return clients
}

// defaults are the destinations of a rule that names none.
func defaults() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

func (p *parser) rules(at path, raws []RawRule) []egress.Rule {
	if len(raws) == 0 {
		p.add(at, "is missing: write at least one rule")
		return nil
	}
	var rules []egress.Rule
	seen := map[netip.Prefix]path{}
	empty := true
	for i, raw := range raws {
		at := at.index(i)
		empty = empty && raw.Destination == "" && raw.Network == "" && raw.Pool == "" && raw.Action == "" && len(raw.NextHops) == 0
		rule := p.rule(at, raw)
		destinations := defaults()
		if raw.Destination != "" {
			destination, ok := p.destination(at.key("destination"), raw.Destination, rule)
			if !ok {
				continue
			}
			destinations = []netip.Prefix{destination}
		}
		for _, d := range destinations {
			if first, taken := seen[d]; taken {
				p.add(at.key("destination"), "%s", sameDestination(raw.Destination == "", d, first))
				break
			}
			seen[d] = at
			rule.Destination = d
			rules = append(rules, forFamily(rule))
		}
	}
	if empty {
		p.add(at, "no rule has a destination, a network or an action: the policy would do nothing")
	}
	return rules
}

func sameDestination(absent bool, d netip.Prefix, first path) string {
	if absent {
		return "is missing, which means 0.0.0.0/0 and ::/0, and " + d.String() + " is the destination of " + string(first) + " already"
	}
	return d.String() + " is the destination of " + string(first) + " already"
}

// destination checks the destination of a rule, and that its target can serve
// it. A rule without a destination is for the families its pool has; traffic of
// the other is dropped.
func (p *parser) destination(at path, s string, rule egress.Rule) (netip.Prefix, bool) {
	d, ok := p.prefix(at, s)
	if !ok {
		return d, false
	}
	if what := insideSpecial(d); what != "" {
		p.add(at, "%s is %s: such traffic never goes to a network", d, what)
	}
	if n := p.networks[rule.Network]; n != nil && d.IsSingleIP() && n.isOwn(d.Addr()) {
		p.add(at, "%s is an address of this gateway itself in network %s: it would be delivered here", d.Addr(), quote(rule.Network))
	}
	if pool := p.pools[rule.Pool]; pool != nil && len(pool.Prefixes) > 0 && !slices.ContainsFunc(pool.Prefixes, func(o netip.Prefix) bool {
		return o.Addr().Is4() == d.Addr().Is4()
	}) {
		p.dangling("pools", at, "%s is %s, but pool %s has no %s address", d, family(d.Addr()), quote(rule.Pool), family(d.Addr()))
	}
	return d, true
}

// rule checks everything but the destination.
func (p *parser) rule(at path, raw RawRule) egress.Rule {
	rule := egress.Rule{Action: egress.ActionSkip, Description: raw.Description}
	if len(raw.Description) > maxDescription {
		p.add(at.key("description"), "is %d bytes long, at most %d are allowed", len(raw.Description), maxDescription)
	} else if strings.ContainsFunc(raw.Description, unicode.IsControl) {
		p.add(at.key("description"), "has line breaks or control characters in it: one line of text is allowed")
	}
	rule.MaxNextHops = int(p.integer(at.key("maxNextHops"), raw.MaxNextHops, 0, 0, maxNextHops))
	switch {
	case raw.Network == "" && len(raw.NextHops) > 0:
		p.add(at.key("nextHops"), "is given without network: next hops are addresses in a network")
	case raw.Network == "" && raw.MaxNextHops != nil:
		p.add(at.key("maxNextHops"), "is given without network: it bounds the next hops that the network is left by")
	case raw.Action != "" && raw.Network != "":
		p.add(at.key("action"), "is given together with network: a rule has one target")
	case raw.Action != "" && raw.Pool != "":
		p.add(at.key("action"), "is given together with pool: a rule has one target")
	case raw.Action != "":
		rule.Action = egress.Action(p.oneOf(at.key("action"), raw.Action, "", string(egress.ActionDrop), string(egress.ActionReject)))
	case raw.Network != "":
		rule.Action, rule.Network, rule.Pool = egress.ActionNetwork, raw.Network, p.rulePool(at, raw)
		rule.NextHops = p.ruleNextHops(at, raw)
	case raw.Pool != "":
		p.add(at.key("network"), "is missing: a rule with a pool names its network too%s", p.networkOf(raw.Pool))
	}
	return rule
}

func (p *parser) networkOf(pool string) string {
	if known := p.pools[pool]; known != nil && known.Network != "" {
		return ", here " + quote(known.Network)
	}
	return ""
}

// rulePool is the pool of a rule with a network: the one it names, or the only
// one of the network.
func (p *parser) rulePool(at path, raw RawRule) string {
	n := p.networkNamed(at.key("network"), raw.Network)
	if n == nil {
		return ""
	}
	name := raw.Pool
	if name == "" {
		switch len(n.pools) {
		case 0:
			p.dangling("pools", at.key("network"), "network %s has no pool: clients need an egress address", quote(raw.Network))
			return ""
		case 1:
			name = n.pools[0]
		default:
			p.add(at.key("pool"), "is missing: network %s has more than one, %s", quote(raw.Network), shorten(alternatives(n.pools)))
			return ""
		}
	}
	pool := p.pools[name]
	switch {
	case pool == nil:
		p.dangling("pools", at.key("pool"), "there is no pool %s%s", quote(name), suggest(name, p.poolNames))
	case pool.Network != raw.Network:
		p.add(at.key("pool"), "%s belongs to network %s, not to %s", quote(name), quote(pool.Network), quote(raw.Network))
	default:
		return name
	}
	return ""
}
