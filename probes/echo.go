package probes

import (
	"encoding/binary"
)

// ICMP types and lengths (RFC 792, RFC 4443 section 4).
const (
	echoReply4, echoRequest4 = 0, 8
	echoRequest6, echoReply6 = 128, 129

	echoHeader = 8
	tokenSize  = 16
)

// echo identifies one request and its reply. id and seq may collide between
// probes and between processes; the token is random, so it decides.
type echo struct {
	id, seq uint16
	token   [tokenSize]byte
}

// request appends the ICMP message to b, which is empty. The checksum of ICMPv6
// is the kernel's business.
func (e echo) request(b []byte, v6 bool) []byte {
	b = append(b, echoRequest4, 0, 0, 0, 0, 0, 0, 0)
	if v6 {
		b[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(b[4:], e.id)
	binary.BigEndian.PutUint16(b[6:], e.seq)
	b = append(b, e.token[:]...)
	if !v6 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// answeredBy reports whether packet, as a raw socket delivers it (IPv4 with its
// IP header, IPv6 without), is the reply to e. The kernel has verified the
// checksum of ICMPv6, and for IPv4 delivers also damaged messages.
func (e echo) answeredBy(packet []byte, v6 bool) bool {
	m, kind := packet, byte(echoReply6)
	if !v6 {
		m, kind = icmpOf(packet), echoReply4
	}
	if len(m) < echoHeader+tokenSize || m[0] != kind || m[1] != 0 {
		return false
	}
	if !v6 && checksum(m) != 0 {
		return false
	}
	return binary.BigEndian.Uint16(m[4:]) == e.id && binary.BigEndian.Uint16(m[6:]) == e.seq &&
		[tokenSize]byte(m[echoHeader:]) == e.token
}

// icmpOf is the ICMP message in an IPv4 packet; nil if it has none.
func icmpOf(packet []byte) []byte {
	if len(packet) < 20 || packet[0]>>4 != 4 || packet[9] != 1 {
		return nil
	}
	header, total := int(packet[0]&0x0f)*4, int(binary.BigEndian.Uint16(packet[2:]))
	if header < 20 || total < header || total > len(packet) {
		return nil
	}
	return packet[header:total]
}

// checksum is the internet checksum (RFC 1071); 0 over a message that carries it.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
