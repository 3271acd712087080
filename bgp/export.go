package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
)

// exportRules say what becomes of our prefixes on their way to the peers,
// beyond the attributes that they have for all.
type exportRules struct {
	peers    []exportRule
	prepends []prependRule
}

// exportRule is for one peer.
type exportRule struct {
	peer netip.Prefix
	// asn is our own in the session; 0 for an internal peer.
	asn     uint32
	nextHop [families]nextHop
	// override replaces attributes.
	override Attributes
}

// nextHop is what our prefixes of one family get in a session; addr is valid
// for the explicit kind.
type nextHop struct {
	kind nextHopKind
	addr netip.Addr
}

// prependRule lengthens the AS path of some prefixes of one family.
type prependRule struct {
	times    uint8
	family   family
	prefixes []netip.Prefix
}

// exportRules derives the rules from a normalised configuration.
func (c Config) exportRules() exportRules {
	var rules exportRules
	for _, p := range c.Peers {
		r := exportRule{peer: p.who(), override: p.Export}
		if !p.internal(c.ASN) {
			r.asn = p.localASN(c.ASN)
		}
		for f := range families {
			// What is not negotiated is not sent anyway.
			if kind := p.nextHop(f); p.enabled(f) && kind != self {
				r.nextHop[f] = nextHop{kind, p.explicitNextHop(f)}
			}
		}
		rules.peers = append(rules.peers, r)
	}
	for _, a := range c.Advertise {
		if n := a.prepend(); n > 0 {
			rules.prepend(n, a.Prefix)
		}
	}
	slices.SortFunc(rules.prepends, func(a, b prependRule) int {
		return cmp.Or(cmp.Compare(a.times, b.times), cmp.Compare(a.family, b.family))
	})
	return rules
}

func (r *exportRules) prepend(times uint8, p netip.Prefix) {
	f := familyOf(p.Addr())
	i := slices.IndexFunc(r.prepends, func(have prependRule) bool { return have.times == times && have.family == f })
	if i < 0 {
		i = len(r.prepends)
		r.prepends = append(r.prepends, prependRule{times: times, family: f})
	}
	r.prepends[i].prefixes = append(r.prepends[i].prefixes, p)
}

// who are the addresses of the peer.
func (p Peer) who() netip.Prefix {
	if p.Range.IsValid() {
		return p.Range
	}
	return netip.PrefixFrom(p.Address, p.Address.BitLen())
}

// of returns the rule of one peer.
func (r exportRules) of(peer netip.Addr) exportRule {
	for _, rule := range r.peers {
		if rule.peer.Contains(peer) {
			return rule
		}
	}
	return exportRule{}
}

// applyPolicy returns the running peers that need to be sent everything anew.
func (n *network) applyPolicy(cfg Config) ([]netip.Addr, error) {
	rules := cfg.exportRules()
	if reflect.DeepEqual(rules, n.rules) {
		return nil, nil
	}
	if err := n.srv.setPolicies(rules); err != nil {
		return nil, err
	}
	all := n.prependsDiffer(cfg.Advertise)
	var resend []netip.Addr
	for _, addr := range n.peers() {
		if n.session(addr).running && (all || !reflect.DeepEqual(n.rules.of(addr), rules.of(addr))) {
			resend = append(resend, addr)
		}
	}
	n.rules = rules
	return resend, nil
}

// prependsDiffer tells whether a prefix that is advertised already gets another
// AS path.
func (n *network) prependsDiffer(want []Advertisement) bool {
	return slices.ContainsFunc(want, func(a Advertisement) bool {
		have, ok := n.local[a.Prefix]
		return ok && have.prepend() != a.prepend()
	})
}

// applyLocal announces before it withdraws: a prefix split in two has no gap.
func (n *network) applyLocal(want []Advertisement) []error {
	var errs []error
	wanted := map[netip.Prefix]bool{}
	for _, a := range want {
		wanted[a.Prefix] = true
		have, ok := n.local[a.Prefix]
		if ok && have.samePath(a.Attributes) {
			n.local[a.Prefix] = a
			continue
		}
		if err := n.srv.setLocal(a); err != nil {
			errs = append(errs, fmt.Errorf("advertise %q: %w", a.Prefix, err))
			continue
		}
		n.local[a.Prefix] = a
	}
	for p := range n.local {
		if wanted[p] {
			continue
		}
		if err := n.srv.removeLocal(p); err != nil {
			errs = append(errs, fmt.Errorf("withdraw %q: %w", p, err))
			continue
		}
		delete(n.local, p)
	}
	var counts [families]int
	for p := range n.local {
		counts[familyOf(p.Addr())]++
	}
	n.mu.Lock()
	changed := n.counts != counts
	n.counts = counts
	n.mu.Unlock()
	if changed {
		n.kick()
	}
	return errs
}
