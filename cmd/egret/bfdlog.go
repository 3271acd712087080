package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// bfdLogSize bounds the log of the BFD process, and the one before it, in bytes.
const bfdLogSize = 1 << 20

func bfdLogPath(runDir string) string { return filepath.Join(runDir, "bfd.log") }

// boundedLog appends to a file, which becomes FILE.1 when it is full. It is also
// the standard error of the process, so that a crash is in it. The daemon's own is
// no place for a process that outlives it: whoever reads that may have gone.
type boundedLog struct {
	path string
	size int64

	mu   sync.Mutex
	file *os.File
	used int64
}

func openBoundedLog(path string, size int64) (*boundedLog, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	l := &boundedLog{path: path, size: size}
	return l, l.open()
}

func (l *boundedLog) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		err = unix.Dup3(int(f.Fd()), unix.Stderr, 0)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open log %q: %w", l.path, err)
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.used = f, info.Size()
	return nil
}

// Write is for slog. What cannot be written is lost: sessions matter more.
func (l *boundedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used > 0 && l.used+int64(len(b)) > l.size {
		if os.Rename(l.path, l.path+".1") != nil || l.open() != nil {
			// A full or read-only file system: begin anew in what is open.
			_ = l.file.Truncate(0)
			l.used = 0
		}
	}
	n, err := l.file.Write(b)
	l.used += int64(n)
	return n, err
}
