package cluster

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
)

// policy is a Policy that was checked, with its selectors compiled.
type policy struct {
	name  string
	rules []rule
}

// rule is one rule. It has two destinations if it is for everything.
type rule struct {
	destinations []netip.Prefix
	description  string
	preferLocal  bool
	// to is nil for a skip.
	to *target
}

// target is a GatewayRef.
type target struct {
	selector, namespaces *Selector
	maxNextHops          int
}

// everything are the destinations of a rule that names none.
func everything() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// compilePolicy checks the rules of p. With any problem they are not to be used,
// and the policy's clients are blocked.
func compilePolicy(p *Policy) (*policy, []Problem) {
	r := &reporter{kind: KindPolicy, name: p.Name}
	result := &policy{name: p.Name, rules: make([]rule, 0, len(p.Rules))}
	seen := map[netip.Prefix]int{}
	useful := false
	for i := range p.Rules {
		from := &p.Rules[i]
		at := fmt.Sprintf("spec.rules[%d]", i)
		useful = useful || from.Destination != "" || from.Gateway != nil
		rule := rule{description: from.Description, preferLocal: from.PreferLocal, destinations: everything()}
		if from.Destination != "" {
			d, err := destination(from.Destination)
			if err != "" {
				r.add(ReasonInvalid, at+".destination.cidr", "%s", err)
				continue
			}
			rule.destinations = []netip.Prefix{d}
		}
		for _, d := range rule.destinations {
			first, taken := seen[d]
			if !taken {
				seen[d] = i
				continue
			}
			message := fmt.Sprintf("%s is the destination of rules[%d] already", d, first)
			if from.Destination == "" {
				message = "is missing, which means 0.0.0.0/0 and ::/0, and " + message
			}
			r.add(ReasonInvalid, at+".destination", "%s", message)
			break
		}
		if from.Gateway != nil {
			rule.to = r.target(at+".gateway", from.Gateway)
		}
		result.rules = append(result.rules, rule)
	}
	if !useful {
		r.add(ReasonInvalid, "spec.rules", "no rule has a gateway or a destination: the policy would do nothing")
	}
	return result, r.problems
}

func (r *reporter) target(at string, g *GatewayRef) *target {
	t := &target{maxNextHops: g.MaxNextHops}
	required := func(field, text, all string) *Selector {
		if strings.TrimSpace(text) == "" {
			r.add(ReasonInvalid, at+field, "is missing: which gateways; all() selects %s", all)
		}
		return r.selector(at+field, text)
	}
	t.selector = required(".selector", g.Selector, "every gateway of the namespaces")
	t.namespaces = required(".namespaceSelector", g.NamespaceSelector, "every namespace")
	if g.MaxNextHops < 0 || g.MaxNextHops > math.MaxUint16 {
		r.add(ReasonInvalid, at+".maxNextHops", "%d is out of range: 0 (all) to %d are allowed", g.MaxNextHops, math.MaxUint16)
	}
	return t
}

// destination reads a prefix or an address that traffic can be sent to. The text
// says what is wrong.
func destination(s string) (netip.Prefix, string) {
	p, err := netip.ParsePrefix(s)
	if !strings.Contains(s, "/") {
		var a netip.Addr
		if a, err = netip.ParseAddr(s); err == nil {
			p = netip.PrefixFrom(a, a.BitLen())
		}
	}
	switch {
	case err != nil:
		return p, quote(s) + " is not a prefix or an address, such as 10.0.0.0/8 or 2001:db8::1"
	case p.Addr().Zone() != "":
		return p, quote(s) + " has a zone: write the address alone"
	case p.Addr().Is4In6():
		return p, quote(s) + " is IPv4-mapped: write it as IPv4"
	case p != p.Masked():
		return p, fmt.Sprintf("%s has host bits set: write %s, or %s for the one address", s, p.Masked(), p.Addr())
	}
	for i, special := range specialPrefixes {
		if special.Overlaps(p) && special.Bits() <= p.Bits() {
			return p, fmt.Sprintf("%s is %s: such traffic never goes to a network", p, specialNames[i])
		}
	}
	return p, ""
}

// specialPrefixes are never sent to a network: the same that a configuration
// refuses (IANA special-purpose registries, RFC 6890).
var (
	specialPrefixes = [...]netip.Prefix{
		netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("::/128"), netip.MustParsePrefix("240.0.0.0/4"),
	}
	specialNames = [...]string{"multicast", "multicast", "loopback", "loopback", "link-local", "link-local", "unspecified", "unspecified", "reserved"}
)
