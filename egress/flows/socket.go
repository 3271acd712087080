package flows

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerTimeout bounds the wait for one message of an answer.
	answerTimeout = 30 * time.Second
	// readBuffer takes every datagram: the kernel's are 32 KiB at most.
	readBuffer = 64 << 10
)

// errInterrupted: ctnetlink gives no such notice up to 6.18, but it may.
var errInterrupted = errors.New("the kernel says that a change disturbed the dump")

// A socket speaks with ctnetlink, one exchange at a time.
type socket struct {
	file *os.File
	seq  uint32
	// open: the last exchange was left before its end, so that what is left of its answer
	// has to be read before the next one. A dump costs nothing meanwhile.
	open        bool
	interrupted bool // the answer says that it is not consistent
	buf         []byte
}

// openSocket opens a socket in the network namespace of the calling thread.
func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := prepare(fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &socket{file: os.NewFile(uintptr(fd), "ctnetlink"), buf: make([]byte, readBuffer)}, nil
}

func prepare(fd int) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	// Connected to port 0, the socket takes messages from nobody but the kernel.
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	// An acknowledgement need not repeat the request.
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1))
}

// keep makes every wait end with ctx, until stop is called.
func (s *socket) keep(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = s.file.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !cancel() {
			<-done // else it may end the next user's wait
		}
	}
}

// exchange sends a request of one message and calls each, if not nil, with the
// payloads of the answer. It returns the first error of each, else the kernel's
// verdict. No wait for the kernel is longer than answerTimeout; keep has to be on.
func (s *socket) exchange(ctx context.Context, request message, each func(kind uint16, payload []byte) error) error {
	if s.open {
		if err := s.receive(ctx, nil); s.open {
			return fmt.Errorf("read the rest of an earlier answer: %w", err)
		}
	}
	s.seq++
	binary.NativeEndian.PutUint32(request[8:], s.seq)
	if err := s.extend(ctx); err != nil {
		return err
	}
	if _, err := s.file.Write(request); err != nil {
		return s.explain(ctx, err)
	}
	s.open, s.interrupted = true, false
	return s.receive(ctx, each)
}

// receive reads until the answer to the last request ends or each fails.
func (s *socket) receive(ctx context.Context, each func(uint16, []byte) error) error {
	for {
		if err := s.extend(ctx); err != nil {
			return err
		}
		n, err := s.file.Read(s.buf)
		if err != nil {
			return s.explain(ctx, err)
		}
		if err := s.take(s.buf[:n], each); err != nil || !s.open {
			return err
		}
	}
}

// take goes through one datagram. It does so to its end also when each fails:
// the end of the answer may be in it.
func (s *socket) take(b []byte, each func(uint16, []byte) error) (failed error) {
	for len(b) > 0 {
		h, payload, rest, err := nextMessage(b)
		if err != nil {
			return errors.Join(failed, err)
		}
		b = rest
		if h.seq != s.seq {
			continue
		}
		s.interrupted = s.interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case h.kind == unix.NLMSG_DONE || h.kind == unix.NLMSG_ERROR:
			s.open = false
			failed = cmp.Or(failed, s.verdict(payload))
		case each != nil && failed == nil && h.kind >= unix.NLMSG_MIN_TYPE:
			failed = each(h.kind, payload)
		}
	}
	return failed
}

// verdict reads the message that ends an answer.
func (s *socket) verdict(payload []byte) error {
	if err := ending(payload); err != nil {
		return err
	}
	if s.interrupted {
		return errInterrupted
	}
	return nil
}

// extend gives the kernel another answerTimeout. Should ctx have ended before,
// its deadline is overwritten here, so it is asked after.
func (s *socket) extend(ctx context.Context) error {
	if err := s.file.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	return ctx.Err()
}

func (s *socket) explain(ctx context.Context, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// The kernel answers while we send or read: nothing more can come.
	s.open = false
	return err
}
