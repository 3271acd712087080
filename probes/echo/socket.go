package echo

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// socketBuffer is the bound of a client's receive buffer, in bytes: answers
	// wait there while the process does not get to run, at most one of each node.
	socketBuffer = 4 << 20
	// maxReads bounds the packets that are read in a row, maxErrors the errors.
	maxReads  = 4096
	maxErrors = 64
	// controlSize is the room for control messages, in bytes.
	controlSize = 256
)

// socket is a client's UDP socket of one family, on a port of the kernel's choice.
type socket struct {
	fd   int
	four bool
	data [maxPacket]byte
	oob  [controlSize]byte
}

func openSocket(four bool) (*socket, error) {
	family, any := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{})
	if four {
		family, any = unix.AF_INET, &unix.SockaddrInet4{}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if four {
		err = os.NewSyscallError("setsockopt IP_RECVERR", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
	} else {
		err = errors.Join(os.NewSyscallError("setsockopt IPV6_V6ONLY", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)),
			os.NewSyscallError("setsockopt IPV6_RECVERR", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)))
	}
	err = errors.Join(err,
		os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)),
		os.NewSyscallError("setsockopt SO_RCVBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)),
		os.NewSyscallError("bind", unix.Bind(fd, any)))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &socket{fd: fd, four: four}, nil
}

// send sends one packet. An error is as good as a packet that was lost.
func (s *socket) send(b []byte, to netip.AddrPort) error {
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if s.four {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	err := unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, sa)
	if err == unix.ECONNREFUSED { // of an earlier packet, to whomever
		err = unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, sa)
	}
	return os.NewSyscallError("sendto", err)
}

// refusals gives take every node that has refused a packet by itself.
func (s *socket) refusals(take func(from netip.AddrPort, came time.Time)) {
	for range maxReads {
		_, oob, _, to, err := unix.Recvmsg(s.fd, s.data[:], s.oob[:], unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE)
		if err != nil {
			return
		}
		var node netip.AddrPort
		switch to := to.(type) {
		case *unix.SockaddrInet4:
			node = netip.AddrPortFrom(netip.AddrFrom4(to.Addr), uint16(to.Port))
		case *unix.SockaddrInet6:
			node = netip.AddrPortFrom(netip.AddrFrom16(to.Addr), uint16(to.Port))
		}
		now := time.Now()
		if refusedBy(s.oob[:oob]) == node.Addr() && node.IsValid() {
			take(node, arrival(now, s.oob[:oob]))
		}
	}
}

// refusedBy is who sent a port unreachable, in the control messages of an error
// (struct sock_extended_err and its offender, ip(7) and ipv6(7)).
func refusedBy(control []byte) netip.Addr {
	const size = 16 // of struct sock_extended_err, which the offender's socket address follows
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		four := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		six := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !four && !six || len(m.Data) < size || syscall.Errno(binary.NativeEndian.Uint32(m.Data)) != unix.ECONNREFUSED {
			continue
		}
		origin, offender := m.Data[4], m.Data[size:]
		switch {
		case four && origin == unix.SO_EE_ORIGIN_ICMP && len(offender) >= 8:
			return netip.AddrFrom4([4]byte(offender[4:8])) // behind family and port
		case six && origin == unix.SO_EE_ORIGIN_ICMP6 && len(offender) >= 24:
			return netip.AddrFrom16([16]byte(offender[8:24])) // behind family, port and flow information
		}
	}
	return netip.Addr{}
}

// drain gives take every packet that has come. It is valid during the call only.
func (s *socket) drain(take func(from netip.AddrPort, packet []byte, came time.Time)) {
	for reads, errs := 0, 0; reads < maxReads && errs < maxErrors; {
		n, oob, _, from, err := unix.Recvmsg(s.fd, s.data[:], s.oob[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return
		case err != nil:
			errs++
			continue
		}
		reads++
		now := time.Now()
		switch from := from.(type) {
		case *unix.SockaddrInet4:
			take(netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port)), s.data[:n], arrival(now, s.oob[:oob]))
		case *unix.SockaddrInet6:
			take(netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port)), s.data[:n], arrival(now, s.oob[:oob]))
		}
	}
}

// arrival is the time in the kernel's stamp among the control messages, on the
// clock of now, or now without one. The stamp is of the system's time, which may
// be set at any time: only its distance from now counts, and nothing comes from
// the future.
func arrival(now time.Time, control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return now
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_TIMESTAMPNS {
			continue
		}
		switch len(m.Data) {
		case 16:
			at := time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			return now.Add(-max(0, now.Sub(at)))
		case 8: // of a 32-bit system
			at := time.Unix(int64(int32(binary.NativeEndian.Uint32(m.Data))), int64(binary.NativeEndian.Uint32(m.Data[4:])))
			return now.Add(-max(0, now.Sub(at)))
		}
	}
	return now
}

// waker ends the wait of another goroutine.
type waker struct{ fd int }

func newWaker() (waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return waker{fd}, os.NewSyscallError("eventfd", err)
}

func (w waker) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// It fails when it has been woken 2^64 times without looking.
	_, _ = unix.Write(w.fd, one[:])
}

func (w waker) reset() {
	var b [8]byte
	_, _ = unix.Read(w.fd, b[:])
}

// wait waits until one of the descriptors can be read, or the time has passed; a
// negative time is for ever.
func wait(fds []unix.PollFd, d time.Duration) {
	var timeout *unix.Timespec
	if d >= 0 {
		t := unix.NsecToTimespec(d.Nanoseconds())
		timeout = &t
	}
	// An error is a signal that came: the loop looks at everything anyway.
	_, _ = unix.Ppoll(fds, timeout, nil)
}
