package vrf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// This file writes and reads the rtnetlink messages for which the netlink library
// lacks something: next-hop groups, rule actions, route metrics of addresses. The
// readers take any bytes: a message that is too short or malformed is an error,
// never a panic.

const (
	rtaNHID = 30 // RTA_NH_ID, which x/sys/unix lacks

	attrKindMask = 0x3fff // NLA_TYPE_MASK

	nhaFDB      = 11 // NHA_FDB
	nhaResGroup = 12 // NHA_RES_GROUP, which holds:
	resBuckets  = 1  // NHA_RES_GROUP_BUCKETS
	resIdle     = 2  // NHA_RES_GROUP_IDLE_TIMER
	resUnbal    = 3  // NHA_RES_GROUP_UNBALANCED_TIMER

	groupMultipath = 0 // NEXTHOP_GRP_TYPE_MPATH
	groupResilient = 1 // NEXTHOP_GRP_TYPE_RES

	clockTick = 10 * time.Millisecond // clock_t, at USER_HZ = 100

	sizeofRtMsg   = 12 // struct rtmsg and struct fib_rule_hdr
	sizeofNhMsg   = 8
	sizeofIfAddr  = 8
	sizeofNhGroup = 8 // struct nexthop_grp

	// The address flags that may be set from outside (addrconf.c).
	settableAddrFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR |
		unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
)

// message is the payload of a netlink message under construction.
type message []byte

func (m *message) attr(kind uint16, data []byte) {
	*m = binary.NativeEndian.AppendUint16(*m, uint16(unix.SizeofRtAttr+len(data)))
	*m = binary.NativeEndian.AppendUint16(*m, kind)
	*m = append(*m, data...)
	for len(*m)%unix.RTA_ALIGNTO != 0 {
		*m = append(*m, 0)
	}
}

func (m *message) u32(kind uint16, v uint32) {
	m.attr(kind, binary.NativeEndian.AppendUint32(nil, v))
}

func familyOf(a netip.Addr) uint8 { return family(a.Is6()) }

func family(ipv6 bool) uint8 {
	if ipv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func encodeNextHop(n NextHop, protocol uint8) message {
	m := make(message, sizeofNhMsg, 64)
	m[0], m[2] = family(n.IPv6), protocol
	if n.OnLink {
		binary.NativeEndian.PutUint32(m[4:], unix.RTNH_F_ONLINK)
	}
	m.u32(unix.NHA_ID, uint32(n.ID))
	if n.Blackhole {
		m.attr(unix.NHA_BLACKHOLE, nil)
	}
	if n.Gateway.IsValid() {
		m.attr(unix.NHA_GATEWAY, n.Gateway.AsSlice())
	}
	if n.Tunnel.Endpoint.IsValid() {
		n.Tunnel.encode(&m)
	}
	return m
}

func encodeGroup(g Group, protocol uint8) message {
	m := make(message, sizeofNhMsg, 32+sizeofNhGroup*len(g.Members))
	m[0], m[2] = unix.AF_UNSPEC, protocol
	m.u32(unix.NHA_ID, uint32(g.ID))
	var members []byte
	for _, member := range g.Members {
		members = binary.NativeEndian.AppendUint32(members, uint32(member.ID))
		members = append(members, uint8(member.Weight-1), 0, 0, 0)
	}
	m.attr(unix.NHA_GROUP, members)
	if r := g.Resilient; r.Buckets > 0 {
		m.attr(unix.NHA_GROUP_TYPE, binary.NativeEndian.AppendUint16(nil, groupResilient))
		var table message
		table.attr(resBuckets, binary.NativeEndian.AppendUint16(nil, r.Buckets))
		table.u32(resIdle, uint32(r.IdleTimer/clockTick))
		table.u32(resUnbal, uint32(r.UnbalancedTimer/clockTick))
		m.attr(nhaResGroup|unix.NLA_F_NESTED, table)
	}
	return m
}

func encodeHopID(id NextHopID) message {
	m := make(message, sizeofNhMsg, 16)
	m.u32(unix.NHA_ID, uint32(id))
	return m
}

// encodeRoute writes what adding and deleting a route have in common.
func encodeRoute(r Route, protocol, scope uint8) message {
	m := make(message, sizeofRtMsg, 64)
	m[0], m[1] = familyOf(r.Prefix.Addr()), uint8(r.Prefix.Bits())
	m[5], m[6], m[7] = protocol, scope, uint8(r.Type)
	if r.Prefix.Bits() > 0 {
		m.attr(unix.RTA_DST, r.Prefix.Addr().AsSlice())
	}
	m.u32(unix.RTA_TABLE, uint32(r.Table))
	if r.Metric != 0 {
		m.u32(unix.RTA_PRIORITY, r.Metric)
	}
	if r.NextHop != 0 {
		m.u32(rtaNHID, uint32(r.NextHop))
	}
	return m
}

func encodeRule(r Rule, protocol uint8) message {
	m := make(message, sizeofRtMsg, 64)
	m[0], m[7] = family(r.IPv6), uint8(r.Action)
	m.u32(unix.FRA_PRIORITY, r.Priority)
	m.u32(unix.FRA_FWMARK, uint32(r.Mark))
	m.u32(unix.FRA_FWMASK, uint32(r.Mask))
	m.attr(unix.FRA_PROTOCOL, []byte{protocol})
	switch r.Action {
	case RuleLookup:
		m.u32(unix.FRA_TABLE, uint32(r.Table))
	case RuleGoto:
		m.u32(unix.FRA_GOTO, r.Target)
	}
	return m
}

func encodeAddress(a Address, index int) message {
	m := make(message, sizeofIfAddr, 64)
	m[0], m[1], m[3] = familyOf(a.Prefix.Addr()), uint8(a.Prefix.Bits()), a.Scope
	binary.NativeEndian.PutUint32(m[4:], uint32(index))
	m.attr(unix.IFA_LOCAL, a.Prefix.Addr().AsSlice())
	if a.Peer.IsValid() {
		m[1] = uint8(a.Peer.Bits())
		m.attr(unix.IFA_ADDRESS, a.Peer.Addr().AsSlice())
	} else {
		m.attr(unix.IFA_ADDRESS, a.Prefix.Addr().AsSlice())
	}
	if flags := a.Flags & settableAddrFlags; flags != 0 {
		m.u32(unix.IFA_FLAGS, flags)
	}
	if a.Metric != 0 {
		m.u32(unix.IFA_RT_PRIORITY, a.Metric)
	}
	if a.Protocol != 0 {
		m.attr(ifaProto, []byte{a.Protocol})
	}
	if a.Broadcast.IsValid() {
		m.attr(unix.IFA_BROADCAST, a.Broadcast.AsSlice())
	}
	if a.Label != "" {
		m.attr(unix.IFA_LABEL, append([]byte(a.Label), 0))
	}
	if a.Valid != Forever || a.Preferred != Forever {
		cache := make([]byte, 16)
		binary.NativeEndian.PutUint32(cache[0:], a.Preferred)
		binary.NativeEndian.PutUint32(cache[4:], a.Valid)
		m.attr(unix.IFA_CACHEINFO, cache)
	}
	return m
}

const ifaProto = 11 // IFA_PROTO, kernel 5.18

// eachAttr calls f for every attribute in b. Kinds come without their flag bits.
func eachAttr(b []byte, f func(kind uint16, data []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return fmt.Errorf("parse attribute: length %d of %d", length, len(b))
		}
		kind := binary.NativeEndian.Uint16(b[2:]) & attrKindMask
		if err := f(kind, b[unix.SizeofRtAttr:length]); err != nil {
			return fmt.Errorf("parse attribute %d: %w", kind, err)
		}
		b = b[min(len(b), (length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	return nil
}

func readU32(data []byte, into *uint32) error {
	if len(data) != 4 {
		return fmt.Errorf("%d bytes instead of 4", len(data))
	}
	*into = binary.NativeEndian.Uint32(data)
	return nil
}

func readU16(data []byte, into *uint16) error {
	if len(data) != 2 {
		return fmt.Errorf("%d bytes instead of 2", len(data))
	}
	*into = binary.NativeEndian.Uint16(data)
	return nil
}

func readAddr(data []byte, into *netip.Addr) error {
	a, ok := netip.AddrFromSlice(data)
	if !ok {
		return fmt.Errorf("%d bytes are no address", len(data))
	}
	*into = a
	return nil
}

// readPrefix is an address of the given family and length.
func readPrefix(a netip.Addr, isIPv6 bool, bits uint8) (netip.Prefix, error) {
	if !a.IsValid() || a.Is6() != isIPv6 {
		return netip.Prefix{}, fmt.Errorf("address %q has another family than its message", a)
	}
	p := netip.PrefixFrom(a, int(bits))
	if !p.IsValid() {
		return p, fmt.Errorf("prefix length %d of %q", bits, a)
	}
	return p, nil
}

// readFamily tells IPv4 from IPv6; ok is false for every other family.
func readFamily(family byte) (isIPv6, ok bool) {
	return family == unix.AF_INET6, family == unix.AF_INET6 || family == unix.AF_INET
}
