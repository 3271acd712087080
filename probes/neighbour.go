package probes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	macSize = 6
	// sourceAge is how long the kernel's choice of a source is used, unless an
	// attempt fails, macAge how long the port's own link-layer address.
	sourceAge = 10 * time.Second
	macAge    = time.Second

	arpSize                = 28 // RFC 826 for Ethernet and IPv4
	arpRequest, arpReply   = 1, 2
	ndSolicit, ndAdvertise = 135, 136 // RFC 4861, 4.3 and 4.4
	ndSolicitSize          = 32       // with the source link-layer address
	ndAdvertiseSize        = 24       // without options
	ndSolicited            = 0x40     // flag S of an advertisement
	ndHopLimit             = 255
)

var errNoEthernet = errors.New("not an Ethernet device")

// neighbour is what a flight to a neighbour remembers.
type neighbour struct {
	// mac is where the last attempt was answered from. The next request goes there
	// alone (RFC 1122, 2.3.2.1), so that probing does not wake the whole subnet; the
	// one after a failure goes to all, for the address may have moved.
	mac   [macSize]byte
	known bool
	// source is the sender's address in requests, as found at the time found.
	source netip.Addr
	found  time.Time
}

// forget makes the next request go to all, with what the kernel says then.
func (n *neighbour) forget() { n.known, n.found = false, time.Time{} }

// arpLine is a packet socket for ARP on one port.
type arpLine struct {
	fd, index int
	key       wireKey
	own       ownMAC
	in        *reader
}

func openARP(key wireKey) (*arpLine, error) {
	l := &arpLine{key: key, in: newReader()}
	var err error
	if l.fd, l.index, err = openPacket(key.device, unix.ETH_P_ARP, onlyARPReplies, stamps); err != nil {
		return nil, err
	}
	l.own = ownMAC{fd: l.fd}
	return l, nil
}

// openPacket makes a packet socket on a device, which gets the packets of one
// EtherType; 0 gets none.
func openPacket(device string, ethertype uint16, options ...func(fd int) error) (fd, index int, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("make packet socket: %w", err)
	}
	index, err = indexOf(fd, device)
	if err == nil {
		for _, set := range options {
			if err = set(fd); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(ethertype), Ifindex: index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, fmt.Errorf("bind to device %q: %w", device, err)
	}
	return fd, index, nil
}

// onlyARPReplies spares us the requests of the subnet: the operation is the
// fourth of the 16-bit words.
func onlyARPReplies(fd int) error {
	return attach(fd, []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 6},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arpReply, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	})
}

func (l *arpLine) descriptor() int { return l.fd }

func (l *arpLine) close() { _ = unix.Close(l.fd) }

func (l *arpLine) send(f *flight) error {
	own, err := l.own.get(f.start)
	if err != nil {
		return fmt.Errorf("find address of device %q: %w", l.key.device, err)
	}
	n := &f.neighbour
	if n.source = l.key.source; !n.source.IsValid() {
		n.source = n.chosen(f, l.key.device)
	}
	mac := [macSize]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if n.known {
		mac = n.mac
	}
	f.to = link(unix.ETH_P_ARP, l.index, mac)
	if err := sendTo(l.fd, arpRequestFor(own, n.source, f.target), &f.to); err != nil {
		return fmt.Errorf("send ARP request: %w", err)
	}
	return nil
}

// arpRequestFor asks who has target (RFC 826). Without a source it is a probe
// (RFC 5227, 2.1.1), which is answered like any other.
func arpRequestFor(own [macSize]byte, source, target netip.Addr) []byte {
	b := make([]byte, 8, arpSize)
	binary.BigEndian.PutUint16(b, 1) // Ethernet
	binary.BigEndian.PutUint16(b[2:], unix.ETH_P_IP)
	b[4], b[5] = macSize, 4
	binary.BigEndian.PutUint16(b[6:], arpRequest)
	b = append(b, own[:]...)
	if source.Is4() {
		b = append(b, source.AsSlice()...)
	} else {
		b = append(b, 0, 0, 0, 0)
	}
	b = append(b, make([]byte, macSize)...)
	return append(b, target.AsSlice()...)
}

// parseARPReply reads whose address an ARP reply tells, and where it is.
func parseARPReply(b []byte) (target netip.Addr, mac [macSize]byte, ok bool) {
	if len(b) < arpSize || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != unix.ETH_P_IP ||
		b[4] != macSize || b[5] != 4 || binary.BigEndian.Uint16(b[6:]) != arpReply {
		return target, mac, false
	}
	return netip.AddrFrom4([4]byte(b[14:])), [macSize]byte(b[8:]), true
}

func (l *arpLine) receive(w *wire) bool {
	return l.in.drain(l.fd, 0, func(p packet) {
		if target, mac, ok := parseARPReply(p.data); ok {
			w.present(target, mac, p.came)
		}
	})
}

// present takes in that a neighbour answered. Answers carry nothing of the
// request, so that one counts for all who asked before it came.
func (w *wire) present(target netip.Addr, mac [macSize]byte, came time.Time) {
	for _, f := range w.flights {
		if f.target.WithZone("") == target && !came.Before(f.sent) {
			f.neighbour.mac, f.neighbour.known = mac, true
			f.answered(came)
		}
	}
}

// ownMAC is the address of the device that a packet socket is bound to.
type ownMAC struct {
	fd   int
	mac  [macSize]byte
	read time.Time
}

// get is at most macAge old.
func (o *ownMAC) get(now time.Time) ([macSize]byte, error) {
	if !o.read.IsZero() && now.Sub(o.read) < macAge {
		return o.mac, nil
	}
	name, err := unix.Getsockname(o.fd)
	if err != nil {
		return o.mac, os.NewSyscallError("getsockname", err)
	}
	link, ok := name.(*unix.SockaddrLinklayer)
	if !ok || link.Halen != macSize {
		return o.mac, errNoEthernet
	}
	o.mac, o.read = [macSize]byte(link.Addr[:]), now
	return o.mac, nil
}

// chosen is the source that the kernel takes for packets to f's target; invalid
// if it has none.
func (n *neighbour) chosen(f *flight, device string) netip.Addr {
	if !n.found.IsZero() && f.start.Sub(n.found) < sourceAge {
		return n.source
	}
	n.found = f.start
	fd, err := openSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, device, netip.Addr{})
	if err != nil {
		return netip.Addr{}
	}
	defer unix.Close(fd)
	// Connecting sends nothing.
	if unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: f.target.As4()}) != nil {
		return netip.Addr{}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}
	}
	if local, ok := name.(*unix.SockaddrInet4); ok {
		return netip.AddrFrom4(local.Addr)
	}
	return netip.Addr{}
}
