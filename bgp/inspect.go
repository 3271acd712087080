package bgp

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Filter chooses paths; what is zero matches everything.
type Filter struct {
	Network string
	Peer    netip.Addr
	// Prefix matches itself and all inside it.
	Prefix netip.Prefix
}

func (f Filter) matches(peer netip.Addr, p netip.Prefix) bool {
	return (!f.Peer.IsValid() || f.Peer == peer) &&
		(!f.Prefix.IsValid() || f.Prefix.Bits() <= p.Bits() && f.Prefix.Contains(p.Addr()))
}

// Path is one path that a peer sent.
type Path struct {
	Network string       `json:"network"`
	Peer    netip.Addr   `json:"peer"`
	Prefix  netip.Prefix `json:"prefix"`
	// ID tells apart several paths of one peer (RFC 7911).
	ID          uint32     `json:"id,omitempty"`
	NextHop     netip.Addr `json:"nextHop"`
	ASPath      string     `json:"asPath"`
	MED         uint32     `json:"med"`
	LocalPref   uint32     `json:"localPref"`
	Communities []string   `json:"communities,omitempty"`
	// Accepted paths passed the import rules, Best ones are among those of equal
	// cost that make the route.
	Accepted bool `json:"accepted"`
	Best     bool `json:"best"`
}

// AdvertisedPath is one prefix that a peer is sent.
type AdvertisedPath struct {
	Network string       `json:"network"`
	Peer    netip.Addr   `json:"peer"`
	Prefix  netip.Prefix `json:"prefix"`
	// NextHop is invalid where it is our address in the session.
	NextHop     netip.Addr `json:"nextHop"`
	Communities []string   `json:"communities,omitempty"`
	MED         *uint32    `json:"med,omitempty"`
	LocalPref   *uint32    `json:"localPref,omitempty"`
	Prepend     uint8      `json:"prepend,omitempty"`
}

// Paths lists what peers sent, sorted by network, prefix and peer.
func (s *Speaker) Paths(f Filter) []Path {
	var out []Path
	for _, n := range s.chosen(f) {
		out = append(out, n.paths(f)...)
	}
	return out
}

// Advertised lists what is sent in the sessions that are up, sorted by network,
// prefix and peer. It waits for a Set in progress.
func (s *Speaker) Advertised(f Filter) []AdvertisedPath {
	var out []AdvertisedPath
	for _, n := range s.chosen(f) {
		out = append(out, n.advertised(f)...)
	}
	return out
}

// chosen are the networks that a filter matches, sorted.
func (s *Speaker) chosen(f Filter) []*network {
	s.mu.Lock()
	networks := slices.Collect(maps.Values(s.networks))
	s.mu.Unlock()
	networks = slices.DeleteFunc(networks, func(n *network) bool { return f.Network != "" && n.name != f.Network })
	slices.SortFunc(networks, func(a, b *network) int { return strings.Compare(a.name, b.name) })
	return networks
}

func (n *network) paths(f Filter) []Path {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Path
	for peer, in := range n.rib.peers {
		for _, k := range in.keys() {
			if !f.matches(peer, k.prefix) {
				continue
			}
			r, _ := in.get(k)
			a := r.attributes()
			p := Path{Network: n.name, Peer: peer, Prefix: k.prefix, ID: k.id, NextHop: r.nextHop, ASPath: a.asPath,
				MED: r.med, LocalPref: r.pref, Communities: a.communityTexts(), Accepted: r.accepted}
			if !r.accepted {
				p.LocalPref = r.localPref
			}
			p.Best = r.accepted && slices.Contains(n.rib.routes[k.prefix].NextHops, r.nextHop)
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Path) int {
		return cmp.Or(comparePrefix(a.Prefix, b.Prefix), a.Peer.Compare(b.Peer), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (n *network) advertised(f Filter) []AdvertisedPath {
	n.opMu.Lock()
	defer n.opMu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []AdvertisedPath
	for addr, s := range n.sessions {
		for prefix, a := range n.local {
			family := familyOf(prefix.Addr())
			if !f.matches(addr, prefix) || !s.announces(family) {
				continue
			}
			sent := a.overriddenBy(s.peer.Export)
			p := AdvertisedPath{Network: n.name, Peer: addr, Prefix: prefix, MED: sent.MED,
				Communities: append(texts(sent.Communities, FormatCommunity), texts(sent.LargeCommunities, LargeCommunity.String)...)}
			if s.peer.nextHop(family) == explicit {
				p.NextHop = s.peer.explicitNextHop(family)
			}
			if s.peer.internal(n.cfg.ASN) {
				p.LocalPref = sent.LocalPref
			} else {
				p.Prepend = sent.prepend()
			}
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b AdvertisedPath) int {
		return cmp.Or(comparePrefix(a.Prefix, b.Prefix), a.Peer.Compare(b.Peer))
	})
	return out
}

// overriddenBy replaces what o names.
func (a Attributes) overriddenBy(o Attributes) Attributes {
	if o.Communities != nil {
		a.Communities = o.Communities
	}
	if o.LargeCommunities != nil {
		a.LargeCommunities = o.LargeCommunities
	}
	a.MED, a.LocalPref, a.Prepend = cmp.Or(o.MED, a.MED), cmp.Or(o.LocalPref, a.LocalPref), cmp.Or(o.Prepend, a.Prepend)
	return a
}
