package probes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxErrors is how many errors of a socket one attempt outlives: an
	// unreachable message need not be the last word.
	maxErrors = 16
	// maxLate is how many packets are looked at when the time is up.
	maxLate = 64

	icmpFilter   = 1 // ICMP_FILTER, linux/icmp.h
	icmpv6Filter = 1 // ICMPV6_FILTER, linux/icmpv6.h
)

// icmpAttempt sends one echo request and waits for its reply.
//
// Each try has a raw socket of its own, bound to the device and connected to
// the target: the kernel then delivers only what comes from that address in
// that VRF, so the cost of a reply does not grow with the number of probes, and
// tells about unreachable messages. Raw sockets need CAP_NET_RAW; ping sockets
// would need net.ipv4.ping_group_range of every namespace.
type icmpAttempt struct {
	target, source netip.Addr
	dialer         net.Dialer
	network        string
	// id stays the same for a target, so that firewalls on the way see one flow.
	id, seq uint16
	// why is the last unreachable message since the last success. Routers limit
	// their rate, so that most of the failed attempts get none.
	why error
}

// newICMPAttempt is for a valid Config.
func newICMPAttempt(c Config, t Target) *icmpAttempt {
	a := &icmpAttempt{target: t.Address, source: c.Source, network: "ip4:1"}
	options := onlyEchoReplies4
	if t.Address.Is6() {
		a.network, options = "ip6:58", onlyEchoReplies6
	}
	a.dialer.Control = bindTo(c.Device, options)
	sum := fnv.New32a()
	fmt.Fprintf(sum, "%d %s %s", os.Getpid(), c.Name, t)
	a.id = uint16(sum.Sum32() ^ sum.Sum32()>>16)
	return a
}

// onlyEchoReplies4 spares us all other messages, and asks for errors.
func onlyEchoReplies4(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply4)); err != nil {
		return os.NewSyscallError("setsockopt ICMP_FILTER", err)
	}
	return os.NewSyscallError("setsockopt IP_RECVERR", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1))
}

func onlyEchoReplies6(fd int) error {
	var block unix.ICMPv6Filter // a set bit blocks
	for i := range block.Data {
		block.Data[i] = ^uint32(0)
	}
	block.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
	if err := unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, icmpv6Filter, &block); err != nil {
		return os.NewSyscallError("setsockopt ICMPV6_FILTER", err)
	}
	return os.NewSyscallError("setsockopt IPV6_RECVERR", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1))
}

// try is an attempt.
func (a *icmpAttempt) try(ctx context.Context) (time.Duration, error) {
	conn, err := a.dialer.DialIP(ctx, a.network, a.source, a.target)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", cause(err))
	}
	defer conn.Close()
	a.seq++
	e := echo{id: a.id, seq: a.seq}
	if _, err := rand.Read(e.token[:]); err != nil {
		return 0, fmt.Errorf("make token: %w", err)
	}
	start := time.Now()
	if err := send(conn, e.request(a.target.Is6())); err != nil {
		return 0, fmt.Errorf("send echo request: %w", cause(err))
	}
	got, why := a.await(ctx, conn, e)
	if got {
		a.why = nil
		return time.Since(start), nil
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return 0, fmt.Errorf("receive echo reply: %w", why)
	}
	return 0, a.silence(why)
}

// silence is the error when no reply came in time, with the reason if the
// network ever told one.
func (a *icmpAttempt) silence(why error) error {
	if why != nil {
		a.why = why
		return fmt.Errorf("no echo reply: %w", why)
	}
	if a.why != nil {
		return fmt.Errorf("no echo reply (earlier: %w)", a.why)
	}
	return errors.New("no echo reply")
}

// send tries twice: the socket may hold an unreachable message that answers
// somebody else's packet to the same target, and tells it instead of sending.
func send(conn *net.IPConn, request []byte) error {
	_, err := conn.Write(request)
	if err != nil {
		_, err = conn.Write(request)
	}
	return err
}

// await reports whether the reply to e came before ctx ended, and the last
// error of the socket. An unreachable message does not end the wait, because it
// may belong to an earlier attempt; it explains why nothing came.
func (a *icmpAttempt) await(ctx context.Context, conn *net.IPConn, e echo) (bool, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1500)
	var last error
	for errs := 0; errs < maxErrors; {
		var got bool
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			got, failed = a.receive(int(fd), e, buf)
			return failed != unix.EAGAIN
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return a.late(raw, e, buf), last
		case err != nil:
			return false, err
		case got:
			return true, nil
		case failed != nil:
			last = failed
			errs++
		}
	}
	return false, last
}

// late looks once more, without waiting: on a busy machine we may wake long
// after both the reply and the deadline, and that is not the target's fault.
func (a *icmpAttempt) late(raw syscall.RawConn, e echo, buf []byte) bool {
	found := false
	_ = raw.Control(func(fd uintptr) {
		for range maxLate {
			got, failed := a.receive(int(fd), e, buf)
			if got || failed == unix.EAGAIN {
				found = got
				return
			}
		}
	})
	return found
}

// receive reads one packet, without waiting, and reports whether it is the
// reply to e.
func (a *icmpAttempt) receive(fd int, e echo, buf []byte) (bool, error) {
	n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err == unix.EINTR {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var addr netip.Addr
	switch s := from.(type) {
	case *unix.SockaddrInet4:
		addr = netip.AddrFrom4(s.Addr)
	case *unix.SockaddrInet6:
		addr = netip.AddrFrom16(s.Addr)
	}
	return addr == a.target.WithZone("") && e.answeredBy(buf[:n], a.target.Is6()), nil
}

// cause is the system's error without the addresses that net puts before it.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
