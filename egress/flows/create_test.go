package flows

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
	"golang.org/x/sys/unix"
)

// A made entry is what the tests put into conntrack, and what a golden message
// is made of.
type made struct {
	mark                      uint32
	both, origZone, replyZone uint16 // conntrack zones
	proto                     uint8
	src, dst, pool            string
	srcPort, dstPort          uint16
	poolPort                  uint16 // srcPort if 0
	timeout                   uint32 // seconds, 600 if 0
}

func (m made) message() message {
	src, dst, pool := netip.MustParseAddr(m.src), netip.MustParseAddr(m.dst), netip.MustParseAddr(m.pool)
	family := uint8(unix.AF_INET)
	if src.Is6() {
		family = unix.AF_INET6
	}
	timeout, poolPort := m.timeout, m.poolPort
	if timeout == 0 {
		timeout = 600
	}
	if poolPort == 0 {
		poolPort = m.srcPort
	}
	orig := madeTuple(src, dst, m.proto, m.srcPort, m.dstPort, m.origZone, false)
	reply := madeTuple(dst, pool, m.proto, m.dstPort, poolPort, m.replyZone, true)
	b := appendMessage(nil, msgNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, family)
	b = b.attr(attrTupleOrig|flagNested, orig).attr(attrTupleReply|flagNested, reply)
	b = b.u32(attrTimeout, timeout).u32(attrMark, m.mark)
	if m.both != 0 {
		b = b.attr(attrZone, u16(m.both))
	}
	return b.finish(0)
}

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// madeTuple: for ICMP the ports are the identifier and type << 8 | code, whichever way round.
func madeTuple(src, dst netip.Addr, proto uint8, srcPort, dstPort, zone uint16, reply bool) message {
	var ip, l4 message
	if src.Is4() {
		ip = ip.attr(ipV4Src, src.AsSlice()).attr(ipV4Dst, dst.AsSlice())
	} else {
		ip = ip.attr(ipV6Src, src.AsSlice()).attr(ipV6Dst, dst.AsSlice())
	}
	l4 = l4.attr(protoNum, []byte{proto})
	id, kind := srcPort, byte(dstPort>>8)
	switch {
	case proto == unix.IPPROTO_ICMP:
		if reply {
			id, kind = dstPort, 0 // echo reply
		}
		l4 = l4.attr(protoICMPID, u16(id)).attr(protoICMPType, []byte{kind}).attr(protoICMPCode, []byte{0})
	case proto == unix.IPPROTO_ICMPV6:
		if reply {
			id, kind = dstPort, 129
		}
		l4 = l4.attr(protoICMP6ID, u16(id)).attr(protoICMP6Type, []byte{kind}).attr(protoICMP6Code, []byte{0})
	default:
		l4 = l4.attr(protoSrcPort, u16(srcPort)).attr(protoDstPort, u16(dstPort))
	}
	b := message(nil).attr(tupleIP|flagNested, ip).attr(tupleProto|flagNested, l4)
	if zone != 0 {
		b = b.attr(tupleZone, u16(zone))
	}
	return b
}

// create puts entries into the kernel.
func (t *Table) create(ctx context.Context, list ...made) error {
	return use(ctx, t.control, func(s *socket) error {
		for part := range slices.Chunk(list, batch) {
			var b message
			for _, m := range part {
				b = append(b, m.message()...)
			}
			if err := s.exchange(ctx, b, answer{}); err != nil {
				return fmt.Errorf("create one of %+v: %w", part, err)
			}
		}
		return nil
	})
}

func openIn(tb testing.TB, ns *lab.NS) *Table {
	tb.Helper()
	var table *Table
	err := ns.Do(func() (err error) {
		table, err = Open(slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := table.Close(); err != nil {
			tb.Error(err)
		}
	})
	return table
}

// listed is conntrack(8)'s view: one line for each entry, without timeouts.
func listed(tb testing.TB, ns *lab.NS) []string {
	tb.Helper()
	var list []string
	for line := range strings.Lines(ns.Must("conntrack", "-L")) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[0] != "conntrack" {
			list = append(list, strings.Join(append(fields[:2:2], fields[3:]...), " "))
		}
	}
	return list
}
