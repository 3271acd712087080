package bgp

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	defaultPort         = 179
	defaultHoldTime     = 90 * time.Second
	defaultConnectRetry = 5 * time.Second
	defaultMaxSessions  = 64
)

// normalised returns a deep copy of c with all defaults filled in and all lists
// sorted, so that equal configurations are equal values. c is valid.
func (c Config) normalised() Config {
	if c.ListenPort == 0 {
		c.ListenPort = defaultPort
	}
	if c.GracefulRestart != nil {
		gr := *c.GracefulRestart
		c.GracefulRestart = &gr
	}
	c.Peers = slices.Clone(c.Peers)
	for i := range c.Peers {
		c.Peers[i] = c.Peers[i].normalised()
		if c.Draining {
			c.Peers[i].Export = c.Peers[i].Export.drainingOverride()
		}
	}
	slices.SortFunc(c.Peers, func(a, b Peer) int {
		return cmp.Or(a.Address.Compare(b.Address), comparePrefix(a.Range, b.Range))
	})
	c.Advertise = slices.Clone(c.Advertise)
	for i, a := range c.Advertise {
		c.Advertise[i].Attributes = a.normalised()
		if c.Draining {
			c.Advertise[i].Attributes = a.draining()
		}
	}
	slices.SortFunc(c.Advertise, func(a, b Advertisement) int { return comparePrefix(a.Prefix, b.Prefix) })
	c.Reject = slices.Clone(c.Reject)
	slices.SortFunc(c.Reject, comparePrefix)
	c.Reject = slices.Compact(c.Reject)
	return c
}

func (p Peer) normalised() Peer {
	if p.Port == 0 {
		p.Port = defaultPort
	}
	if p.HoldTime == 0 {
		p.HoldTime = defaultHoldTime
	}
	if p.KeepaliveTime == 0 {
		p.KeepaliveTime = max((p.HoldTime / 3).Truncate(time.Second), time.Second)
	}
	if p.ConnectRetry == 0 {
		p.ConnectRetry = defaultConnectRetry
	}
	if p.Range.IsValid() {
		p.Passive = true
		p.MaxSessions = cmp.Or(p.MaxSessions, defaultMaxSessions)
	}
	if !p.IPv4 && !p.IPv6 {
		p.IPv4, p.IPv6 = p.family() == ipv4, p.family() == ipv6
	}
	p.Export = p.Export.normalised()
	p.Import = slices.Clone(p.Import)
	for i := range p.Import {
		p.Import[i] = p.Import[i].Clone()
	}
	return p
}

// family is that of the session's addresses.
func (p Peer) family() family {
	if p.Range.IsValid() {
		return familyOf(p.Range.Addr())
	}
	return familyOf(p.Address)
}

// enabled tells whether family f is negotiated with the peer.
func (p Peer) enabled(f family) bool {
	if f == ipv4 {
		return p.IPv4
	}
	return p.IPv6
}

// nextHopKind says what next hop our prefixes of one family get in a session.
type nextHopKind int

const (
	self     nextHopKind = iota // the session's own address
	explicit                    // the configured one
	refuse                      // there is none: they are not sent
)

func (p Peer) nextHop(f family) nextHopKind {
	switch {
	case f == p.family(), f == ipv4 && p.ExtendedNextHop:
		return self
	case p.explicitNextHop(f).IsValid():
		return explicit
	}
	return refuse
}

func (p Peer) explicitNextHop(f family) netip.Addr {
	if f == ipv4 {
		return p.NextHopIPv4
	}
	return p.NextHopIPv6
}

// localASN is our ASN in the session, asn being the network's.
func (p Peer) localASN(asn uint32) uint32 {
	if p.LocalASN != 0 {
		return p.LocalASN
	}
	return asn
}

// internal tells whether the session is within one AS.
func (p Peer) internal(asn uint32) bool { return p.ASN == p.localASN(asn) }

// sameServer tells whether the server of a can become that of b in place.
func sameServer(a, b Config) bool {
	return a.Device == b.Device && a.ASN == b.ASN && a.RouterID == b.RouterID && a.ListenPort == b.ListenPort
}

// sameRestart tells whether peers were told the same graceful restart.
func sameRestart(a, b *GracefulRestart) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// sameSession tells whether the session of a can become that of b in place:
// what differs is neither in the OPEN message nor in the transport.
// ConnectRetry only matters to a session that is down, see network.applyPeer.
func sameSession(a, b Peer) bool {
	return a.Address == b.Address && a.Range == b.Range && a.ASN == b.ASN && a.Port == b.Port && a.Passive == b.Passive &&
		a.LocalAddress == b.LocalAddress && a.HoldTime == b.HoldTime && a.KeepaliveTime == b.KeepaliveTime &&
		a.Multihop == b.Multihop && a.TTLSecurity == b.TTLSecurity && a.LocalASN == b.LocalASN && a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6 &&
		a.ExtendedNextHop == b.ExtendedNextHop && a.AddPath == b.AddPath
}
