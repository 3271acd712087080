package bfd

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"
)

// ordinary is a packet as it is on the wire, written by hand from RFC 5880 4.1:
// version 1, diag 3, Up, P and C, multiplier 3, 24 bytes, 1, 2, 50 ms, 80 ms, 0.
const ordinary = "23" + "e8" + "03" + "18" + "00000001" + "00000002" + "0000c350" + "00013880" + "00000000"

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	want := packet{diag: NeighborDown, status: Up, poll: true, independent: true, mult: 3, my: 1, your: 2,
		desiredMinTx: 50 * time.Millisecond, requiredMinRx: 80 * time.Millisecond}
	b := fromHex(t, ordinary)
	for _, raw := range [][]byte{b, append(b[:len(b):len(b)], "padding after the length is ignored"...)} {
		got, err := parse(raw)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parse: %+v, %v", got, err)
		}
	}
	if got := want.appendTo(nil); !bytes.Equal(got, b) {
		t.Errorf("append: %x", got)
	}
}

// TestParseRefuses has every check of RFC 5880 6.8.6 that needs no session.
func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string
		mangle func(b []byte) []byte
	}{
		{"only 23 bytes", func(b []byte) []byte { return b[:23] }},
		{"only 0 bytes", func([]byte) []byte { return nil }},
		{"version 0", func(b []byte) []byte { b[0] &= 0x1f; return b }},
		{"version 2", func(b []byte) []byte { b[0] ^= 0x60; return b }},
		{"length field 23", func(b []byte) []byte { b[3] = 23; return b }},
		{"length field 25", func(b []byte) []byte { b[3] = 25; return b }},
		{"multiplier is zero", func(b []byte) []byte { b[2] = 0; return b }},
		{"multipoint", func(b []byte) []byte { b[1] |= flagMultipoint; return b }},
		{"my discriminator is zero", func(b []byte) []byte { b[7] = 0; return b }},
		{"your discriminator is zero in state up", func(b []byte) []byte { b[11] = 0; return b }},
		{"your discriminator is zero in state init", func(b []byte) []byte { b[11], b[1] = 0, 0x80; return b }},
		{"does not fill 0 bytes", func(b []byte) []byte { b[1] |= flagAuth; return b }},
		{"does not fill 1 bytes", func(b []byte) []byte { b[1] |= flagAuth; b[3] = 25; return append(b, 1) }},
		{"does not fill 3 bytes", func(b []byte) []byte { b[1] |= flagAuth; b[3] = 27; return append(b, 1, 4, 1) }},
	} {
		if _, err := parse(c.mangle(fromHex(t, ordinary))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
	for _, status := range []byte{0x00, 0x40} { // AdminDown, Down
		b := fromHex(t, ordinary)
		b[1], b[11] = status, 0
		if _, err := parse(b); err != nil {
			t.Errorf("without your discriminator in state %#x: %v", status, err)
		}
	}
}

// FuzzParse: what is understood is written again as it was, but for the
// padding behind it and reserved values that do not exist.
func FuzzParse(f *testing.F) {
	f.Add(fromHex(f, ordinary))
	f.Add(bytes.Repeat([]byte("0"), 64))
	keys := []*Auth{nil, {Type: SimplePassword, KeyID: 1, Key: "secret"}, {Type: KeyedSHA1, KeyID: 2, Key: "secret"}, {Type: MeticulousSHA1, KeyID: 3, Key: "secret"}}
	for _, a := range keys {
		f.Add(a.seal(nil, packet{mult: 1, my: 1, status: Down}, &sequence{}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		want := bytes.Clone(b[:b[3]])
		if p.auth == nil { // what else the length may cover is padding
			want = want[:headerBytes]
			want[3] = headerBytes
		}
		if got := p.appendTo(nil); !bytes.Equal(got, want) {
			t.Errorf("%x was written as %x", want, got)
		}
		for _, a := range keys {
			if err := a.open(b, p, &sequence{}, p.mult); err == nil && a != nil && a.Type != SimplePassword && len(p.auth) != sha1SectionBytes {
				t.Errorf("accepted %x", b)
			}
		}
	})
}

// FuzzControl: control messages come from the kernel, and must not hurt even so.
func FuzzControl(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var a arrival
		a.read(b)
	})
}
