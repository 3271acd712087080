package config

import (
	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/probes/bfd"
)

// defaultMaxHops is how far a peer that is not on the link may be, unless its
// multihop says so.
const defaultMaxHops = 2

// peerSessions checks the BFD sessions with BGP peers.
func (p *parser) peerSessions(n *network, peers path, raws []RawPeer, parsed egress.Network) []bfd.Config {
	var out []bfd.Config
	for i, raw := range raws {
		if raw.BFD == nil || i >= len(parsed.BGP.Peers) {
			continue
		}
		at, peer := peers.index(i).key("bfd"), parsed.BGP.Peers[i]
		if peer.Range.IsValid() {
			p.add(at, "is for one neighbour: those of a range come and go")
			continue
		}
		out = append(out, p.peerSession(n, at, *raw.BFD, peer, parsed.NextHopBFD))
	}
	return out
}

func (p *parser) peerSession(n *network, at path, raw RawPeerBFD, peer bgp.Peer, nextHops []bfd.Config) bfd.Config {
	interval := p.duration(at.key("interval"), raw.Interval, DefaultProbeInterval, bfd.MinInterval, bfd.MaxInterval)
	c := bfd.Config{Name: egress.PeerSessionName(n.name, peer.Address), Device: n.name, Peer: peer.Address, Local: peer.LocalAddress,
		DesiredMinTx: interval, RequiredMinRx: interval,
		DetectMult: uint8(p.integer(at.key("fall"), raw.Fall, DefaultBFDFall, minBFDFall, maxBFDFall)),
		Multihop:   peer.Multihop > 0 || peer.Address.IsValid() && !n.connected(peer.Address) || raw.MaxHops != nil && !n.hasAddresses(peer.Address)}
	hops := p.integer(at.key("maxHops"), raw.MaxHops, max(int64(peer.Multihop), defaultMaxHops), 1, 255)
	switch {
	case c.Multihop:
		c.MinTTL = uint8(256 - hops)
	case raw.MaxHops != nil:
		p.add(at.key("maxHops"), "is for neighbours beyond the link: %s is on it, one hop away", peer.Address)
	case len(nextHops) > 0:
		if raw.Interval != "" || raw.Fall != nil {
			p.add(at, "has timers of its own, but the neighbour is on the link and nextHopProbes has type bfd: two systems have one session on a link, so set them there")
		}
		c.Name = egress.NextHopSessionName(nextHops[0], peer.Address)
	}
	return c
}
