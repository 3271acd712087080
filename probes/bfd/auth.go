package bfd

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// AuthType is how packets are authenticated (RFC 5880 6.7). Keyed MD5 is not
// offered: whoever has it has SHA1 as well.
type AuthType string

// The types of authentication.
const (
	// SimplePassword is readable by everybody on the way.
	SimplePassword AuthType = "simple"
	// KeyedSHA1 lets an attacker repeat the last packet, MeticulousSHA1 does not.
	KeyedSHA1      AuthType = "keyed-sha1"
	MeticulousSHA1 AuthType = "meticulous-keyed-sha1"
)

// Auth is the one key of a session.
type Auth struct {
	Type AuthType
	// KeyID is sent with every packet, and has to be the peer's.
	KeyID uint8
	// Key has 1 to 16 bytes for SimplePassword, to 20 for the others.
	Key string
}

// LogValue keeps the key out of logs.
func (a Auth) LogValue() slog.Value { return slog.StringValue(string(a.Type)) }

// Wire values and sizes (RFC 5880 4.2 to 4.4).
const (
	wireSimple         = 1
	wireKeyedSHA1      = 4
	wireMeticulousSHA1 = 5

	sha1SectionBytes = 28
	digestAt         = 8
)

var errAuth = errors.New("authentication failed")

func (a *Auth) validate() error {
	longest := sha1.Size
	switch a.Type {
	case SimplePassword:
		longest = 16
	case KeyedSHA1, MeticulousSHA1:
	default:
		return fmt.Errorf("authentication: unknown type %q", a.Type)
	}
	if a.Key == "" || len(a.Key) > longest {
		return fmt.Errorf("authentication: a key of type %q has 1 to %d bytes", a.Type, longest)
	}
	return nil
}

func (a *Auth) wire() byte {
	return map[AuthType]byte{SimplePassword: wireSimple, KeyedSHA1: wireKeyedSHA1, MeticulousSHA1: wireMeticulousSHA1}[a.Type]
}

// sequence is the authentication state of a session.
type sequence struct {
	sent     uint32 // bfd.XmitAuthSeq
	received uint32 // bfd.RcvAuthSeq
	known    bool   // bfd.AuthSeqKnown
}

// seal appends the packet to b, authenticated if a is not nil. Each packet has
// the next number, for both kinds of SHA1.
func (a *Auth) seal(b []byte, p packet, s *sequence) []byte {
	switch {
	case a == nil:
		return p.appendTo(b)
	case a.Type == SimplePassword:
		p.auth = append([]byte{wireSimple, byte(3 + len(a.Key)), a.KeyID}, a.Key...)
		return p.appendTo(b)
	}
	s.sent++
	section := make([]byte, sha1SectionBytes)
	section[0], section[1], section[2] = a.wire(), sha1SectionBytes, a.KeyID
	binary.BigEndian.PutUint32(section[4:], s.sent)
	copy(section[digestAt:], a.Key)
	p.auth = section
	start := len(b)
	b = p.appendTo(b)
	sum := sha1.Sum(b[start:])
	copy(b[start+headerBytes+digestAt:], sum[:])
	return b
}

// open checks a received packet, of which raw are the bytes (RFC 5880 6.7.2 to
// 6.7.4), and notes its number.
func (a *Auth) open(raw []byte, p packet, s *sequence, mult uint8) error {
	switch {
	case a == nil && p.auth == nil:
		return nil
	case a == nil:
		return fmt.Errorf("%w: the peer uses it, we do not", errAuth)
	case p.auth == nil:
		return fmt.Errorf("%w: the peer does not use it", errAuth)
	case p.auth[0] != a.wire():
		return fmt.Errorf("%w: type %d instead of %d", errAuth, p.auth[0], a.wire())
	case len(p.auth) < 3 || p.auth[2] != a.KeyID:
		return fmt.Errorf("%w: another key id than %d", errAuth, a.KeyID)
	case a.Type == SimplePassword:
		if subtle.ConstantTimeCompare(p.auth[3:], []byte(a.Key)) != 1 {
			return fmt.Errorf("%w: wrong password", errAuth)
		}
		return nil
	case len(p.auth) != sha1SectionBytes:
		return fmt.Errorf("%w: section of %d bytes", errAuth, len(p.auth))
	}
	return a.openSHA1(raw[:headerBytes+sha1SectionBytes], p.auth, s, mult)
}

func (a *Auth) openSHA1(raw, section []byte, s *sequence, mult uint8) error {
	number := binary.BigEndian.Uint32(section[4:])
	if s.known {
		ahead := number - s.received // circular
		least := uint32(0)
		if a.Type == MeticulousSHA1 {
			least = 1
		}
		if ahead < least || ahead > 3*uint32(mult) {
			return fmt.Errorf("%w: sequence number %d after %d", errAuth, number, s.received)
		}
	}
	var keyed [headerBytes + sha1SectionBytes]byte
	copy(keyed[:], raw)
	digest := keyed[headerBytes+digestAt:]
	clear(digest)
	copy(digest, a.Key)
	sum := sha1.Sum(keyed[:])
	if subtle.ConstantTimeCompare(sum[:], section[digestAt:]) != 1 {
		return fmt.Errorf("%w: wrong digest", errAuth)
	}
	s.received, s.known = number, true
	return nil
}

// forget accepts any number after two detection times of silence (6.8.1).
func (s *sequence) forget(silence, detection time.Duration) {
	if silence >= 2*detection {
		s.known = false
	}
}
