package probes

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tickSlack is how coarse the kernel's time of the last acknowledgement is: a
// jiffy, at 100 Hz.
const tickSlack = 10 * time.Millisecond

// tcpAttempt opens a connection and aborts it: with a reset nothing of it stays
// on either side, where hundreds of targets would else leave tens of thousands
// of connections in TIME_WAIT.
type tcpAttempt struct {
	device string
	source netip.Addr
	to     netip.AddrPort
	family int
}

// newTCPAttempt is for a valid Config.
func newTCPAttempt(c Config, t Target) *tcpAttempt {
	return &tcpAttempt{device: c.Device, source: c.source(t), to: t.Endpoint, family: familyOf(t.Endpoint.Addr())}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// try is an attempt.
func (a *tcpAttempt) try(ctx context.Context, timeout time.Duration) (time.Duration, error) {
	s, err := newSocket(a.family, unix.SOCK_STREAM, a.device, a.source, abort)
	if err != nil {
		return 0, err
	}
	defer s.close()
	start := time.Now()
	if err := s.connect(a.to); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	deadline := time.Now().Add(timeout)
	var rtt time.Duration
	err = s.wait(ctx, deadline, true, func(fd int) error {
		var failed error
		rtt, failed = established(fd, start, deadline)
		return failed
	})
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	return rtt, nil
}

// abort makes close send a reset.
func abort(fd int) error {
	return os.NewSyscallError("setsockopt SO_LINGER", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
}

// established says how long the handshake took: EAGAIN while it goes on. What
// counts is when the kernel got the answer, not when we were told.
func established(fd int, start, deadline time.Time) (time.Duration, error) {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	if code != 0 {
		return 0, unix.Errno(code)
	}
	if _, err := unix.Getpeername(fd); err == unix.ENOTCONN {
		return 0, unix.EAGAIN
	} else if err != nil {
		return 0, os.NewSyscallError("getpeername", err)
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt TCP_INFO", err)
	}
	now := time.Now()
	// The kernel has measured the handshake, unless it had to ask twice.
	if rtt := time.Duration(info.Rtt) * time.Microsecond; rtt > 0 && info.Total_retrans == 0 {
		now = start.Add(rtt)
	} else {
		now = now.Add(-time.Duration(info.Last_ack_recv) * time.Millisecond)
	}
	if now.After(deadline.Add(tickSlack)) {
		return 0, errLate
	}
	return max(1, now.Sub(start)), nil
}
