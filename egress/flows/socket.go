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
	// batch bounds the requests of one exchange, so that as many errors fit into the
	// socket's receive buffer (below 1 KiB each, of 208 KiB).
	batch = 64
)

// errInterrupted: ctnetlink gives no such notice up to 6.18, but it may.
var errInterrupted = errors.New("the kernel says that a change disturbed the dump")

// A socket speaks with ctnetlink, one exchange at a time.
type socket struct {
	file *os.File
	// The numbers of the first and the last request of the last exchange.
	first, seq uint32
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

// An answer says what to do with what the kernel answers. Both functions may be
// nil; the first error of either ends the exchange.
type answer struct {
	each  func(kind uint16, payload []byte) error
	ended func(verdict error) error // of one request; nil stands for one that returns the verdict
}

// exchange sends requests, one after the other in one buffer, and reads until the last
// is answered. Requests before the last one that succeed and give nothing are not answered:
// no acknowledgement is asked for. There can be batch of them at most, and a dump has to be
// alone. No wait for the kernel is longer than answerTimeout; keep has to be on.
func (s *socket) exchange(ctx context.Context, requests message, a answer) error {
	if err := s.drain(ctx); err != nil {
		return fmt.Errorf("read the rest of an earlier answer: %w", err)
	}
	first := s.seq + 1
	for b := requests; len(b) > 0; b = b[binary.NativeEndian.Uint32(b):] {
		s.seq++
		binary.NativeEndian.PutUint32(b[8:], s.seq)
		flags := binary.NativeEndian.Uint16(b[6:])
		if int(binary.NativeEndian.Uint32(b)) == len(b) && flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
			binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_ACK)
		}
	}
	if err := s.extend(ctx); err != nil {
		return err
	}
	if _, err := s.file.Write(requests); err != nil {
		return s.explain(ctx, err)
	}
	s.first, s.open, s.interrupted = first, true, false
	return s.receive(ctx, a)
}

// drain reads what is left of an answer.
func (s *socket) drain(ctx context.Context) error {
	if !s.open {
		return nil
	}
	return s.receive(ctx, answer{ended: func(error) error { return nil }})
}

// receive reads until the last request is answered or a function of the answer fails.
func (s *socket) receive(ctx context.Context, a answer) error {
	for {
		if err := s.extend(ctx); err != nil {
			return err
		}
		n, err := s.file.Read(s.buf)
		if err != nil {
			return s.explain(ctx, err)
		}
		if err := s.take(s.buf[:n], a); err != nil || !s.open {
			return err
		}
	}
}

// take goes through one datagram. It does so to its end also after a failure: the
// end of the answer may be in it.
func (s *socket) take(b []byte, a answer) (failed error) {
	for len(b) > 0 {
		h, payload, rest, err := nextMessage(b)
		if err != nil {
			return errors.Join(failed, err)
		}
		b = rest
		if h.seq-s.first > s.seq-s.first { // of an earlier exchange
			continue
		}
		s.interrupted = s.interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case h.kind == unix.NLMSG_DONE || h.kind == unix.NLMSG_ERROR:
			s.open = s.open && h.seq != s.seq
			err := s.verdict(payload)
			if a.ended != nil {
				err = a.ended(err)
			}
			failed = cmp.Or(failed, err)
		case a.each != nil && failed == nil && h.kind >= unix.NLMSG_MIN_TYPE:
			failed = a.each(h.kind, payload)
		}
	}
	return failed
}

// verdict reads the message that ends the answer to one request.
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
