package probes

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

func FuzzARPReply(f *testing.F) {
	f.Add([]byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 5, 10, 0, 0, 5, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1})
	f.Add(arpRequestFor([macSize]byte{2}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.5")))
	f.Fuzz(func(t *testing.T, b []byte) {
		target, mac, ok := parseARPReply(b)
		if !ok {
			return
		}
		if !target.Is4() || !bytes.Equal(mac[:], b[8:14]) || b[7] != arpReply {
			t.Errorf("%x: %v %x", b, target, mac)
		}
	})
}

func FuzzAdvertisement(f *testing.F) {
	f.Add(append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, make([]byte, 16)...))
	f.Add(ndSolicitFor([macSize]byte{2}, netip.MustParseAddr("fd00::5")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if target, ok := parseAdvertisement(b); ok && (!target.Is6() || len(b) < ndAdvertiseSize || b[4]&ndSolicited == 0) {
			t.Errorf("%x: %v", b, target)
		}
	})
}

// FuzzControl: whatever the control messages are, an answer came neither in the
// future nor from outside of the buffer.
func FuzzControl(f *testing.F) {
	stamp := make([]byte, unix.CmsgSpace(16))
	binary.NativeEndian.PutUint64(stamp, uint64(unix.CmsgLen(16)))
	binary.NativeEndian.PutUint32(stamp[8:], unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(stamp[12:], unix.SCM_TIMESTAMPNS)
	f.Add(stamp, uint8(0))
	f.Add(append(bytes.Clone(stamp), stamp...), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		b = b[:len(b)-min(int(cut), len(b))]
		now := time.Now()
		if came := arrival(now, b); came.After(now) {
			t.Errorf("%x: came %v after now", b, came.Sub(now))
		}
		if m, ok := controlMessage(b, unix.SOL_IP, unix.IP_RECVERR); ok && len(m) > len(b) {
			t.Errorf("%x: message of %d bytes", b, len(m))
		}
	})
}

func FuzzDNSAnswer(f *testing.F) {
	a := newDNSAttempt(Config{DNS: &DNSConfig{Name: "www.example.com", Answer: "192.0.2.80"}}, Target{})
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{a.question},
		Answers: []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: a.question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
			Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 80}}}}}
	good, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	m.Truncated = true
	truncated, _ := m.Pack()
	f.Add(truncated)
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		if !answers(b, 7, a.question) {
			return
		}
		if err := a.judge(b); err == nil && !bytes.Contains(b, []byte{192, 0, 2, 80}) {
			t.Errorf("%x: accepted without the address", b)
		}
	})
}

// TestArrival: the stamp's distance from now counts.
func TestArrival(t *testing.T) {
	now := time.Now()
	for _, age := range []time.Duration{0, time.Millisecond, time.Hour, -time.Hour} {
		at := now.Add(-age)
		b := make([]byte, unix.CmsgSpace(16))
		h := unix.CmsgLen(0)
		if h != 16 {
			t.Skip("not a 64-bit system")
		}
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(16)))
		binary.NativeEndian.PutUint32(b[8:], unix.SOL_SOCKET)
		binary.NativeEndian.PutUint32(b[12:], unix.SCM_TIMESTAMPNS)
		binary.NativeEndian.PutUint64(b[16:], uint64(at.Unix()))
		binary.NativeEndian.PutUint64(b[24:], uint64(at.Nanosecond()))
		if got := now.Sub(arrival(now, b)); (got - max(0, age)).Abs() > time.Microsecond {
			t.Errorf("age %v, got %v", age, got)
		}
		if got := arrival(now, b[:20]); !got.Equal(now) {
			t.Errorf("of a cut message: %v", got)
		}
	}
}
