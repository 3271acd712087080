package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Ports (RFC 5881 4, RFC 5883 5).
const (
	singleHopPort = 3784
	multihopPort  = 4784
	firstSource   = 49152
	lastSource    = 65535

	// sourceTries bounds the search for a free source port, of 16384.
	sourceTries = 64

	maxTTL = 255
	// controlTOS is class selector 6: network control.
	controlTOS = 0xc0
	// receiveBuffer holds packets while we get no processor.
	receiveBuffer = 1 << 20
)

// spot is what a receive socket is for: there is one for each.
type spot struct {
	device string
	six    bool
	port   uint16
}

func (c Config) spot() spot {
	s := spot{device: c.Device, six: c.Peer.Is6(), port: singleHopPort}
	if c.Multihop {
		s.port = multihopPort
	}
	return s
}

// openReceiver opens the socket of a spot: every address of the device.
func openReceiver(s spot) (int, error) {
	fd, err := openSocket(s.device, s.six, []option{
		{"SO_TIMESTAMPNS", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1},
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer},
	}, []option{
		{"IP_RECVTTL", unix.SOL_IP, unix.IP_RECVTTL, 1},
		{"IP_PKTINFO", unix.SOL_IP, unix.IP_PKTINFO, 1},
	}, []option{
		{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1},
		{"IPV6_RECVHOPLIMIT", unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		{"IPV6_RECVPKTINFO", unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1},
	})
	if err != nil {
		return -1, err
	}
	any := netip.IPv4Unspecified()
	if s.six {
		any = netip.IPv6Unspecified()
	}
	if err := unix.Bind(fd, socketAddress(any, s.port, 0)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on UDP port %d: %w", s.port, err)
	}
	return fd, nil
}

// openSender opens a session's own socket, with a source port of its own
// (RFC 5881 4). zone is the index of the peer's zone, 0 without one.
func openSender(c Config, zone uint32) (int, error) {
	fd, err := openSocket(c.Device, c.Peer.Is6(), []option{
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, 0}, // nobody reads it
	}, []option{
		{"IP_TTL", unix.SOL_IP, unix.IP_TTL, maxTTL},
		{"IP_TOS", unix.SOL_IP, unix.IP_TOS, controlTOS},
	}, []option{
		{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1},
		{"IPV6_UNICAST_HOPS", unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, maxTTL},
		{"IPV6_TCLASS", unix.SOL_IPV6, unix.IPV6_TCLASS, controlTOS},
	})
	if err != nil {
		return -1, err
	}
	local := c.Local
	if !local.IsValid() {
		local = netip.IPv4Unspecified()
		if c.Peer.Is6() {
			local = netip.IPv6Unspecified()
		}
	}
	for range sourceTries {
		port := uint16(firstSource + rand.IntN(lastSource-firstSource+1))
		if err = unix.Bind(fd, socketAddress(local, port, zone)); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind to %s: %w", local, err)
	}
	return fd, nil
}

type option struct {
	name         string
	level, which int
	value        int
}

func openSocket(device string, six bool, both, four, sixes []option) (int, error) {
	family, options := unix.AF_INET, append(both, four...)
	if six {
		family, options = unix.AF_INET6, append(both, sixes...)
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if device != "" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("bind to device %q: %w", device, err)
		}
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.which, o.value); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("setsockopt "+o.name, err)
		}
	}
	return fd, nil
}

// socketAddress has the zone only where the kernel looks at one.
func socketAddress(a netip.Addr, port uint16, zone uint32) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	s := &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
	if a.IsLinkLocalUnicast() {
		s.ZoneId = zone
	}
	return s
}

// deviceIndex is 0 for no name and for a device that does not exist. It asks
// through any socket of the namespace.
func deviceIndex(fd int, name string) uint32 {
	if name == "" {
		return 0
	}
	request, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request) != nil {
		return 0
	}
	return request.Uint32()
}

// arrival is what the kernel says about a received packet.
type arrival struct {
	from, to netip.Addr // without zone
	device   uint32     // index of the port; of the VRF for IPv4
	ttl      uint8
	// wall is the kernel's time of arrival in ns of the wall clock, 0 if unknown.
	wall int64
}

// controlBytes is room for the control messages of a packet.
const controlBytes = 256

// readPacket reads one packet without waiting: unix.EAGAIN when there is none.
func readPacket(fd int, buf, control []byte) (int, arrival, error) {
	n, oobn, _, from, err := unix.Recvmsg(fd, buf, control, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, arrival{}, err
	}
	var a arrival
	switch s := from.(type) {
	case *unix.SockaddrInet4:
		a.from = netip.AddrFrom4(s.Addr)
	case *unix.SockaddrInet6:
		a.from = netip.AddrFrom16(s.Addr)
	}
	a.read(control[:oobn])
	return n, a, nil
}

// read takes what it knows from control messages; they are in the byte order
// of the machine.
func (a *arrival) read(control []byte) {
	for len(control) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return
		}
		control = rest
		switch kind := [2]int32{header.Level, header.Type}; {
		case kind == [2]int32{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS} && len(data) >= 16:
			a.wall = int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:]))
		case (kind == [2]int32{unix.SOL_IP, unix.IP_TTL} || kind == [2]int32{unix.SOL_IPV6, unix.IPV6_HOPLIMIT}) && len(data) >= 4:
			a.ttl = uint8(binary.NativeEndian.Uint32(data))
		case kind == [2]int32{unix.SOL_IP, unix.IP_PKTINFO} && len(data) >= unix.SizeofInet4Pktinfo:
			a.device, a.to = binary.NativeEndian.Uint32(data), netip.AddrFrom4([4]byte(data[8:12]))
		case kind == [2]int32{unix.SOL_IPV6, unix.IPV6_PKTINFO} && len(data) >= unix.SizeofInet6Pktinfo:
			a.device, a.to = binary.NativeEndian.Uint32(data[16:]), netip.AddrFrom16([16]byte(data[:16]))
		}
	}
}
