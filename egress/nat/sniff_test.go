package nat

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/egret-router/egret/lab"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// sniffer records what arrives at a neighbour of the gateway.
type sniffer struct {
	mu      sync.Mutex
	packets []gopacket.Packet
}

func (w *world) sniff(ns *lab.NS, dev string) *sniffer {
	s := &sniffer{}
	var file *os.File
	err := ns.Do(func() error {
		link, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), dev)
		_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Index})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { file.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := file.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.packets = append(s.packets, gopacket.NewPacket(bytes.Clone(buf[:n]), layers.LayerTypeEthernet, gopacket.Default))
			s.mu.Unlock()
		}
	}()
	return s
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// all is what has arrived so far.
func (s *sniffer) all() []gopacket.Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]gopacket.Packet(nil), s.packets...)
}

// settle waits until what the gateway has been given so far has come out: an
// answered datagram from red's and blue's client has gone the same way behind
// it. Then nothing may have come out of an uplink that law 3 forbids.
func (w *world) settle() {
	w.t.Helper()
	for n, server := range map[int]string{10: "red", 11: "blue"} {
		for _, f := range lab.Families() {
			conn := w.mustDial("udp", netip.AddrPortFrom(client(f, n), 0), netip.AddrPortFrom(servers[f], port))
			if got, err := ask(conn, deadline); err != nil || !strings.HasPrefix(got, server) {
				w.t.Fatalf("settle: %q, %v", got, err)
			}
		}
	}
	w.lawful()
}

// lawful checks the source of everything that came out of the uplinks.
func (w *world) lawful() {
	w.t.Helper()
	for _, network := range []string{"red", "blue"} {
		for _, p := range w.sniffers[network].all() {
			if l := p.NetworkLayer(); l != nil && !allowedSource(sourceOf(l)) {
				w.t.Errorf("law 3: out of %s's uplink came %s", network, p)
			}
		}
	}
}

func sourceOf(l gopacket.NetworkLayer) netip.Addr {
	a, _ := netip.AddrFromSlice(l.NetworkFlow().Src().Raw())
	return a
}

func destinationOf(l gopacket.NetworkLayer) netip.Addr {
	a, _ := netip.AddrFromSlice(l.NetworkFlow().Dst().Raw())
	return a
}

func allowedSource(a netip.Addr) bool {
	if a.IsLinkLocalUnicast() && a.Is6() || a == netip.IPv6Unspecified() {
		return true
	}
	for _, p := range prefixes("198.51.100.0/31", "172.16.0.1/32", "2001:db8:e::/127", "fd00:16::1/128") {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// quotedIn is the header that an ICMP error carries.
func quotedIn(p gopacket.Packet) gopacket.NetworkLayer {
	if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && (l.TypeCode.Type() == layers.ICMPv4TypeTimeExceeded || l.TypeCode.Type() == layers.ICMPv4TypeDestinationUnreachable) {
		return gopacket.NewPacket(l.Payload, layers.LayerTypeIPv4, gopacket.Default).NetworkLayer()
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && l.TypeCode.Type() < 128 && len(l.Payload) > 4 {
		return gopacket.NewPacket(l.Payload[4:], layers.LayerTypeIPv6, gopacket.Default).NetworkLayer()
	}
	return nil
}

// inject puts a packet on a namespace's device, to the gateway, as somebody
// would who does not care about rules.
func (w *world) inject(ns *lab.NS, dev, gwDev string, src, dst netip.Addr, ttl uint8, rest ...gopacket.SerializableLayer) {
	w.t.Helper()
	mac, err := w.gw.MAC(gwDev)
	if err != nil {
		w.t.Fatal(err)
	}
	own, err := ns.MAC(dev)
	if err != nil {
		w.t.Fatal(err)
	}
	eth := &layers.Ethernet{SrcMAC: own, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}
	protocol := map[gopacket.LayerType]layers.IPProtocol{
		layers.LayerTypeUDP: layers.IPProtocolUDP, layers.LayerTypeTCP: layers.IPProtocolTCP, layers.LayerTypeGRE: layers.IPProtocolGRE,
		layers.LayerTypeICMPv4: layers.IPProtocolICMPv4, layers.LayerTypeICMPv6: layers.IPProtocolICMPv6,
	}[rest[0].LayerType()]
	var ip gopacket.NetworkLayer = &layers.IPv4{Version: 4, TTL: ttl, Protocol: protocol, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if src.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: protocol, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	if l, ok := rest[0].(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); ok {
		_ = l.SetNetworkLayerForChecksum(ip)
	}
	buf := gopacket.NewSerializeBuffer()
	all := append([]gopacket.SerializableLayer{eth, ip.(gopacket.SerializableLayer)}, rest...)
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		w.t.Fatal(err)
	}
	err = ns.Do(func() error {
		link, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, buf.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// counter reads a counter of the gateway.
func (w *world) counter(name string) uint64 {
	w.t.Helper()
	var out map[string]Counter
	w.table.do(func() (err error) { out, err = w.table.Counters(w.t.Context()); return err })
	c, ok := out[name]
	if !ok {
		w.t.Fatalf("no counter %s in %v", name, out)
	}
	return c.Packets
}
