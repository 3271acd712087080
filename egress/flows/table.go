package flows

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// cutBuffer bounds the memory for entries that are to be ended, in bytes. They are
// ended when it is full and after the dump: ending entries that the kernel is
// just listing can make it list others twice.
const cutBuffer = 1 << 20

// A Table is the conntrack table of the network namespace it was opened in. Its
// methods may be called at the same time: sweeps wait for each other, Stats does not wait
// for a sweep.
type Table struct {
	log *slog.Logger
	// Who holds a socket may use it; nil is a closed one.
	dumps, control chan *socket
}

// Open opens the network namespace of the calling thread, and fails where
// conntrack cannot be read. Needs CAP_NET_ADMIN, a kernel with nf_conntrack_netlink and ct
// marks, and Linux 4.3 for zones of one direction.
func Open(log *slog.Logger) (*Table, error) {
	t := &Table{log: log, dumps: make(chan *socket, 1), control: make(chan *socket, 1)}
	var errs []error
	for _, place := range []chan *socket{t.dumps, t.control} {
		s, err := openSocket()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		place <- s
	}
	if len(errs) == 0 {
		// Loads the module, too.
		_, err := t.Stats(context.Background())
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		for _, place := range []chan *socket{t.dumps, t.control} {
			if len(place) > 0 {
				err = errors.Join(err, (<-place).file.Close())
			}
		}
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return t, nil
}

// Close waits for what is running. What is called later fails with os.ErrClosed.
func (t *Table) Close() error {
	var errs []error
	for _, place := range []chan *socket{t.dumps, t.control} {
		if s := <-place; s != nil {
			errs = append(errs, s.file.Close())
		}
		place <- nil
	}
	return errors.Join(errs...)
}

// use lets f have a socket alone.
func use(ctx context.Context, place chan *socket, f func(*socket) error) error {
	select {
	case s := <-place:
		defer func() { place <- s }()
		if s == nil {
			return os.ErrClosed
		}
		defer s.keep(ctx)()
		return f(s)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sweep calls judge for every entry with (ct mark & mask) == mark, and ends those it
// says true for; a nil judge only counts. Judge may see an entry twice (see
// Result), and must not call Sweep. An entry's tuple that is
// used anew before the cut is spared, but for one that the kernel put at the same
// place in memory: then a flow that just began has to begin again. Entries that end
// meanwhile are no error.
//
// With an error, Result says what was seen and cut until then (or some more); the
// caller repeats the sweep. An entry that cannot be read is left alone and is such an error, after all the others.
// Memory does not depend on the size of the table.
func (t *Table) Sweep(ctx context.Context, mark, mask uint32, judge func(Flow) bool) (Result, error) {
	if err := CheckFilter(mark, mask); err != nil {
		return Result{}, fmt.Errorf("sweep flows: %w", err)
	}
	s := sweep{table: t, mark: mark, mask: mask, judge: judge}
	err := use(ctx, t.dumps, func(socket *socket) error {
		return socket.exchange(ctx, dumpRequest(mark, mask), answer{each: func(kind uint16, payload []byte) error {
			return s.visit(ctx, kind, payload)
		}})
	})
	err = errors.Join(err, s.cut(ctx))
	if s.unread > 0 {
		err = errors.Join(err, fmt.Errorf("%d entries cannot be read, the first: %w", s.unread, s.unreadErr))
	}
	if s.result.Cut > 0 {
		t.log.Info("flows ended", "mark", fmt.Sprintf("%#x/%#x", mark, mask), "flows", s.result.Cut, "of", s.result.Seen)
	}
	if err != nil {
		err = fmt.Errorf("sweep flows: %w", err)
	}
	return s.result, err
}

// A sweep is one run of Sweep.
type sweep struct {
	table      *Table
	mark, mask uint32
	judge      func(Flow) bool
	result     Result

	victims   message // requests that end entries, one after the other
	unread    int
	unreadErr error
}

// visit takes one message of the dump.
func (s *sweep) visit(ctx context.Context, kind uint16, payload []byte) error {
	if kind != msgNew {
		return nil
	}
	e, err := parseEntry(payload)
	if err != nil {
		if s.unread++; s.unread == 1 {
			s.unreadErr = err
		}
		return nil
	}
	if e.Mark&s.mask != s.mark { // a kernel without this filter lists everything
		return nil
	}
	s.result.Count(e.Mark)
	if s.judge == nil || !s.judge(e.Flow) {
		return nil
	}
	s.victims = appendDelete(s.victims, &e)
	if len(s.victims) >= cutBuffer {
		return s.cut(ctx)
	}
	return nil
}

// cut ends the victims and forgets them.
func (s *sweep) cut(ctx context.Context) error {
	if len(s.victims) == 0 {
		return nil
	}
	defer func() { s.victims = s.victims[:0] }()
	return use(ctx, s.table.control, func(socket *socket) error {
		for b := s.victims; len(b) > 0; {
			size, count := 0, 0
			for ; size < len(b) && count < batch; count++ {
				size += int(binary.NativeEndian.Uint32(b[size:]))
			}
			err := socket.exchange(ctx, b[:size], answer{ended: func(verdict error) error {
				if errors.Is(verdict, unix.ENOENT) {
					count--
					return nil
				}
				return verdict
			}})
			if err != nil {
				return fmt.Errorf("end flow: %w", err)
			}
			s.result.Cut += count
			b = b[size:]
		}
		return nil
	})
}

// Stats reads conntrack's counters.
func (t *Table) Stats(ctx context.Context) (Stats, error) {
	var stats Stats
	err := use(ctx, t.control, func(socket *socket) error {
		for _, request := range []message{statsRequest(), statsCPURequest()} {
			if err := socket.exchange(ctx, request, answer{each: stats.add}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Stats{}, fmt.Errorf("read conntrack counters: %w", err)
	}
	return stats, nil
}
