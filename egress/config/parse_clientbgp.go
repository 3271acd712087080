package config

import (
	"slices"

	"github.com/gaissmai/bart"

	"github.com/egret-router/egret/egress"
)

// clientBGP checks the speaker towards the clients' routers. Its interfaces are
// not ours, so what is on the link is not known here.
func (p *parser) clientBGP(at path, raw RawClientBGP) *egress.ClientBGP {
	n := &network{name: egress.ClientsNetwork, at: "clients", ranges: new(bart.Table[string])}
	if raw.RouterID == "" {
		p.add(at.key("routerID"), "is missing: an IPv4 address of this gateway, say")
	}
	for i, peer := range raw.Peers {
		if len(peer.Import) > 0 {
			p.add(at.key("peers").index(i).key("import"), "is for networks: nothing is taken from the clients' side")
		}
	}
	if len(raw.Peers) == 0 {
		p.add(at.key("peers"), "is missing: name at least one peer, or leave out bgp")
	}
	rest := RawBGP{ASN: raw.ASN, RouterID: raw.RouterID, ListenPort: raw.ListenPort, GracefulRestart: raw.GracefulRestart, Peers: raw.Peers}
	if rest.RouterID == "" {
		rest.RouterID = "192.0.2.1" // reported above
	}
	if len(rest.Peers) == 0 {
		rest.Peers = []RawPeer{{Address: "192.0.2.2", ASN: new(int64(64500))}} // reported above
	}
	c := &egress.ClientBGP{BGP: *p.bgp(n, at, rest), Policies: raw.Policies == nil || *raw.Policies,
		Attributes: p.attributes(at, RawExport{raw.Communities, raw.MED, raw.LocalPref, raw.Prepend})}
	c.BGP.BFD = p.peerSessions(n, at.key("peers"), raw.Peers, egress.Network{BGP: &c.BGP})
	for i := range c.BGP.BFD {
		c.BGP.BFD[i].Device = "" // the default VRF
	}
	c.Reach = p.reach(at.key("advertise"), raw.Advertise)
	if !c.Policies && len(c.Reach) == 0 {
		p.add(at.key("advertise"), "is missing: with policies false there is nothing to advertise")
	}
	return c
}

// reach checks the prefixes that are named.
func (p *parser) reach(at path, raws []RawClientAdvertise) []egress.ClientReach {
	var out []egress.ClientReach
	for i, raw := range raws {
		at := at.index(i)
		prefix, ok := p.prefix(at.key("prefix"), raw.Prefix)
		if !ok {
			continue
		}
		r := egress.ClientReach{Prefix: prefix, Attributes: p.attributes(at, RawExport{raw.Communities, raw.MED, raw.LocalPref, raw.Prepend})}
		what := insideSpecial(prefix)
		switch {
		case what != "":
			p.add(at.key("prefix"), "%s is %s: such addresses are not routed", prefix, what)
		case slices.ContainsFunc(out, func(o egress.ClientReach) bool { return o.Prefix == prefix }):
			p.add(at.key("prefix"), "%s is listed twice", prefix)
		}
		if len(raw.Networks) == 0 {
			p.add(at.key("networks"), "is missing: the networks by which %s is reached", prefix)
		}
		for i, name := range raw.Networks {
			at := at.key("networks").index(i)
			switch {
			case p.networks[name] == nil:
				p.dangling("networks", at, "there is no network %s%s", quote(name), suggest(name, p.networkNames))
			case slices.Contains(r.Networks, name):
				p.add(at, "%s is listed twice", quote(name))
			default:
				r.Networks = append(r.Networks, name)
			}
		}
		out = append(out, r)
	}
	return out
}
