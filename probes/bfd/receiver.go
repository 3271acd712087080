package bfd

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many packets the receiver reads before others get a turn.
	batch = 64
	// maxDrain is more than a receive buffer holds, so that a flood of packets
	// cannot hide that those of a peer are missing.
	maxDrain = 4096
)

// receiver reads one spot's socket, in a goroutine of its own.
type receiver struct {
	spot  spot
	fd    int
	index uint32 // of the device when the socket was opened
	file  *os.File
	raw   syscall.RawConn
	// handle gets each packet, and when the kernel received it.
	handle        func(r *receiver, b []byte, a arrival, at, now time.Time)
	closing, done chan struct{}

	// reading is held from before a packet leaves the socket until it is handled:
	// who holds it and finds the socket empty knows all that came.
	reading      sync.Mutex
	empty        time.Time // when the socket was last seen empty
	buf, control []byte
}

func startReceiver(s spot, handle func(*receiver, []byte, arrival, time.Time, time.Time)) (*receiver, error) {
	began := time.Now()
	fd, err := openReceiver(s)
	if err != nil {
		return nil, err
	}
	r := &receiver{
		spot: s, fd: fd, index: deviceIndex(fd, s.device), file: os.NewFile(uintptr(fd), "bfd"), handle: handle,
		closing: make(chan struct{}), done: make(chan struct{}),
		empty: began, buf: make([]byte, maxPacketBytes+1), control: make([]byte, controlBytes),
	}
	if r.raw, err = r.file.SyscallConn(); err != nil {
		r.file.Close()
		return nil, err
	}
	go r.run()
	return r, nil
}

// close ends the goroutine. It must not be called by handle.
func (r *receiver) close() {
	close(r.closing)
	_ = r.file.Close()
	<-r.done
}

func (r *receiver) run() {
	defer close(r.done)
	for {
		// Errors of the socket itself, such as of a device that went down, are
		// reported once each and say nothing about packets.
		if err := r.raw.Read(func(fd uintptr) bool { return !r.read(int(fd), batch) }); err == nil {
			continue
		}
		select {
		case <-r.closing:
			return
		case <-time.After(time.Millisecond): // never seen; must not spin
		}
	}
}

// drain handles what has come so far, without waiting.
func (r *receiver) drain() {
	_ = r.raw.Control(func(fd uintptr) { r.read(int(fd), maxDrain) })
}

// read handles up to limit packets and reports whether the socket is empty.
func (r *receiver) read(fd, limit int) bool {
	r.reading.Lock()
	defer r.reading.Unlock()
	for range limit {
		before := time.Now()
		n, a, err := readPacket(fd, r.buf, r.control)
		if err == unix.EAGAIN {
			r.empty = before
			return true
		}
		if err != nil {
			continue
		}
		now := time.Now()
		r.handle(r, r.buf[:n], a, r.arrived(a, now), now)
	}
	return false
}

// arrived is the time of arrival on the clock of now, which no step of the wall
// clock can move before the time when the socket was empty.
func (r *receiver) arrived(a arrival, now time.Time) time.Time {
	if a.wall == 0 {
		return now
	}
	age := time.Duration(now.UnixNano() - a.wall)
	return now.Add(-min(max(age, 0), now.Sub(r.empty)))
}
