package bgp

import (
	"net/netip"
	"slices"
)

// family is an address family (both are SAFI unicast).
type family int

const (
	ipv4 family = iota
	ipv6
	families // the number of families
)

func (f family) String() string {
	if f == ipv4 {
		return "IPv4"
	}
	return "IPv6"
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// martians are the prefixes that no peer may announce, nor parts of them: this
// network (0/8, but not the default route), loopback, link-local, multicast and
// reserved (RFC 6890), and IPv4-mapped addresses. An announcement that covers
// one of them and more besides, such as a default route, is not a martian.
func martians() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/3"), // 224/4 and 240/4
		netip.MustParsePrefix("::/127"),      // :: and ::1
		netip.MustParsePrefix("::ffff:0:0/96"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("ff00::/8"),
	}
}

// within tells whether p is one of outer or a part of one.
func within(p netip.Prefix, outer []netip.Prefix) bool {
	return slices.ContainsFunc(outer, func(o netip.Prefix) bool {
		return o.Bits() <= p.Bits() && o.Contains(p.Addr())
	})
}

// usableNextHop refuses next hops that a route cannot have. IPv4 routes may have
// IPv6 next hops (RFC 8950); link-local ones need the zone they are in.
func usableNextHop(p netip.Prefix, nextHop netip.Addr) bool {
	if !nextHop.IsValid() || nextHop.IsLoopback() || nextHop.Is4() && p.Addr().Is6() {
		return false
	}
	if nextHop.Is6() && nextHop.IsLinkLocalUnicast() {
		return nextHop.Zone() != ""
	}
	return validHost(nextHop) == nil
}
