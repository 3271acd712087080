package vrf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// parsedHop is a next-hop object: a group when Members is not empty.
type parsedHop struct {
	RawNextHop
	members   []Member
	resilient Resilient
	device    int // interface index
}

// parseNextHop reads an RTM_NEWNEXTHOP.
func parseNextHop(b []byte) (parsedHop, error) {
	var h parsedHop
	if len(b) < sizeofNhMsg {
		return h, fmt.Errorf("parse next hop: %d bytes", len(b))
	}
	h.Protocol = b[2]
	h.IPv6 = b[0] == unix.AF_INET6
	h.OnLink = binary.NativeEndian.Uint32(b[4:])&unix.RTNH_F_ONLINK != 0
	groupType, encapType := uint16(groupMultipath), uint16(0)
	var encap []byte
	err := eachAttr(b[sizeofNhMsg:], func(kind uint16, data []byte) error {
		var v uint32
		switch kind {
		case unix.NHA_ID:
			return readU32(data, (*uint32)(&h.ID))
		case unix.NHA_GATEWAY:
			return readAddr(data, &h.Gateway)
		case unix.NHA_OIF:
			err := readU32(data, &v)
			h.device = int(v)
			return err
		case unix.NHA_BLACKHOLE:
			h.Blackhole = true
		case unix.NHA_GROUP:
			return h.readMembers(data)
		case unix.NHA_GROUP_TYPE:
			return readU16(data, &groupType)
		case nhaResGroup:
			return h.resilient.read(data)
		case unix.NHA_ENCAP_TYPE:
			return readU16(data, &encapType)
		case unix.NHA_ENCAP:
			encap = data
		case unix.NHA_MASTER, nhaFDB:
			h.Odd = true
		}
		return nil
	})
	if err == nil && encapType != 0 {
		var odd bool
		odd, err = h.Tunnel.read(encapType, encap)
		h.Odd = h.Odd || odd || h.Gateway.IsValid()
	}
	if err != nil {
		return h, fmt.Errorf("parse next hop: %w", err)
	}
	switch resilient := h.resilient.Buckets > 0; groupType {
	case groupMultipath:
		h.Odd = h.Odd || resilient
	case groupResilient:
		h.Odd = h.Odd || !resilient
	default:
		h.Odd = true
	}
	if h.ID == 0 || (h.Gateway.IsValid() && h.Gateway.Is6() != h.IPv6) {
		return h, fmt.Errorf("parse next hop: no id, or a gateway of another family")
	}
	return h, nil
}

func (h *parsedHop) readMembers(data []byte) error {
	if len(data) == 0 || len(data)%sizeofNhGroup != 0 {
		return fmt.Errorf("%d bytes of members", len(data))
	}
	for ; len(data) > 0; data = data[sizeofNhGroup:] {
		// Newer kernels keep the high byte of the weight beside the low one.
		weight := uint32(data[4]) | uint32(data[5])<<8
		if weight > 255 {
			h.Odd = true
			weight = 255
		}
		h.members = append(h.members, Member{
			ID: NextHopID(binary.NativeEndian.Uint32(data)), Weight: uint16(weight + 1),
		})
	}
	return nil
}

// read takes the attributes of a resilient group.
func (r *Resilient) read(b []byte) error {
	return eachAttr(b, func(kind uint16, data []byte) error {
		var ticks uint32
		switch kind {
		case resBuckets:
			return readU16(data, &r.Buckets)
		case resIdle:
			err := readU32(data, &ticks)
			r.IdleTimer = time.Duration(ticks) * clockTick
			return err
		case resUnbal:
			err := readU32(data, &ticks)
			r.UnbalancedTimer = time.Duration(ticks) * clockTick
			return err
		}
		return nil
	})
}

// parseRoute reads an RTM_NEWROUTE. ok is false for routes that cannot be ours
// nor in our way: cached ones, and those with a TOS or a source prefix.
func parseRoute(b []byte) (r RawRoute, ok bool, err error) {
	if len(b) < sizeofRtMsg {
		return r, false, fmt.Errorf("parse route: %d bytes", len(b))
	}
	isIPv6, known := readFamily(b[0])
	if !known || b[2] != 0 || b[3] != 0 || binary.NativeEndian.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return r, false, nil
	}
	r.Protocol, r.Type, r.Table = b[5], RouteType(b[7]), TableID(b[4])
	to := netip.IPv4Unspecified()
	if isIPv6 {
		to = netip.IPv6Unspecified()
	}
	err = eachAttr(b[sizeofRtMsg:], func(kind uint16, data []byte) error {
		switch kind {
		case unix.RTA_DST:
			return readAddr(data, &to)
		case unix.RTA_TABLE:
			return readU32(data, (*uint32)(&r.Table))
		case unix.RTA_PRIORITY:
			return readU32(data, &r.Metric)
		case rtaNHID:
			return readU32(data, (*uint32)(&r.NextHop))
		}
		return nil
	})
	if err == nil {
		r.Prefix, err = readPrefix(to, isIPv6, b[1])
		r.Prefix = r.Prefix.Masked()
	}
	if err != nil {
		return r, false, fmt.Errorf("parse route: %w", err)
	}
	if r.NextHop != 0 && r.Type == Blackhole {
		// So the kernel shows a unicast route whose next hop, or whose group's only
		// member, is a blackhole at the moment.
		r.Type = Unicast
	}
	return r, true, nil
}

// parseRule reads an RTM_NEWRULE. A rule with selectors that a Rule cannot
// express is Odd. ok is false for families other than IP.
func parseRule(b []byte) (r RawRule, ok bool, err error) {
	if len(b) < sizeofRtMsg {
		return r, false, fmt.Errorf("parse rule: %d bytes", len(b))
	}
	isIPv6, known := readFamily(b[0])
	if !known {
		return r, false, nil
	}
	const invert, unresolved = 2, 4 // FIB_RULE_INVERT, FIB_RULE_UNRESOLVED
	flags := binary.NativeEndian.Uint32(b[8:])
	r.IPv6, r.Action, r.Table = isIPv6, RuleAction(b[7]), TableID(b[4])
	r.Odd = b[1] != 0 || b[2] != 0 || b[3] != 0 || flags&invert != 0
	err = eachAttr(b[sizeofRtMsg:], func(kind uint16, data []byte) error {
		switch kind {
		case unix.FRA_PRIORITY:
			return readU32(data, &r.Priority)
		case unix.FRA_FWMARK:
			return readU32(data, (*uint32)(&r.Mark))
		case unix.FRA_FWMASK:
			return readU32(data, (*uint32)(&r.Mask))
		case unix.FRA_TABLE:
			return readU32(data, (*uint32)(&r.Table))
		case unix.FRA_GOTO:
			return readU32(data, &r.Target)
		case unix.FRA_PROTOCOL:
			if len(data) != 1 {
				return fmt.Errorf("%d bytes instead of 1", len(data))
			}
			r.Protocol = data[0]
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			var v uint32
			err := readU32(data, &v)
			r.Odd = r.Odd || v != 0xffffffff
			return err
		case unix.FRA_PAD, unix.FRA_UNSPEC:
		default:
			r.Odd = true
		}
		return nil
	})
	if err != nil {
		return r, false, fmt.Errorf("parse rule: %w", err)
	}
	if r.Action != RuleLookup {
		r.Table = 0
	}
	if r.Action != RuleGoto {
		r.Target = 0
	}
	r.Unresolved = r.Action == RuleGoto && flags&unresolved != 0
	return r, true, nil
}

// parseAddress reads an RTM_NEWADDR. ok is false for families other than IP.
func parseAddress(b []byte) (a Address, index int, ok bool, err error) {
	if len(b) < sizeofIfAddr {
		return a, 0, false, fmt.Errorf("parse address: %d bytes", len(b))
	}
	isIPv6, known := readFamily(b[0])
	if !known {
		return a, 0, false, nil
	}
	a.Flags, a.Scope = uint32(b[2]), b[3]
	a.Valid, a.Preferred = Forever, Forever
	index = int(binary.NativeEndian.Uint32(b[4:]))
	var local, address netip.Addr
	err = eachAttr(b[sizeofIfAddr:], func(kind uint16, data []byte) error {
		switch kind {
		case unix.IFA_LOCAL:
			return readAddr(data, &local)
		case unix.IFA_ADDRESS:
			return readAddr(data, &address)
		case unix.IFA_BROADCAST:
			return readAddr(data, &a.Broadcast)
		case unix.IFA_LABEL:
			for len(data) > 0 && data[len(data)-1] == 0 {
				data = data[:len(data)-1]
			}
			a.Label = string(data)
		case unix.IFA_FLAGS:
			return readU32(data, &a.Flags)
		case unix.IFA_RT_PRIORITY:
			return readU32(data, &a.Metric)
		case ifaProto:
			if len(data) != 1 {
				return fmt.Errorf("%d bytes instead of 1", len(data))
			}
			a.Protocol = data[0]
		case unix.IFA_CACHEINFO:
			if len(data) < 8 {
				return fmt.Errorf("%d bytes of lifetimes", len(data))
			}
			a.Preferred = binary.NativeEndian.Uint32(data)
			a.Valid = binary.NativeEndian.Uint32(data[4:])
		}
		return nil
	})
	if err == nil {
		err = a.setPrefix(local, address, isIPv6, b[1])
	}
	if err != nil {
		return a, 0, false, fmt.Errorf("parse address: %w", err)
	}
	return a, index, true, nil
}

// setPrefix tells a point-to-point address, whose other end is IFA_ADDRESS, from a
// plain one, which IPv6 has in IFA_ADDRESS alone.
func (a *Address) setPrefix(local, address netip.Addr, isIPv6 bool, bits uint8) (err error) {
	if !local.IsValid() || local == address {
		a.Prefix, err = readPrefix(address, isIPv6, bits)
		return err
	}
	if a.Prefix, err = readPrefix(local, isIPv6, uint8(local.BitLen())); err != nil || !address.IsValid() {
		return err
	}
	a.Peer, err = readPrefix(address, isIPv6, bits)
	return err
}
