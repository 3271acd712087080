package probes

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wires are read and written without telling Go's scheduler. The calls
// never wait, so that nothing is to be gained by it, and each that it hears of
// wakes its monitor thread, which then costs as much as the probes themselves.

const (
	batch       = 32  // packets read at once
	packetSize  = 512 // bytes read of each; the rest is of no interest
	controlSize = 256 // bytes of control messages
)

// address is a socket address as the kernel wants it.
type address struct {
	raw  unix.RawSockaddrAny
	size uint32
}

// inet is the address a, on the interface with that index when a is of one link.
func inet(a netip.Addr, index int) address {
	var to address
	if a.Is4() {
		s := (*unix.RawSockaddrInet4)(unsafe.Pointer(&to.raw))
		s.Family, s.Addr, to.size = unix.AF_INET, a.As4(), unix.SizeofSockaddrInet4
		return to
	}
	s := (*unix.RawSockaddrInet6)(unsafe.Pointer(&to.raw))
	s.Family, s.Addr, s.Scope_id, to.size = unix.AF_INET6, a.As16(), uint32(index), unix.SizeofSockaddrInet6
	return to
}

// link is a link-layer address on the interface with that index.
func link(ethertype uint16, index int, mac [macSize]byte) address {
	var to address
	s := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&to.raw))
	s.Family, s.Protocol, s.Ifindex, s.Halen, to.size = unix.AF_PACKET, networkOrder(ethertype), int32(index), macSize, unix.SizeofSockaddrLinklayer
	copy(s.Addr[:], mac[:])
	return to
}

// host is the IP address in a; invalid if it is of another kind.
func (a *address) host() netip.Addr {
	switch a.raw.Addr.Family {
	case unix.AF_INET:
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw)).Addr)
	case unix.AF_INET6:
		return netip.AddrFrom16((*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw)).Addr)
	}
	return netip.Addr{}
}

// networkOrder is v as the kernel wants it in a field that is in network order.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// sendTo sends one packet. It tries again at an error: the socket may hold one
// that answers somebody else's packet, and tells it instead of sending.
func sendTo(fd int, b []byte, to *address) error {
	var errno unix.Errno
	for range sendTries {
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
		if errno == 0 {
			return nil
		}
	}
	return errno
}

// reader reads many packets at once.
type reader struct {
	messages [batch]message
	vectors  [batch]unix.Iovec
	from     [batch]address
	data     [batch][packetSize]byte
	control  [batch][controlSize]byte
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	size   uint32
}

func newReader() *reader {
	r := &reader{}
	for i := range r.messages {
		r.vectors[i].Base = &r.data[i][0]
		r.vectors[i].SetLen(packetSize)
		h := &r.messages[i].header
		h.Name, h.Iov, h.Control = (*byte)(unsafe.Pointer(&r.from[i].raw)), &r.vectors[i], &r.control[i][0]
		h.SetIovlen(1)
	}
	return r
}

// drain gives take what has come, at most maxReads packets, and reports whether
// there may be more. What it gives is valid during the call only.
func (r *reader) drain(fd, flags int, take func(packet)) bool {
	for errs, reads := 0, 0; errs < maxErrors; {
		if reads >= maxReads {
			return true
		}
		n, errno := r.read(fd, flags)
		if errno == unix.EAGAIN {
			return false
		}
		if errno != 0 { // somebody's unreachable message, told here, too
			errs++
			continue
		}
		now := time.Now()
		for i := range n {
			m := &r.messages[i]
			p := packet{data: r.data[i][:m.size], from: &r.from[i], control: r.control[i][:m.header.Controllen]}
			p.came = arrival(now, p.control)
			take(p)
		}
		if reads += n; n < batch {
			return false
		}
	}
	return false
}

func (r *reader) read(fd, flags int) (int, unix.Errno) {
	for i := range r.messages {
		h := &r.messages[i].header
		h.Namelen = unix.SizeofSockaddrAny
		h.SetControllen(controlSize)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.messages[0])), batch,
		uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
	return int(n), errno
}
