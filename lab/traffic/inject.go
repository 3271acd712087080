package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An Injection is a packet that is put on the wire as it is described, also
// when no program would send it.
type Injection struct {
	Source, Dest netip.AddrPort
	// Protocol is "tcp", "udp", "icmp" (an echo request) or "icmp-reply"; for ICMP the source port is the identifier.
	Protocol string
	Flags    uint8 // of TCP, see ParseFlags
	Seq, Ack uint32
	Payload  []byte
	// Device and Via send to the hardware address of this neighbour, whatever
	// the routes say; without a device the kernel routes the packet.
	Device string
	Via    netip.Addr
	// Count defaults to 1, Interval to 10 ms.
	Count    int
	Interval time.Duration
}

// maxInjections bounds Count.
const maxInjections = 100000

// ParseFlags reads names of TCP flags, joined by "+" or ",": "SYN+FIN".
func ParseFlags(text string) (uint8, error) {
	var flags uint8
	for name := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '+' || r == ',' }) {
		i := slices.Index(flagNames[:], strings.ToUpper(name))
		if i < 0 {
			return 0, fmt.Errorf("unknown TCP flag %q", name)
		}
		flags |= 1 << i
	}
	return flags, nil
}

// Inject sends from the calling thread's network namespace.
func Inject(ctx context.Context, in Injection) error {
	packet, err := in.build()
	if err != nil {
		return fmt.Errorf("inject %s from %s to %s: %w", in.Protocol, in.Source, in.Dest, err)
	}
	fd, to, err := in.open()
	if err != nil {
		return fmt.Errorf("inject from %s to %s: %w", in.Source, in.Dest, err)
	}
	defer unix.Close(fd)
	interval := in.Interval
	if interval <= 0 {
		interval = 10 * time.Millisecond
	}
	for n := range min(max(in.Count, 1), maxInjections) {
		if n > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(interval):
			}
		}
		if err := unix.Sendto(fd, packet, 0, to); err != nil {
			return fmt.Errorf("inject %s from %s to %s: %w", in.Protocol, in.Source, in.Dest, err)
		}
	}
	return nil
}

func (in Injection) build() ([]byte, error) {
	source, dest := in.Source.Addr(), in.Dest.Addr()
	if !source.IsValid() || source.Is4() != dest.Is4() {
		return nil, errors.New("source and destination are not of one family")
	}
	upper, protocol, err := in.upperLayers()
	if err != nil {
		return nil, err
	}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	if source.Is4() {
		ip = &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: source.AsSlice(), DstIP: dest.AsSlice()}
	} else {
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: source.AsSlice(), DstIP: dest.AsSlice()}
	}
	stack := append([]gopacket.SerializableLayer{ip}, upper...)
	for _, l := range upper {
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := c.SetNetworkLayerForChecksum(ip); err != nil {
				return nil, err
			}
		}
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	err = gopacket.SerializeLayers(buffer, options, append(stack, gopacket.Payload(in.Payload))...)
	return buffer.Bytes(), err
}

func (in Injection) upperLayers() ([]gopacket.SerializableLayer, layers.IPProtocol, error) {
	sport, dport := in.Source.Port(), in.Dest.Port()
	switch in.Protocol {
	case "tcp":
		bit := func(i int) bool { return in.Flags&(1<<i) != 0 }
		return []gopacket.SerializableLayer{&layers.TCP{
			SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: in.Seq, Ack: in.Ack, Window: 65535,
			FIN: bit(0), SYN: bit(1), RST: bit(2), PSH: bit(3), ACK: bit(4), URG: bit(5), ECE: bit(6), CWR: bit(7),
		}}, layers.IPProtocolTCP, nil
	case "udp":
		return []gopacket.SerializableLayer{&layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}}, layers.IPProtocolUDP, nil
	case "icmp", "icmp-reply":
		reply := in.Protocol == "icmp-reply"
		if in.Source.Addr().Is4() {
			kind := layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0)
			if reply {
				kind = layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoReply, 0)
			}
			return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: kind, Id: sport, Seq: 1}}, layers.IPProtocolICMPv4, nil
		}
		kind := layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)
		if reply {
			kind = layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoReply, 0)
		}
		echo := &layers.ICMPv6Echo{Identifier: sport, SeqNumber: 1}
		return []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: kind}, echo}, layers.IPProtocolICMPv6, nil
	}
	return nil, 0, fmt.Errorf("unknown protocol %q", in.Protocol)
}

// open returns a socket and the address to send to.
func (in Injection) open() (int, unix.Sockaddr, error) {
	dest := in.Dest.Addr()
	if in.Device != "" {
		return in.openDevice()
	}
	family, to := unix.AF_INET, unix.Sockaddr(nil)
	if dest.Is4() {
		to = &unix.SockaddrInet4{Addr: dest.As4()}
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: dest.As16()}
	}
	// This protocol says that the packets carry their own IP headers.
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	return fd, to, err
}

func (in Injection) openDevice() (int, unix.Sockaddr, error) {
	link, err := net.InterfaceByName(in.Device)
	if err != nil {
		return -1, nil, fmt.Errorf("device %q: %w", in.Device, err)
	}
	via := in.Via
	if !via.IsValid() {
		via = in.Dest.Addr()
	}
	mac, err := resolveNeighbour(link.Index, via)
	if err != nil {
		return -1, nil, err
	}
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: link.Index, Halen: uint8(len(mac))}
	if in.Dest.Addr().Is6() {
		to.Protocol = networkOrder(unix.ETH_P_IPV6)
	}
	copy(to.Addr[:], mac)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return fd, to, err
}

// resolveNeighbour asks the kernel for a neighbour's hardware address; an
// empty datagram makes it look for one that it does not know.
func resolveNeighbour(link int, via netip.Addr) (net.HardwareAddr, error) {
	for range 200 {
		neighbours, err := netlink.NeighList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("neighbours: %w", err)
		}
		for _, n := range neighbours {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == via && len(n.HardwareAddr) == 6 && n.State&netlink.NUD_FAILED == 0 {
				return n.HardwareAddr, nil
			}
		}
		if c, err := net.Dial("udp", netip.AddrPortFrom(via, 9).String()); err == nil {
			_, _ = c.Write(nil)
			c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, fmt.Errorf("neighbour %s does not answer", via)
}
