package flows

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A socket that reads a dump goes on to the datagram's end after a failure: the
// end of the answer may be in it.
func TestTake(t *testing.T) {
	entry := complete(everyProto()[0].message())
	done := appendMessage(nil, unix.NLMSG_DONE, 0, 0).finish(0)
	foreign := appendMessage(nil, unix.NLMSG_ERROR, 0, 0).finish(0)
	with := func(seq uint32, flags uint16, list ...message) (all []byte) {
		for _, m := range list {
			m = bytes.Clone(m)
			binary.NativeEndian.PutUint32(m[8:], seq)
			binary.NativeEndian.PutUint16(m[6:], flags)
			all = append(all, m...)
		}
		return all
	}
	failure := errors.New("enough")
	for _, c := range []struct {
		name  string
		b     []byte
		fail  error
		calls int
		open  bool
		want  error
	}{
		{"entries", with(5, 0, entry, entry), nil, 2, true, nil},
		{"end", with(5, 0, entry, done), nil, 1, false, nil},
		{"failure before the end", with(5, 0, entry, entry, done), failure, 1, false, failure},
		{"failure", with(5, 0, entry, entry), failure, 1, true, failure},
		{"answer to an earlier request", with(4, 0, entry, foreign), nil, 0, true, nil},
		{"interrupted", with(5, unix.NLM_F_DUMP_INTR, entry, done), nil, 1, false, errInterrupted},
		{"truncated", with(5, 0, entry, entry)[:len(entry)+20], nil, 1, true, errShort},
	} {
		s := socket{first: 5, seq: 5, open: true}
		calls := 0
		err := s.take(c.b, answer{each: func(uint16, []byte) error { calls++; return c.fail }})
		if !errors.Is(err, c.want) || calls != c.calls || s.open != c.open {
			t.Errorf("%s: %d calls, open %t, %v", c.name, calls, s.open, err)
		}
	}
}

// Of several requests only those that fail and the last one are answered.
func TestTakeBatch(t *testing.T) {
	s := socket{first: 0xffffffff, seq: 1, open: true} // the numbers wrap
	reply := func(seq uint32, n unix.Errno) message {
		b := message(binary.NativeEndian.AppendUint32(appendMessage(nil, unix.NLMSG_ERROR, 0, 0)[:sizeofHeader], uint32(-int32(n)))).finish(0)
		binary.NativeEndian.PutUint32(b[8:], seq)
		return b
	}
	var verdicts []error
	a := answer{ended: func(err error) error { verdicts = append(verdicts, err); return nil }}
	for _, m := range []message{reply(0xfffffffe, unix.EPERM), reply(0xffffffff, unix.ENOENT), reply(0, unix.EPERM)} {
		if err := s.take(m, a); err != nil || !s.open {
			t.Errorf("open %t, %v", s.open, err)
		}
	}
	if err := s.take(reply(1, 0), a); err != nil || s.open {
		t.Errorf("open %t, %v", s.open, err)
	}
	if want := []error{unix.ENOENT, unix.EPERM, nil}; !slices.Equal(verdicts, want) {
		t.Errorf("got %v, want %v", verdicts, want)
	}
	s.open = true
	if err := s.take(reply(0, unix.EPERM), answer{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("without a function: %v", err)
	}
}

// Where no answer comes, a wait ends with its context, and the socket is good
// for another user.
func TestSilence(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	kernel := os.NewFile(uintptr(fds[1]), "kernel")
	s := &socket{file: os.NewFile(uintptr(fds[0]), "ctnetlink"), buf: make([]byte, readBuffer)}
	defer func() { _, _ = kernel.Close(), s.file.Close() }()
	place := make(chan *socket, 1)
	place <- s
	ask := func(ctx context.Context) error {
		return use(ctx, place, func(s *socket) error { return s.exchange(ctx, statsRequest(), answer{}) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // it may take a while to begin
	defer cancel()
	if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) || !s.open {
		t.Errorf("open %t, %v", s.open, err)
	}
	for _, seq := range []uint32{1, 2} { // late, and in time
		b := append(appendMessage(nil, unix.NLMSG_ERROR, 0, 0)[:sizeofHeader], 0, 0, 0, 0).finish(0)
		binary.NativeEndian.PutUint32(b[8:], seq)
		if _, err := kernel.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(t.Context()); err != nil || s.open {
		t.Errorf("open %t, %v", s.open, err)
	}
}
