package echo

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Client asks nodes for the state of their gateways: all from one goroutine, by
// one socket of each family, in the network namespace of the thread that calls
// NewClient. Its methods may be called by several goroutines.
type Client struct {
	log     *slog.Logger
	sockets [2]*socket // IPv4, IPv6; nil if the kernel has none
	waker   waker
	changes chan struct{}
	done    chan struct{}

	mu     sync.Mutex
	engine *engine
	closed bool
	packet []byte
}

// NewClient opens the sockets and starts. Close ends it.
func NewClient(log *slog.Logger, o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("ask gateways: %w", err)
	}
	c := &Client{log: log, changes: make(chan struct{}, 1), done: make(chan struct{}),
		engine: newEngine(o, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))), packet: make([]byte, 0, maxPacket)}
	if c.waker, err = newWaker(); err != nil {
		return nil, fmt.Errorf("ask gateways: %w", err)
	}
	var errs [2]error
	for i := range c.sockets {
		c.sockets[i], errs[i] = openSocket(i == 0)
	}
	if c.sockets[0] == nil && c.sockets[1] == nil {
		return nil, fmt.Errorf("ask gateways: %w", errors.Join(errs[0], errs[1], unix.Close(c.waker.fd)))
	}
	go c.run()
	return c, nil
}

// Set replaces what is asked. Nodes that stay keep what is known of them.
func (c *Client) Set(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engine.set(targets, time.Now())
	c.tell()
	c.waker.wake()
}

// Changes holds at most one message: that Status may have changed in a verdict, a
// state or its targets since the last.
func (c *Client) Changes() <-chan struct{} { return c.changes }

// Status is what is known of each target, sorted by endpoint.
func (c *Client) Status() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.engine.status()
}

// Close ends the questions and waits until nothing of the Client is left.
func (c *Client) Close() {
	c.mu.Lock()
	already := c.closed
	c.closed = true
	if !already {
		c.waker.wake()
	}
	c.mu.Unlock()
	<-c.done
}

// tell tells of changes. c.mu is held.
func (c *Client) tell() {
	if !c.engine.changed {
		return
	}
	c.engine.changed = false
	select {
	case c.changes <- struct{}{}:
	default: // there is a message already
	}
}

func (c *Client) run() {
	defer close(c.done)
	defer c.closeAll()
	fds := []unix.PollFd{{Fd: int32(c.waker.fd), Events: unix.POLLIN}}
	for _, s := range c.sockets {
		if s != nil {
			fds = append(fds, unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN})
		}
	}
	for {
		d, open := c.round()
		if !open {
			return
		}
		wait(fds, d)
	}
}

// round takes in what has come, then does what is due, and says how long there is
// nothing to do.
func (c *Client) round() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waker.reset()
	// The time is taken before the sockets are looked at: what came before it is
	// seen before anything is said to be late.
	now := time.Now()
	for _, s := range c.sockets {
		if s != nil {
			s.drain(c.engine.answer)
			s.refusals(c.engine.refusal)
		}
	}
	c.engine.due(now, c.send)
	c.tell()
	next := c.engine.next()
	if next.IsZero() {
		return -1, !c.closed
	}
	return max(0, time.Until(next)), !c.closed
}

// send sends a question, and returns when it was about to leave and had left.
func (c *Client) send(to netip.AddrPort, nonce uint64, keys []key) (began, left time.Time) {
	s := c.sockets[1]
	if to.Addr().Is4() {
		s = c.sockets[0]
	}
	began = time.Now()
	if s != nil {
		c.packet = appendRequest(c.packet[:0], nonce, keys)
		if err := s.send(c.packet, to); err != nil {
			c.log.Debug("gateway not asked", "endpoint", to, "err", err)
		}
	}
	return began, time.Now()
}

func (c *Client) closeAll() {
	for _, s := range c.sockets {
		if s != nil {
			_ = unix.Close(s.fd)
		}
	}
	c.mu.Lock() // nobody wakes what is closed
	defer c.mu.Unlock()
	_ = unix.Close(c.waker.fd)
	c.waker.fd = -1
}
