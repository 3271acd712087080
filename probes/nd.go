package probes

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ndLine is a raw socket for neighbour solicitations on one port.
type ndLine struct {
	fd, index int
	// link is a packet socket that only tells the port's own address.
	link int
	own  ownMAC
	key  wireKey
	in   *reader
}

func openND(key wireKey) (*ndLine, error) {
	l := &ndLine{key: key, in: newReader()}
	var err error
	if l.link, l.index, err = openPacket(key.device, 0); err != nil {
		return nil, err
	}
	l.own = ownMAC{fd: l.link}
	l.fd, err = openSocket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, key.device, key.source, ndOptions, stamps)
	if err != nil {
		_ = unix.Close(l.link)
		return nil, err
	}
	return l, nil
}

// ndOptions: hosts ignore solicitations, and we advertisements, that a router
// has forwarded (RFC 4861, 7.1).
func ndOptions(fd int) error {
	if err := onlyICMP6(fd, ndAdvertise); err != nil {
		return err
	}
	for _, o := range [][2]int{{unix.IPV6_MULTICAST_HOPS, ndHopLimit}, {unix.IPV6_RECVHOPLIMIT, 1}, {unix.IPV6_MULTICAST_LOOP, 0}} {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, o[0], o[1]); err != nil {
			return os.NewSyscallError("setsockopt of ICMPv6", err)
		}
	}
	return nil
}

func (l *ndLine) descriptor() int { return l.fd }

func (l *ndLine) close() {
	_ = unix.Close(l.fd)
	_ = unix.Close(l.link)
}

// send asks the target's solicited-node group. Asking the target alone would
// make the kernel ask for it first, of which we would know nothing.
func (l *ndLine) send(f *flight) error {
	own, err := l.own.get(f.start)
	if err != nil {
		return fmt.Errorf("find address of device %q: %w", l.key.device, err)
	}
	f.to = inet(solicitedNode(f.target), l.index)
	if err := sendTo(l.fd, ndSolicitFor(own, f.target), &f.to); err != nil {
		return fmt.Errorf("send neighbour solicitation: %w", err)
	}
	return nil
}

// solicitedNode is the group of RFC 4291, 2.7.1.
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// ndSolicitFor is the message of RFC 4861, 4.3. The checksum is the kernel's
// business.
func ndSolicitFor(own [macSize]byte, target netip.Addr) []byte {
	b := make([]byte, 8, ndSolicitSize)
	b[0] = ndSolicit
	a := target.As16()
	b = append(b, a[:]...)
	b = append(b, 1, 1) // source link-layer address, 8 bytes
	return append(b, own[:]...)
}

// parseAdvertisement reads whose presence a solicited advertisement tells. The
// kernel has verified its checksum.
func parseAdvertisement(b []byte) (netip.Addr, bool) {
	if len(b) < ndAdvertiseSize || b[0] != ndAdvertise || b[1] != 0 || b[4]&ndSolicited == 0 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b[8:])), true
}

func (l *ndLine) receive(w *wire) bool {
	return l.in.drain(l.fd, 0, func(p packet) {
		limit, ok := controlMessage(p.control, unix.SOL_IPV6, unix.IPV6_HOPLIMIT)
		if !ok || len(limit) < 4 || binary.NativeEndian.Uint32(limit) != ndHopLimit {
			return
		}
		if target, ok := parseAdvertisement(p.data); ok {
			w.present(target, [macSize]byte{}, p.came)
		}
	})
}
