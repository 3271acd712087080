package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

var errShort = errors.New("message is shorter than it says")

// A header is what we need of a message's header.
type header struct {
	kind, flags uint16
	seq         uint32
}

// nextMessage splits the first message off what one read gave.
func nextMessage(b []byte) (h header, payload, rest []byte, err error) {
	if len(b) < sizeofHeader {
		return h, nil, nil, errShort
	}
	n := int64(binary.NativeEndian.Uint32(b))
	if n < sizeofHeader || n > int64(len(b)) {
		return h, nil, nil, errShort
	}
	h.kind = binary.NativeEndian.Uint16(b[4:])
	h.flags = binary.NativeEndian.Uint16(b[6:])
	h.seq = binary.NativeEndian.Uint32(b[8:])
	return h, b[sizeofHeader:n], b[min(align(int(n)), len(b)):], nil
}

// ending reads the number that an acknowledgement, an error or the end of a dump
// begins with: nil for success.
func ending(payload []byte) error {
	if len(payload) < 4 {
		return errShort
	}
	if n := int32(binary.NativeEndian.Uint32(payload)); n != 0 {
		return unix.Errno(-n)
	}
	return nil
}

// attrs walks over attributes:
//
//	for a := (attrs{rest: b}); a.next(); { ... }
type attrs struct {
	rest    []byte
	kind    uint16 // without flags
	payload []byte
	err     error
}

// next moves to the next attribute; it says false at the end and after an error.
func (a *attrs) next() bool {
	if a.err != nil || len(a.rest) == 0 {
		return false
	}
	if len(a.rest) < sizeofAttr {
		a.err = errShort
		return false
	}
	n := int(binary.NativeEndian.Uint16(a.rest))
	if n < sizeofAttr || n > len(a.rest) {
		a.err = errShort
		return false
	}
	a.kind = binary.NativeEndian.Uint16(a.rest[2:]) & attrTypeMask
	a.payload = a.rest[sizeofAttr:n]
	a.rest = a.rest[min(align(n), len(a.rest)):]
	return true
}

// fail ends the walk.
func (a *attrs) fail(err error) {
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("attribute %d: %w", a.kind, err)
	}
}

// number reads a big-endian number of exactly this many bytes, or fails.
func (a *attrs) number(size int) (v uint64) {
	if len(a.payload) != size {
		a.fail(fmt.Errorf("%d bytes, not %d", len(a.payload), size))
		return 0
	}
	for _, c := range a.payload {
		v = v<<8 | uint64(c)
	}
	return v
}

// An entry is a flow with what it takes to end it. Its slices belong to the
// buffer of the message.
type entry struct {
	Flow
	family          uint8
	tuple, zone, id []byte
}

// parseEntry reads an entry from a message's payload. Attributes that it does
// not know are passed over.
func parseEntry(b []byte) (e entry, err error) {
	if len(b) < sizeofFamily {
		return e, errShort
	}
	e.family = b[0]
	a := attrs{rest: b[sizeofFamily:]}
	for a.next() {
		e.set(&a)
	}
	switch {
	case a.err != nil:
		err = a.err
	case !e.Src.IsValid():
		err = errors.New("entry has no original direction")
	case !e.Address.IsValid():
		err = errors.New("entry has no reply direction")
	case len(e.id) == 0:
		err = errors.New("entry has no id")
	}
	return e, err
}

func (e *entry) set(a *attrs) {
	switch a.kind {
	case attrTupleOrig:
		t, err := parseTuple(a.payload)
		a.fail(err)
		e.Proto, e.Src, e.Dst, e.SrcPort, e.DstPort = t.proto, t.src, t.dst, t.srcPort, t.dstPort
		e.tuple = a.payload
	case attrTupleReply:
		t, err := parseTuple(a.payload)
		a.fail(err)
		e.Address, e.Port = t.dst, t.dstPort
		if t.icmp {
			e.Port = t.srcPort
		}
		e.Zone |= t.zone
	case attrStatus:
		e.Offloaded = a.number(4)&statusOffload != 0
	case attrProtoInfo:
		e.Closed = parseClosed(a)
	case attrTimeout:
		e.Timeout = time.Duration(a.number(4)) * time.Second
	case attrMark:
		e.Mark = uint32(a.number(4))
	case attrCountersOrig:
		e.Sent = parseCounter(a)
	case attrCountersReply:
		e.Received = parseCounter(a)
	case attrID:
		a.number(4)
		e.id = a.payload
	case attrZone:
		e.Zone |= uint16(a.number(2)) // the kernel sends this one or the tuple's
		e.zone = a.payload
	}
}

type tuple struct {
	src, dst         netip.Addr
	proto            uint8
	icmp             bool
	srcPort, dstPort uint16
	zone             uint16
}

func parseTuple(b []byte) (t tuple, err error) {
	a := attrs{rest: b}
	for a.next() {
		switch a.kind {
		case tupleIP:
			t.setAddresses(&a)
		case tupleProto:
			t.setProto(&a)
		case tupleZone:
			t.zone = uint16(a.number(2))
		}
	}
	if a.err == nil && (!t.src.IsValid() || t.src.BitLen() != t.dst.BitLen()) {
		a.err = errors.New("tuple without two addresses of one family")
	}
	return t, a.err
}

func (t *tuple) setAddresses(outer *attrs) {
	a := attrs{rest: outer.payload}
	for a.next() {
		switch a.kind {
		case ipV4Src:
			t.src = a.address(4)
		case ipV4Dst:
			t.dst = a.address(4)
		case ipV6Src:
			t.src = a.address(16)
		case ipV6Dst:
			t.dst = a.address(16)
		}
	}
	outer.fail(a.err)
}

// address reads an address of exactly this many bytes, or fails.
func (a *attrs) address(size int) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.payload)
	if len(a.payload) != size {
		a.fail(fmt.Errorf("address of %d bytes, not %d", len(a.payload), size))
	}
	return addr
}

func (t *tuple) setProto(outer *attrs) {
	a := attrs{rest: outer.payload}
	for a.next() {
		switch a.kind {
		case protoNum:
			t.proto = uint8(a.number(1))
		case protoSrcPort:
			t.srcPort = uint16(a.number(2))
		case protoDstPort:
			t.dstPort = uint16(a.number(2))
		case protoICMPID, protoICMP6ID:
			t.srcPort, t.icmp = uint16(a.number(2)), true
		case protoICMPType, protoICMP6Type:
			t.dstPort |= uint16(a.number(1)) << 8
		case protoICMPCode, protoICMP6Code:
			t.dstPort |= uint16(a.number(1))
		}
	}
	outer.fail(a.err)
}

// parseClosed says whether the state of a protocol is that of a TCP connection
// that has ended.
func parseClosed(outer *attrs) (closed bool) {
	a := attrs{rest: outer.payload}
	for a.next() {
		if a.kind != protoInfoTCP {
			continue
		}
		tcp := attrs{rest: a.payload}
		for tcp.next() {
			if tcp.kind == protoInfoTCPState {
				state := tcp.number(1)
				closed = state == tcpTimeWait || state == tcpClose
			}
		}
		a.fail(tcp.err)
	}
	outer.fail(a.err)
	return closed
}

func parseCounter(outer *attrs) (c Counter) {
	a := attrs{rest: outer.payload}
	for a.next() {
		switch a.kind {
		case counterPackets:
			c.Packets = a.number(8)
		case counterBytes:
			c.Bytes = a.number(8)
		}
	}
	outer.fail(a.err)
	return c
}

// add adds the counters of one message of an answer to msgStats (the
// namespace's) or msgStatsCPU (those of one CPU).
func (s *Stats) add(kind uint16, b []byte) error {
	if len(b) < sizeofFamily {
		return errShort
	}
	a := attrs{rest: b[sizeofFamily:]}
	for a.next() {
		if field := s.field(kind, a.kind); field != nil {
			*field += a.number(4)
		}
	}
	return a.err
}

func (s *Stats) field(kind, attr uint16) *uint64 {
	type counter struct{ kind, attr uint16 }
	switch (counter{kind, attr}) {
	case counter{msgStats, globalEntries}:
		return &s.Count
	case counter{msgStats, globalMax}:
		return &s.Max
	case counter{msgStatsCPU, statsInsertFailed}:
		return &s.InsertFailed
	case counter{msgStatsCPU, statsDrop}:
		return &s.Drop
	case counter{msgStatsCPU, statsEarlyDrop}:
		return &s.EarlyDrop
	case counter{msgStatsCPU, statsInvalid}:
		return &s.Invalid
	}
	return nil
}
