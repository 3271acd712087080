package egress

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/egret-router/egret/egress/nat"
)

// Outcome is what becomes of a client's traffic.
type Outcome string

// The outcomes: routed normally and untranslated, sent to a network, discarded
// in silence, discarded with an answer.
const (
	OutcomeNormal  Outcome = "normal"
	OutcomeNetwork Outcome = "network"
	OutcomeDrop    Outcome = "drop"
	OutcomeReject  Outcome = "reject"
)

// Decision is what a Spec says of one flow, before anybody's health.
type Decision struct {
	Outcome Outcome
	// Reason says which part of the configuration decided, for people.
	Reason string
	// Policy and Rule are nil where none was asked, or none matched.
	Policy *Policy
	Rule   *Rule
	// Client is the policy's prefix that the source matched.
	Client netip.Prefix
}

// decider answers for many flows; it is immutable.
type decider struct {
	spec     *Spec
	clients  *bart.Table[int] // client prefix -> policy
	sources  *bart.Lite       // clients.prefixes
	policies []*bart.Table[int]
	bounds   map[string]int
	// own are the addresses of this node, which are delivered here.
	own   map[netip.Addr]bool
	never []netip.Prefix
}

func newDecider(spec *Spec, own []netip.Addr) *decider {
	d := &decider{spec: spec, clients: new(bart.Table[int]), sources: new(bart.Lite), bounds: map[string]int{},
		own: make(map[netip.Addr]bool, len(own)), never: nat.NeverClassified()}
	for _, a := range own {
		d.own[a] = true
	}
	for _, p := range spec.Clients.Prefixes {
		d.sources.Insert(p)
	}
	for _, n := range spec.Networks {
		d.bounds[n.Name] = n.MaxNextHops
	}
	for i := range spec.Policies {
		rules := new(bart.Table[int])
		for j, rule := range spec.Policies[i].Rules {
			rules.Insert(rule.Destination, j)
		}
		d.policies = append(d.policies, rules)
		for _, c := range spec.Policies[i].Clients {
			d.clients.Insert(c, i)
		}
	}
	return d
}

// decide follows a new flow from a client interface through the configuration.
func (d *decider) decide(src, dst netip.Addr) Decision {
	switch {
	case d.sources.Contains(dst):
		return Decision{Outcome: OutcomeNormal, Reason: "the destination is in clients.prefixes"}
	case d.own[dst]:
		return Decision{Outcome: OutcomeNormal, Reason: "the destination is an address of this gateway"}
	case slices.ContainsFunc(d.never, func(p netip.Prefix) bool { return p.Contains(dst) }):
		return Decision{Outcome: OutcomeNormal, Reason: "the destination is link-local, multicast, loopback or unspecified"}
	case !d.sources.Contains(src):
		return Decision{Outcome: OutcomeNormal, Reason: "the source is not in clients.prefixes"}
	}
	client, i, ok := d.clients.LookupPrefixLPM(netip.PrefixFrom(src, src.BitLen()))
	if !ok {
		if d.spec.Clients.DropUnmatched {
			return Decision{Outcome: OutcomeDrop, Reason: "no policy names the client, and clients.unmatched is drop"}
		}
		return Decision{Outcome: OutcomeNormal, Reason: "no policy names the client"}
	}
	out := Decision{Policy: &d.spec.Policies[i], Client: client}
	if out.Policy.Missing {
		out.Outcome, out.Reason = OutcomeDrop, "the policy does not exist: its clients are blocked"
		return out
	}
	j, ok := d.policies[i].Lookup(dst)
	if !ok {
		out.Outcome, out.Reason = OutcomeNormal, "no rule of the policy matches"
		return out
	}
	out.Rule = &out.Policy.Rules[j]
	switch out.Rule.Action {
	case ActionNetwork:
		out.Outcome, out.Reason = OutcomeNetwork, "the rule names a network"
	case ActionDrop:
		out.Outcome, out.Reason = OutcomeDrop, "the rule drops"
	case ActionReject:
		out.Outcome, out.Reason = OutcomeReject, "the rule rejects"
	default:
		out.Outcome, out.Reason = OutcomeNormal, "the rule is a skip"
	}
	return out
}

// knows says that these are the addresses of the node that the decider has.
func (d *decider) knows(own []netip.Addr) bool {
	for _, a := range own {
		if !d.own[a] {
			return false
		}
	}
	return true
}
