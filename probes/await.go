package probes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	errNothing = errors.New("nothing came")
	errLate    = errors.New("it came too late")
)

// socket is a socket of one attempt that a goroutine waits for.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

// newSocket makes a socket bound to device and source.
func newSocket(family, kind int, device string, source netip.Addr, options ...func(fd int) error) (*socket, error) {
	fd, err := openSocket(family, kind, 0, device, source, options...)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "probe")}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return s, nil
}

func (s *socket) close() { _ = s.file.Close() }

// connect begins a connection, or sets where a datagram socket sends to.
func (s *socket) connect(to netip.AddrPort) error {
	var err error
	ctl := s.raw.Control(func(fd uintptr) {
		var a unix.Sockaddr
		if a, err = sockaddr(int(fd), to); err == nil {
			err = unix.Connect(int(fd), a)
		}
	})
	if err == unix.EINPROGRESS {
		err = nil
	}
	return errors.Join(ctl, err)
}

// wait calls check whenever the socket may be ready, until it says so or fails
// with anything but EAGAIN, or ctx ends, or the deadline comes. Then it calls it
// once more: on a busy machine we may wake long after both the answer and the
// deadline, and that is not the target's fault. check decides whether it came in
// time.
func (s *socket) wait(ctx context.Context, deadline time.Time, write bool, check func(fd int) error) error {
	if err := s.file.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	wait := s.raw.Read
	if write {
		wait = s.raw.Write
	}
	var failed error
	err := wait(func(fd uintptr) bool {
		failed = check(int(fd))
		return failed != unix.EAGAIN
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = s.raw.Control(func(fd uintptr) { failed = check(int(fd)) })
		if failed == unix.EAGAIN {
			failed = errNothing
		}
	}
	if err != nil {
		return err
	}
	return failed
}
