package bfd

import (
	"crypto/sha1"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAuthOpensWhatItSealed(t *testing.T) {
	for _, a := range []*Auth{nil, {Type: SimplePassword, KeyID: 7, Key: "secret"}, {Type: KeyedSHA1, KeyID: 7, Key: "secret"},
		{Type: MeticulousSHA1, KeyID: 7, Key: "twenty bytes of key."}} {
		sender, receiver := sequence{sent: 1<<32 - 2}, sequence{} // numbers are circular
		for range 4 {
			raw := a.seal(nil, packet{status: Down, mult: 3, my: 1}, &sender)
			p, err := parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.open(raw, p, &receiver, p.mult); err != nil {
				t.Errorf("%+v: %v", a, err)
			}
			if a == nil {
				continue
			}
			for name, other := range map[string]*Auth{"no key": nil, "key id": {Type: a.Type, KeyID: 8, Key: a.Key}, "key": {Type: a.Type, KeyID: 7, Key: "other"}} {
				if err := other.open(raw, p, &sequence{}, p.mult); !errors.Is(err, errAuth) {
					t.Errorf("%+v: with another %s: %v", a, name, err)
				}
			}
			for i := range raw[:headerBytes] {
				bad := slices.Clone(raw)
				bad[i] ^= 1
				q, err := parse(bad)
				if err != nil || a.Type == SimplePassword {
					continue
				}
				if err := a.open(bad, q, &sequence{}, q.mult); !errors.Is(err, errAuth) {
					t.Errorf("%+v: changed byte %d: %v", a, i, err)
				}
			}
		}
	}
}

// TestAuthSHA1Digest computes the digest as RFC 5880 6.7.4 says, apart from the
// code under test.
func TestAuthSHA1Digest(t *testing.T) {
	a := &Auth{Type: KeyedSHA1, KeyID: 7, Key: "secret"}
	raw := a.seal(nil, packet{status: Up, mult: 3, my: 1, your: 2}, &sequence{sent: 4})
	keyed := slices.Concat(raw[:24], []byte{4, 28, 7, 0, 0, 0, 0, 5}, []byte("secret"), make([]byte, 14))
	want := sha1.Sum(keyed)
	if !slices.Equal(raw[32:], want[:]) || raw[3] != 52 || raw[1]&flagAuth == 0 {
		t.Errorf("sealed %x, want digest %x", raw, want)
	}
}

// TestAuthSequence: after number 100, at multiplier 3.
func TestAuthSequence(t *testing.T) {
	for _, c := range []struct {
		kind   AuthType
		number uint32
		good   bool
	}{
		{KeyedSHA1, 99, false}, {KeyedSHA1, 100, true}, {KeyedSHA1, 109, true}, {KeyedSHA1, 110, false},
		{MeticulousSHA1, 100, false}, {MeticulousSHA1, 101, true}, {MeticulousSHA1, 109, true}, {MeticulousSHA1, 110, false},
	} {
		a := &Auth{Type: c.kind, Key: "secret"}
		raw := a.seal(nil, packet{status: Up, mult: 3, my: 1, your: 2}, &sequence{sent: c.number - 1})
		p, err := parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		s := sequence{received: 100, known: true}
		if err := a.open(raw, p, &s, p.mult); (err == nil) != c.good {
			t.Errorf("%s: %d after 100: %v", c.kind, c.number, err)
		}
		if want := map[bool]uint32{true: c.number, false: 100}[c.good]; s.received != want {
			t.Errorf("%s: %d after 100: now %d", c.kind, c.number, s.received)
		}
		s = sequence{received: 5000, known: true}
		s.forget(299*time.Millisecond, 150*time.Millisecond)
		if a.open(raw, p, &s, p.mult) == nil {
			t.Errorf("%s: %d was accepted after 5000", c.kind, c.number)
		}
		s.forget(300*time.Millisecond, 150*time.Millisecond)
		if err := a.open(raw, p, &s, p.mult); err != nil {
			t.Errorf("%s: after two detection times: %v", c.kind, err)
		}
	}
}

func TestAuthStaysOutOfLogs(t *testing.T) {
	if text := (Auth{Type: SimplePassword, Key: "secret"}).LogValue().String(); strings.Contains(text, "secret") {
		t.Error(text)
	}
}
