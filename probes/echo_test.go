package probes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var asked = echo{id: 0xbeef, seq: 7, token: [tokenSize]byte{1, 2, 3, 15: 16}}

// replyTo turns a request into what a raw socket delivers of its reply, with
// some IPv4 options.
func replyTo(e echo, v6 bool, options int) []byte {
	m := e.request(nil, v6)
	if v6 {
		m[0] = echoReply6
		return m
	}
	m[0] = echoReply4
	binary.BigEndian.PutUint16(m[2:], 0)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	h := make([]byte, 20+4*options)
	h[0], h[9] = 0x45+byte(options), 1
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(m)))
	return append(h, m...)
}

func TestEchoRequest(t *testing.T) {
	want := []byte{8, 0, 0x34, 0xf7, 0xbe, 0xef, 0, 7, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16}
	if got := asked.request(nil, false); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
	six := asked.request(nil, true)
	if six[0] != 128 || six[2] != 0 || six[3] != 0 || !bytes.Equal(six[4:], want[4:]) {
		t.Errorf("% x", six)
	}
}

func TestEchoReply(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for options := range 3 {
			if !asked.answeredBy(replyTo(asked, v6, options), v6) {
				t.Errorf("v6 %v: the reply is not recognised (%d options)", v6, options)
			}
		}
		// The kernel may deliver padding after an IPv4 packet.
		if !v6 && !asked.answeredBy(append(replyTo(asked, v6, 0), 0, 0, 0), v6) {
			t.Error("padding is not ignored")
		}
		for _, other := range []echo{{0xbeee, 7, asked.token}, {0xbeef, 8, asked.token}, {0xbeef, 7, [tokenSize]byte{}}} {
			if asked.answeredBy(replyTo(other, v6, 0), v6) {
				t.Errorf("v6 %v: the reply to %v is taken for our own", v6, other)
			}
		}
		if asked.answeredBy(asked.request(nil, v6), v6) {
			t.Errorf("v6 %v: our own request is taken for its reply", v6)
		}
		reply := replyTo(asked, v6, 0)
		for n := range reply {
			if asked.answeredBy(reply[:n], v6) {
				t.Errorf("v6 %v: a reply cut to %d bytes is accepted", v6, n)
			}
		}
		for bit := range len(reply) * 8 {
			damaged := bytes.Clone(reply)
			damaged[bit/8] ^= 1 << (bit % 8)
			inHeader := !v6 && bit/8 < 20 // the kernel has checked these
			if !inHeader && (!v6 || bit/8 != 2 && bit/8 != 3) && asked.answeredBy(damaged, v6) {
				t.Errorf("v6 %v: a reply with bit %d of byte %d turned is accepted", v6, bit%8, bit/8)
			}
		}
	}
}

func TestChecksum(t *testing.T) {
	// RFC 1071, section 3: the sum of these is ddf2.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("%04x", got)
	}
	if got := checksum([]byte{0xff}); got != ^uint16(0xff00) {
		t.Errorf("odd length: %04x", got)
	}
}

// FuzzEchoReply: no packet makes it fail, and what is accepted has the token.
func FuzzEchoReply(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(replyTo(asked, v6, 0), v6)
		f.Add(replyTo(asked, v6, 10), v6)
	}
	f.Add([]byte{0x4f, 9: 1}, false)
	f.Fuzz(func(t *testing.T, packet []byte, v6 bool) {
		if asked.answeredBy(packet, v6) && !bytes.Contains(packet, asked.token[:]) {
			t.Errorf("accepted % x", packet)
		}
	})
}

func TestSearch(t *testing.T) {
	for _, c := range []struct {
		body, want string
		found      bool
	}{
		{"all is well", "is well", true},
		{"all is well", "all", true},
		{"", "x", false},
		{"all is wel", "well", false},
		{strings.Repeat("x", MaxBody-4) + "well", "well", true},
		{strings.Repeat("x", MaxBody-3) + "well", "well", false},
		{strings.Repeat("wel", 3000) + "well", "welwell", true},
		{strings.Repeat("y", MaxBody), strings.Repeat("y", MaxBody), true},
		{strings.Repeat("y", 2*MaxBody), "x", false},
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(c.body), "bytes": iotest.OneByteReader(strings.NewReader(c.body)),
			"with eof": iotest.DataErrReader(strings.NewReader(c.body)), "halves": iotest.HalfReader(strings.NewReader(c.body)),
		} {
			if err := search(r, []byte(c.want)); (err == nil) != c.found {
				t.Errorf("%s: %.20q (%d) in %.20q (%d): %.200v", name, c.want, len(c.want), c.body, len(c.body), err)
			}
		}
	}
	broken := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc")))
	if err := search(broken, []byte("c")); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("error %v", err)
	}
	// It stops reading when it has seen enough.
	if err := search(io.MultiReader(strings.NewReader("well"), iotest.ErrReader(io.ErrUnexpectedEOF)), []byte("well")); err != nil {
		t.Error(err)
	}
}
