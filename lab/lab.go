package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A Lab is a set of namespaces with the processes in them. Its methods may be
// called from several goroutines.
type Lab struct {
	// ID is the prefix of the names of the lab's namespaces in /run/netns.
	ID string
	// Dir holds the lab's files, which its namespaces see at the same path. Close removes it.
	Dir string

	ctx context.Context
	log *slog.Logger
	tb  testing.TB // nil outside of tests

	mu     sync.Mutex
	spaces []*NS
	procs  []*Proc
	defers []func() error
	closed bool
}

// New returns an empty lab that is closed when the test ends. If the test
// failed, what its processes wrote last is logged. Call Require first.
func New(tb testing.TB) *Lab {
	tb.Helper()
	// A test's cleanup functions, when its context has ended, may still run commands.
	l, err := Start(context.WithoutCancel(tb.Context()), slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatalf("start lab: %v", err)
	}
	l.tb = tb
	tb.Cleanup(func() {
		if tb.Failed() {
			l.WriteLogs(tbWriter{tb}, 60)
		}
		if err := l.Close(); err != nil {
			tb.Errorf("close lab: %v", err)
		}
	})
	return l
}

// tbWriter is a test's log as a writer.
type tbWriter struct{ tb testing.TB }

func (w tbWriter) Write(p []byte) (int, error) {
	w.tb.Helper()
	w.tb.Logf("%s", strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// counter distinguishes the labs of one process.
var counter atomic.Uint32

// Start returns an empty lab outside of a test. When the context ends, what
// runs commands or waits fails, but the lab stays: the caller closes it. It needs root.
func Start(ctx context.Context, log *slog.Logger) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab of network namespaces needs root")
	}
	if err := removeStale(); err != nil {
		log.Warn("cannot remove what an earlier lab left behind", "err", err)
	}
	id := fmt.Sprintf("%s%d-%d", idPrefix, os.Getpid(), counter.Add(1))
	dir := filepath.Join(os.TempDir(), id)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create lab: %w", err)
	}
	return &Lab{ID: id, Dir: dir, ctx: ctx, log: log}, nil
}

// Namespaces returns the lab's namespaces in the order of their creation.
func (l *Lab) Namespaces() []*NS {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.spaces)
}

// Defer makes Close call a function first, before it kills processes: for
// what this process itself runs in the namespaces. The last deferred comes first.
func (l *Lab) Defer(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.defers = append(l.defers, f)
}

// Close kills every process in the lab's namespaces, deletes the namespaces and removes the
// lab's files. It is idempotent.
func (l *Lab) Close() error {
	l.mu.Lock()
	procs, spaces, defers, was := l.procs, l.spaces, l.defers, l.closed
	l.procs, l.spaces, l.defers, l.closed = nil, nil, nil, true
	l.mu.Unlock()
	if was {
		return nil
	}
	var errs []error
	for _, f := range slices.Backward(defers) {
		errs = append(errs, f())
	}
	for _, p := range slices.Backward(procs) {
		p.kill()
	}
	for _, ns := range slices.Backward(spaces) {
		errs = append(errs, ns.close())
	}
	errs = append(errs, os.RemoveAll(l.Dir))
	return errors.Join(errs...)
}

// WriteLogs writes the last lines of what each process has written.
func (l *Lab) WriteLogs(w io.Writer, lines int) {
	l.mu.Lock()
	procs := slices.Clone(l.procs)
	l.mu.Unlock()
	for _, p := range procs {
		fmt.Fprintf(w, "--- %s in %s (%s), last %d lines\n%s\n", p.Name, p.ns.Name, p.state(), lines, tail(p.Log(), lines))
	}
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

const (
	idPrefix = "eglab"
	netnsDir = "/run/netns"
)

// removeStale deletes the names and files of labs whose process is gone.
func removeStale() error {
	var errs []error
	for _, dir := range []string{netnsDir, os.TempDir()} {
		paths, err := filepath.Glob(filepath.Join(dir, idPrefix+"*-*"))
		errs = append(errs, err)
		for _, path := range paths {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), idPrefix), "-")
			n, err := strconv.Atoi(pid)
			if err != nil || n == os.Getpid() || unix.Kill(n, 0) == nil {
				continue
			}
			_ = unix.Unmount(path, unix.MNT_DETACH) // not a mount point if it is a lab's directory
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}
