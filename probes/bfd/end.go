package bfd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// endWait bounds how long End waits: Serve takes closeWait for its farewells.
	endWait = closeWait + 3*time.Second
	// endLook is how often it looks.
	endLook = 20 * time.Millisecond
)

// End ends the process that serves at this path, and waits until it is gone: its
// peers have then been told that the sessions are administratively down. It is
// no error if nobody serves there.
func End(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err == nil {
		defer conn.Close()
		err = writeLine(conn, request{Quit: true})
	}
	if err == nil {
		err = waitFree(ctx, path+".lock")
	}
	if err != nil {
		return fmt.Errorf("end bfd process at %q: %w", path, err)
	}
	return nil
}

// waitFree waits until nobody has the lock that the kernel frees with the process.
func waitFree(ctx context.Context, path string) error {
	lock, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer lock.Close()
	tick := time.NewTicker(endLook)
	defer tick.Stop()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not end: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
