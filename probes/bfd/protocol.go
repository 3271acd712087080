package bfd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Lines of JSON on a unix socket. They may gain fields, and unknown ones are
// ignored: a process outlives the binary that started it.
const (
	protocolVersion = 1
	// maxLine bounds a line: MaxSessions with long names are 3 MB.
	maxLine      = 16 << 20
	writeTimeout = 5 * time.Second
)

// request is what a client says; each line is one of these.
type request struct {
	Hello *clientHello `json:"hello,omitempty"`
	Set   *[]Config    `json:"set,omitempty"`
	// Quit ends the sessions and the process.
	Quit bool `json:"quit,omitempty"`
}

// clientHello is a client's first line.
type clientHello struct {
	Version int `json:"version"`
	// Linger is how long the sessions outlive their last client, 0 for no change.
	Linger time.Duration `json:"linger,omitempty"`
}

// response is what the server says; each line is one of these.
type response struct {
	Hello *serverHello `json:"hello,omitempty"`
	// States are of all sessions: at first, after each Set, and every second.
	States *[]State `json:"states,omitempty"`
	// Changed are sessions whose Status has just changed.
	Changed []State `json:"changed,omitempty"`
	// SetError is what was wrong with the last Set.
	SetError string `json:"setError,omitempty"`
}

// serverHello is the server's first line.
type serverHello struct {
	Version int       `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

func readLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 4096), maxLine)
	return lines
}

func writeLine(c net.Conn, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err = c.Write(append(line, '\n'))
	return err
}

// listen replaces a socket that no process listens on. The lock, which the
// kernel frees with the process, decides between two that start together.
func listen(path string) (net.Listener, *os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, fmt.Errorf("make run directory: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("lock bfd socket: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("lock bfd socket %q: another process serves it: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		lock.Close()
		return nil, nil, fmt.Errorf("remove stale bfd socket: %w", err)
	}
	old := unix.Umask(0o177) // nobody may connect before a chmod
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("listen on bfd socket %q: %w", path, err)
	}
	return l, lock, nil
}
