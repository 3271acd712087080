package flows

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// payload is what follows the header in a message of ours.
func payload(m message) []byte { return m[sizeofHeader:] }

// complete adds to a message that creates an entry what only the kernel's have.
func complete(m message) message {
	m = m.u32(attrID, 77).u32(attrStatus, statusOffload|0xf)
	var c message
	c = c.attr(counterPackets, binary.BigEndian.AppendUint64(nil, 3)).attr(counterBytes, binary.BigEndian.AppendUint64(nil, 1<<40))
	return m.attr(attrCountersReply|flagNested, c).attr(99, []byte("unknown")).finish(0)
}

func TestParseEntry(t *testing.T) {
	for _, m := range everyProto() {
		m.timeout = 30
		e, err := parseEntry(payload(complete(m.message())))
		if err != nil {
			t.Errorf("%+v: %v", m, err)
		}
		want := m.flow()
		want.Timeout, want.Offloaded, want.Received = 30*time.Second, true, Counter{3, 1 << 40}
		if e.Flow != want {
			t.Errorf("got  %+v\nwant %+v", e.Flow, want)
		}
	}
}

// A request that ends an entry must name it: without a tuple it empties the table.
func TestParseEntryRefuses(t *testing.T) {
	good := complete(everyProto()[0].message())
	without := func(kinds ...uint16) []byte {
		b := payload(good)
		out := message(bytes.Clone(b[:sizeofFamily]))
		for a := (attrs{rest: b[sizeofFamily:]}); a.next(); {
			if !bytes.Contains(u16s(kinds...), u16s(a.kind)) {
				out = out.attr(a.kind, a.payload)
			}
		}
		return out
	}
	if _, err := parseEntry(without()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{nil, "shorter"},
		{without(attrTupleOrig), "no original"},
		{append(message(without(attrTupleOrig)), message(nil).attr(attrTupleOrig, nil)...), "two addresses"},
		{without(attrTupleReply), "no reply"},
		{without(attrID), "no id"},
		{append(message(without(attrID)), message(nil).attr(attrID, nil)...), "attribute 12: 0 bytes"},
		{append(message(without(attrMark)), message(nil).attr(attrMark, []byte{1})...), "attribute 8: 1 bytes"},
		{payload(good)[:len(payload(good))-2], "shorter"},
		{append(without(), 1, 2, 3), "shorter"},
		{append(without(), 3, 0, 1, 0), "shorter"},
		{append(message(without(attrTupleReply)), message(nil).attr(attrTupleReply,
			madeTuple(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"), 6, 1, 1, 0, true))...), "attribute 2: attribute 1: attribute 2: address of 16 bytes, not 4"},
	} {
		if _, err := parseEntry(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%x: got %v, want %q", c.b, err, c.want)
		}
	}
}

func u16s(list ...uint16) (b []byte) {
	for _, v := range list {
		b = append(b, 0xff, byte(v>>8), byte(v))
	}
	return b
}

// What the kernel said goes back to it unchanged.
func TestAppendDelete(t *testing.T) {
	var all message
	list := everyProto()
	for _, m := range list {
		e, err := parseEntry(payload(complete(m.message())))
		if err != nil {
			t.Fatal(err)
		}
		all = appendDelete(all, &e)
	}
	rest := []byte(all)
	for _, m := range list {
		h, got, next, err := nextMessage(rest)
		if err != nil || h.kind != msgDelete || h.flags != unix.NLM_F_REQUEST {
			t.Fatalf("%+v, %v", h, err)
		}
		rest = next
		checkDelete(t, m, got)
	}
	if len(rest) > 0 {
		t.Errorf("%d bytes too many", len(rest))
	}
}

func checkDelete(t *testing.T, m made, got []byte) {
	t.Helper()
	src, dst := netip.MustParseAddr(m.src), netip.MustParseAddr(m.dst)
	want := message{unix.AF_INET, 0, 0, 0}
	if src.Is6() {
		want[0] = unix.AF_INET6
	}
	want = want.attr(attrTupleOrig|flagNested, madeTuple(src, dst, m.proto, m.srcPort, m.dstPort, m.origZone, false))
	if m.both != 0 {
		want = want.attr(attrZone, u16(m.both))
	}
	if want = want.u32(attrID, 77); !bytes.Equal(got, want) {
		t.Errorf("%+v:\ngot  %x\nwant %x", m, got, want)
	}
}

func TestEnding(t *testing.T) {
	if err := ending([]byte{0, 0, 0, 0, 9}); err != nil {
		t.Error(err)
	}
	for _, want := range []unix.Errno{unix.ENOENT, unix.EPERM} {
		b := binary.NativeEndian.AppendUint32(nil, uint32(-int32(want)))
		if err := ending(b); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := ending([]byte{0, 0}); !errors.Is(err, errShort) {
		t.Error(err)
	}
}

func TestAddStats(t *testing.T) {
	var s Stats
	for range 2 { // CPUs
		b := message{0, 0, 0, 0}.u32(statsInsertFailed, 1).u32(statsDrop, 0xffffffff).u32(statsEarlyDrop, 3).u32(statsInvalid, 4).u32(99, 5)
		if err := s.add(msgStatsCPU, b); err != nil {
			t.Error(err)
		}
	}
	if err := s.add(msgStats, message{0, 0, 0, 0}.u32(globalEntries, 7).u32(globalMax, 8)); err != nil {
		t.Error(err)
	}
	if want := (Stats{Count: 7, Max: 8, InsertFailed: 2, Drop: 2 * 0xffffffff, EarlyDrop: 6, Invalid: 8}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	if s.add(msgStats, []byte{1}) == nil || s.add(msgStats, message{0, 0, 0, 0}.attr(globalMax, []byte{1})) == nil {
		t.Error("odd messages pass")
	}
}

// A socket that reads a dump goes on to the datagram's end after a failure: the
// end of the answer may be in it.
func TestTake(t *testing.T) {
	entry := complete(everyProto()[0].message())
	done := appendMessage(nil, unix.NLMSG_DONE, 0, 0).finish(0)
	foreign := appendMessage(nil, unix.NLMSG_ERROR, 0, 0).finish(0)
	with := func(seq uint32, flags uint16, list ...message) (all []byte) {
		for _, m := range list {
			m = bytes.Clone(m)
			binary.NativeEndian.PutUint32(m[8:], seq)
			binary.NativeEndian.PutUint16(m[6:], flags)
			all = append(all, m...)
		}
		return all
	}
	failure := errors.New("enough")
	for _, c := range []struct {
		name  string
		b     []byte
		fail  error
		calls int
		open  bool
		want  error
	}{
		{"entries", with(5, 0, entry, entry), nil, 2, true, nil},
		{"end", with(5, 0, entry, done), nil, 1, false, nil},
		{"failure before the end", with(5, 0, entry, entry, done), failure, 1, false, failure},
		{"failure", with(5, 0, entry, entry), failure, 1, true, failure},
		{"answer to an earlier request", with(4, 0, entry, foreign), nil, 0, true, nil},
		{"interrupted", with(5, unix.NLM_F_DUMP_INTR, entry, done), nil, 1, false, errInterrupted},
		{"truncated", with(5, 0, entry, entry)[:len(entry)+20], nil, 1, true, errShort},
	} {
		s := socket{first: 5, seq: 5, open: true}
		calls := 0
		err := s.take(c.b, answer{each: func(uint16, []byte) error { calls++; return c.fail }})
		if !errors.Is(err, c.want) || calls != c.calls || s.open != c.open {
			t.Errorf("%s: %d calls, open %t, %v", c.name, calls, s.open, err)
		}
	}
}

// Of several requests only those that fail and the last one are answered.
func TestTakeBatch(t *testing.T) {
	s := socket{first: 0xffffffff, seq: 1, open: true} // the numbers wrap
	reply := func(seq uint32, n unix.Errno) message {
		b := message(binary.NativeEndian.AppendUint32(appendMessage(nil, unix.NLMSG_ERROR, 0, 0)[:sizeofHeader], uint32(-int32(n)))).finish(0)
		binary.NativeEndian.PutUint32(b[8:], seq)
		return b
	}
	var verdicts []error
	a := answer{ended: func(err error) error { verdicts = append(verdicts, err); return nil }}
	for _, m := range []message{reply(0xfffffffe, unix.EPERM), reply(0xffffffff, unix.ENOENT), reply(0, unix.EPERM)} {
		if err := s.take(m, a); err != nil || !s.open {
			t.Errorf("open %t, %v", s.open, err)
		}
	}
	if err := s.take(reply(1, 0), a); err != nil || s.open {
		t.Errorf("open %t, %v", s.open, err)
	}
	if want := []error{unix.ENOENT, unix.EPERM, nil}; !slices.Equal(verdicts, want) {
		t.Errorf("got %v, want %v", verdicts, want)
	}
	s.open = true
	if err := s.take(reply(0, unix.EPERM), answer{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("without a function: %v", err)
	}
}

// FuzzMessages: nothing that a socket could read makes it read past its end, and
// every entry that passes can be ended by name.
func FuzzMessages(f *testing.F) {
	for _, m := range everyProto() {
		f.Add([]byte(complete(m.message())))
	}
	f.Add([]byte(appendMessage(nil, unix.NLMSG_DONE, 0, 0).finish(0)))
	f.Add([]byte(message(append(appendMessage(nil, msgStatsCPU, 0, 0), message(nil).u32(statsDrop, 3)...)).finish(0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var stats Stats
		for len(b) > 0 {
			h, payload, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
			_ = ending(payload)
			_ = stats.add(h.kind, payload)
			if e, err := parseEntry(payload); err == nil {
				checkEntry(t, &e)
			}
		}
	})
}

func checkEntry(t *testing.T, e *entry) {
	t.Helper()
	if !e.Src.IsValid() || e.Src.BitLen() != e.Dst.BitLen() || !e.Address.IsValid() {
		t.Errorf("addresses of %+v", e.Flow)
	}
	request := appendDelete(nil, e)
	_, b, rest, err := nextMessage(request)
	if err != nil || len(rest) > 0 {
		t.Fatalf("request %x: %v", request, err)
	}
	kinds := map[uint16]int{}
	a := attrs{rest: b[sizeofFamily:]}
	for a.next() {
		kinds[a.kind]++
		if a.kind == attrTupleOrig {
			if again, err := parseTuple(a.payload); err != nil || again.src != e.Src {
				t.Errorf("tuple %x: %v", a.payload, err)
			}
		}
	}
	if a.err != nil || kinds[attrTupleOrig] != 1 || kinds[attrID] != 1 {
		t.Errorf("request %x has %v, %v", request, kinds, a.err)
	}
}
