package traffic

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// A Packet is what matters of an IP packet's headers.
type Packet struct {
	Source   netip.Addr `json:"source"`
	Dest     netip.Addr `json:"dest"`
	Protocol uint8      `json:"protocol"`
	// Ports and flags are those of the first fragment of TCP and UDP, for ICMP type and code.
	SourcePort uint16 `json:"source_port"`
	DestPort   uint16 `json:"dest_port"`
	TCPFlags   uint8  `json:"tcp_flags,omitempty"`
	Length     int    `json:"length"`
}

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// flagNames are those of the TCP header's bits, from the lowest.
var flagNames = [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

func (p Packet) String() string {
	switch p.Protocol {
	case protoTCP:
		var flags []string
		for i, name := range flagNames {
			if p.TCPFlags&(1<<i) != 0 {
				flags = append(flags, name)
			}
		}
		return fmt.Sprintf("%s > %s tcp [%s] length %d", netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort), strings.Join(flags, " "), p.Length)
	case protoUDP:
		return fmt.Sprintf("%s > %s udp length %d", netip.AddrPortFrom(p.Source, p.SourcePort), netip.AddrPortFrom(p.Dest, p.DestPort), p.Length)
	case protoICMP, protoICMPv6:
		return fmt.Sprintf("%s > %s icmp type %d code %d length %d", p.Source, p.Dest, p.SourcePort, p.DestPort, p.Length)
	}
	return fmt.Sprintf("%s > %s protocol %d length %d", p.Source, p.Dest, p.Protocol, p.Length)
}

// ParsePacket reads the headers at the start of an IP packet, which may be cut
// off after them. False means that it is no IP packet.
func ParsePacket(b []byte) (Packet, bool) {
	if len(b) == 0 {
		return Packet{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return Packet{}, false
}

func parseIPv4(b []byte) (Packet, bool) {
	header := int(b[0]&0x0f) * 4
	if len(b) < 20 || header < 20 {
		return Packet{}, false
	}
	p := Packet{
		Source: netip.AddrFrom4([4]byte(b[12:])), Dest: netip.AddrFrom4([4]byte(b[16:])),
		Protocol: b[9], Length: int(binary.BigEndian.Uint16(b[2:])),
	}
	if first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0; first && header < len(b) {
		p.parsePorts(b[header:])
	}
	return p, true
}

func parseIPv6(b []byte) (Packet, bool) {
	if len(b) < 40 {
		return Packet{}, false
	}
	p := Packet{
		Source: netip.AddrFrom16([16]byte(b[8:])), Dest: netip.AddrFrom16([16]byte(b[24:])),
		Protocol: b[6], Length: 40 + int(binary.BigEndian.Uint16(b[4:])),
	}
	rest, ok := p.skipExtensions(b[40:])
	if ok {
		p.parsePorts(rest)
	}
	return p, true
}

// skipExtensions goes to the upper-layer header (RFC 8200 section 4); false if
// there is none in this packet.
func (p *Packet) skipExtensions(b []byte) ([]byte, bool) {
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	for range 8 {
		switch p.Protocol {
		case hopByHop, routing, destination:
			if len(b) < 8 || len(b) < 8+int(b[1])*8 {
				return nil, false
			}
			p.Protocol, b = b[0], b[8+int(b[1])*8:]
		case fragment:
			if len(b) < 8 {
				return nil, false
			}
			first := binary.BigEndian.Uint16(b[2:])>>3 == 0
			p.Protocol, b = b[0], b[8:]
			if !first {
				return nil, false
			}
		default:
			return b, true
		}
	}
	return nil, false
}

func (p *Packet) parsePorts(b []byte) {
	switch p.Protocol {
	case protoTCP, protoUDP:
		if len(b) >= 4 {
			p.SourcePort, p.DestPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
		if p.Protocol == protoTCP && len(b) >= 14 {
			p.TCPFlags = b[13]
		}
	case protoICMP, protoICMPv6:
		if len(b) >= 2 {
			p.SourcePort, p.DestPort = uint16(b[0]), uint16(b[1])
		}
	}
}
