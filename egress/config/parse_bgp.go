package config

import (
	"math"
	"net/netip"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress"
)

// BGP defaults.
const (
	DefaultBGPPort      = 179
	DefaultHoldTime     = 90 * time.Second
	DefaultConnectRetry = 5 * time.Second
	DefaultRestartTime  = 30 * time.Second
)

// The limits of protocol fields: RFC 4271 4.2 (hold time, 16 bits), RFC 4724 3
// (restart time, 12 bits).
const (
	maxHoldTime    = math.MaxUint16 * time.Second
	maxRestartTime = 4095 * time.Second
	maxLongLived   = (1<<24 - 1) * time.Second // RFC 9494 3
)

// The families of a peer.
const (
	ipv4Unicast = "ipv4-unicast"
	ipv6Unicast = "ipv6-unicast"
)

func (p *parser) bgp(n *network, at path, raw RawBGP) *egress.BGP {
	b := &egress.BGP{
		ASN:      p.asn(at.key("asn"), raw.ASN),
		RouterID: p.routerID(n, at.key("routerID"), raw.RouterID),
	}
	b.ListenPort = int(p.integer(at.key("listenPort"), raw.ListenPort, DefaultBGPPort, -1, math.MaxUint16))
	if raw.ListenPort != nil && *raw.ListenPort == 0 {
		p.add(at.key("listenPort"), "0 is not a port: 1 to 65535 are allowed, -1 does not listen")
	}
	restart := at.key("gracefulRestart")
	restartTime := p.seconds(restart.key("restartTime"), raw.GracefulRestart.RestartTime, DefaultRestartTime, time.Second, maxRestartTime)
	longLived := p.seconds(restart.key("longLived"), raw.GracefulRestart.LongLived, 0, 0, maxLongLived)
	if enabled := raw.GracefulRestart.Enabled; enabled == nil || *enabled {
		b.GracefulRestart = &bgp.GracefulRestart{RestartTime: restartTime, LongLived: longLived}
	}
	if len(raw.Peers) == 0 {
		p.add(at.key("peers"), "is missing: name at least one peer, or leave out bgp")
	}
	b.Advertise = p.advertise(n, at.key("advertise"), raw.Advertise)
	seen := map[netip.Addr]path{}
	for i, rawPeer := range raw.Peers {
		at := at.key("peers").index(i)
		peer := p.peer(n, at, rawPeer, b.ASN)
		if first, twice := seen[peer.Address]; twice && peer.Address.IsValid() {
			p.add(at.key("address"), "%s is the address of %s already", peer.Address, first)
		} else {
			seen[peer.Address] = at
		}
		if peer.Passive && b.ListenPort == -1 {
			p.add(at.key("passive"), "true cannot work with listenPort -1: neither side would open the session")
		}
		if peer.Range.IsValid() && b.ListenPort == -1 {
			p.add(at.key("range"), "%s cannot work with listenPort -1: its neighbours are never dialled", peer.Range)
		}
		b.Peers = append(b.Peers, peer)
	}
	p.ranges(at.key("peers"), b.Peers)
	return b
}

// asn checks an AS number (RFC 6793, RFC 7300, RFC 7607).
func (p *parser) asn(at path, n *int64) uint32 {
	if n == nil {
		p.add(at, "is missing: an AS number, such as 64512")
		return 0
	}
	switch {
	case *n < 1 || *n >= math.MaxUint32:
		p.add(at, "%d is not an AS number: 1 to 4294967294 are allowed", *n)
	case *n == 23456:
		p.add(at, "23456 is AS_TRANS, which stands for 4-byte numbers (RFC 6793): use the real number")
	case *n == math.MaxUint16:
		p.add(at, "65535 is reserved (RFC 7300): use another number")
	default:
		return uint32(*n)
	}
	return 0
}

// routerID is the one given, or the first IPv4 address of the network's ports.
func (p *parser) routerID(n *network, at path, s string) netip.Addr {
	if s == "" {
		for _, own := range n.own {
			if own.Addr().Is4() {
				return own.Addr()
			}
		}
		p.dangling(n.at.key("interfaces"), at, "is missing: the network has no IPv4 address in this file to take it from; write one in the form of an IPv4 address")
		return netip.Addr{}
	}
	id, err := netip.ParseAddr(s)
	if err != nil || !id.Is4() || id.IsUnspecified() {
		p.add(at, "%s is not a router id: it has the form of an IPv4 address other than 0.0.0.0", quote(s))
		return netip.Addr{}
	}
	return id
}

// nextHopSelf is the next hop announced for the other family than that of the
// session: an address of the port that the peer is on, else of any port.
func (p *parser) nextHopSelf(n *network, at path, peer netip.Addr) netip.Addr {
	var other netip.Addr
	for _, port := range n.ports {
		local := containsAddr(port.Addresses, peer)
		for _, own := range port.Addresses {
			a := own.Addr()
			if a.Is4() == peer.Is4() || a.IsLinkLocalUnicast() {
				continue
			}
			if local {
				return a
			}
			if !other.IsValid() {
				other = a
			}
		}
	}
	if !other.IsValid() {
		p.dangling(n.at.key("interfaces"), at, "announcing the other family over a session with %s needs an own address of that family as next hop: add one to the interface's addresses, or use a session for each family", peer)
	}
	return other
}

// families are those given, or that of the address.
func (p *parser) families(at path, raws []string, a netip.Addr) (ipv4, ipv6 bool) {
	for i, s := range raws {
		switch family := p.oneOf(at.index(i), s, "", ipv4Unicast, ipv6Unicast); {
		case family == ipv4Unicast && ipv4, family == ipv6Unicast && ipv6:
			p.add(at.index(i), "%s is listed twice", family)
		case family == ipv4Unicast:
			ipv4 = true
		case family == ipv6Unicast:
			ipv6 = true
		}
	}
	if len(raws) == 0 {
		return a.Is4(), a.Is6()
	}
	return ipv4, ipv6
}

func lowerFamily(v4 bool) string {
	if v4 {
		return "ipv4"
	}
	return "ipv6"
}
