package vrf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// RouteQuery is a packet whose way is asked for.
type RouteQuery struct {
	// Dst must be valid. Src may be invalid, except for a packet that comes in.
	Src, Dst netip.Addr
	Mark     Mark
	// Interface is where the packet comes in; "" asks for one that we send.
	Interface string
	// Proto is the IP protocol, and with it the ports, which multipath hashing and
	// rules may look at. The kernel knows TCP, UDP and ICMP; others are left out.
	Proto            uint8
	SrcPort, DstPort uint16
}

// RouteAnswer is what the kernel does with the packet.
type RouteAnswer struct {
	// Table is where the route was found; 0 when the kernel does not say, which is so
	// for most packets that it does not deliver.
	Table TableID
	// Type is Unicast, Local, or why the packet is not delivered. A packet without a
	// route is Unreachable.
	Type RouteType
	// Gateway and Device of a Unicast route; of several next hops the one that this
	// packet takes. Gateway is invalid when the destination is on the link.
	Gateway netip.Addr
	Device  string
	// NextHop is the next hop or group that the route names; 0 if unknown.
	NextHop NextHopID
}

// RouteGet asks the kernel for the way of a packet, as "ip route get" does. That a
// packet is not delivered is an answer. So is, as Blackhole, one that the kernel
// refuses as impossible, a martian source above all. A source that fails the reverse
// path filter of Interface is an error (EXDEV), and so is a device that does not exist.
func (k *Kernel) RouteGet(ctx context.Context, q RouteQuery) (RouteAnswer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	answer, err := k.routeGet(ctx, q)
	if err != nil {
		return RouteAnswer{}, fmt.Errorf("get route to %q: %w", q.Dst, err)
	}
	return answer, nil
}

func (k *Kernel) routeGet(ctx context.Context, q RouteQuery) (RouteAnswer, error) {
	var none RouteAnswer
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if !q.Dst.IsValid() || (q.Src.IsValid() && q.Src.Is4() != q.Dst.Is4()) {
		return none, fmt.Errorf("no destination, or a source %q of another family", q.Src)
	}
	index := 0
	if q.Interface != "" {
		l, err := k.handle.LinkByName(q.Interface)
		if err != nil {
			return none, fmt.Errorf("find device %q: %w", q.Interface, err)
		}
		index = l.Attrs().Index
	}
	found, err := k.askRoute(q, index, 0)
	if err != nil {
		if refused := refusal(err); refused != 0 {
			return RouteAnswer{Type: refused}, nil
		}
		return none, err
	}
	// Which next hop or group it was only the route itself says, and that does not say
	// which of its members this packet takes.
	if route, err := k.askRoute(q, index, unix.RTM_F_FIB_MATCH); err == nil {
		found.NextHop = route.NextHop
	}
	if found.Type == Unicast && found.device != 0 {
		l, err := k.handle.LinkByIndex(found.device)
		if err != nil {
			return none, fmt.Errorf("find device %d: %w", found.device, err)
		}
		found.Device = l.Attrs().Name
	}
	return found.RouteAnswer, nil
}

// refusal is the type of route, or of rule, that makes the kernel answer with err.
func refusal(err error) RouteType {
	switch {
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return Unreachable
	case errors.Is(err, unix.EACCES):
		return Prohibit
	case err == error(unix.EINVAL): // with a reason told, it is the query that is wrong
		return Blackhole
	}
	return 0
}

func (k *Kernel) askRoute(q RouteQuery, index int, flags uint32) (parsedAnswer, error) {
	var answer parsedAnswer
	var bad error
	err := k.request(unix.RTM_GETROUTE, 0, encodeQuery(q, index, flags)).ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(b []byte) bool {
		answer, bad = parseAnswer(b)
		return bad == nil
	})
	if bad != nil {
		return answer, bad
	}
	return answer, err
}

func encodeQuery(q RouteQuery, index int, flags uint32) message {
	m := make(message, sizeofRtMsg, 128)
	m[0], m[1] = familyOf(q.Dst), uint8(q.Dst.BitLen())
	if q.Dst.Is4() {
		flags |= unix.RTM_F_LOOKUP_TABLE // IPv6 tells in any case, and refuses the flag
	}
	binary.NativeEndian.PutUint32(m[8:], flags)
	m.attr(unix.RTA_DST, q.Dst.AsSlice())
	if q.Src.IsValid() {
		m[2] = uint8(q.Src.BitLen())
		m.attr(unix.RTA_SRC, q.Src.AsSlice())
	}
	if q.Mark != 0 {
		m.u32(unix.RTA_MARK, uint32(q.Mark))
	}
	if index != 0 {
		m.u32(unix.RTA_IIF, uint32(index))
	}
	icmp := uint8(unix.IPPROTO_ICMP)
	if q.Dst.Is6() {
		icmp = unix.IPPROTO_ICMPV6
	}
	switch q.Proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		m.attr(unix.RTA_IP_PROTO, []byte{q.Proto})
		m.attr(unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, q.SrcPort))
		m.attr(unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, q.DstPort))
	case icmp:
		m.attr(unix.RTA_IP_PROTO, []byte{q.Proto})
	}
	return m
}

// parsedAnswer is an answer whose device is an interface index.
type parsedAnswer struct {
	RouteAnswer
	device int
}

// parseAnswer reads the RTM_NEWROUTE that answers a query.
func parseAnswer(b []byte) (a parsedAnswer, err error) {
	if len(b) < sizeofRtMsg {
		return a, fmt.Errorf("parse answer: %d bytes", len(b))
	}
	a.Table, a.Type = TableID(b[4]), RouteType(b[7])
	err = eachAttr(b[sizeofRtMsg:], func(kind uint16, data []byte) error {
		switch kind {
		case unix.RTA_TABLE:
			return readU32(data, (*uint32)(&a.Table))
		case unix.RTA_GATEWAY:
			return readAddr(data, &a.Gateway)
		case unix.RTA_VIA: // of the other family
			if len(data) < 2 {
				return fmt.Errorf("%d bytes of gateway", len(data))
			}
			return readAddr(data[2:], &a.Gateway)
		case unix.RTA_OIF:
			var v uint32
			err := readU32(data, &v)
			a.device = int(v)
			return err
		case rtaNHID:
			return readU32(data, (*uint32)(&a.NextHop))
		}
		return nil
	})
	if err != nil {
		return parsedAnswer{}, fmt.Errorf("parse answer: %w", err)
	}
	if a.Type != Unicast {
		a.Gateway = netip.Addr{}
	}
	return a, nil
}
