package bfd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	dialTimeout = 2 * time.Second
	// Pauses between attempts to reach the server.
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Second
)

// ClientOptions are for NewClient.
type ClientOptions struct {
	// Path is the server's unix socket.
	Path string
	Log  *slog.Logger
	// Notify is as in Options. It is also called for the sessions that are found
	// when the server is reached, if they are not as they were known.
	Notify func(State)
	// Linger is how long the server goes on without a client: 0 leaves it as it is.
	Linger time.Duration
	// Start is called when nobody answers at Path, and has to start a process
	// that calls Serve; see Spawn. It may be nil.
	Start func() error
}

// Client has the methods of Sessions, for sessions that a server runs. It
// connects by itself, again and again, and then makes the server run what Set
// wanted last. Until Set is called, the sessions of the server are left alone.
type Client struct {
	opts    ClientOptions
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// changed holds at most one pending request of the notifier, outgoing one of
	// the writer.
	changed, outgoing chan struct{}

	mu     sync.Mutex
	conn   net.Conn // nil while not connected
	want   []Config
	isSet  bool
	linger time.Duration
	states map[string]State
	news   []string // names whose change Notify has not been told
	closed bool
}

// NewClient starts to connect.
func NewClient(opts ClientOptions) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{opts: opts, linger: opts.Linger, ctx: ctx, cancel: cancel, changed: make(chan struct{}, 1), outgoing: make(chan struct{}, 1),
		states: map[string]State{}}
	c.running.Go(c.run)
	c.running.Go(c.notifier)
	return c
}

// Spawn starts a program in a session of its own, so that signals for this
// process do not reach it. It does not take it out of a control group: a service
// manager that kills the whole group needs another unit for it.
func Spawn(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %q: %w", name, err)
	}
	go func() { _ = cmd.Wait() }() // so that no zombie stays
	return nil
}

// Set is as of Sessions, but does not wait for the server: what is not valid is
// reported at once, the rest is sent as soon as the server is reached.
func (c *Client) Set(want []Config) error {
	valid, err := runnable(want)
	for i := range valid {
		valid[i] = valid[i].clone()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("set bfd sessions: %w", ErrClosed)
	}
	c.want, c.isSet = valid, true
	poke(c.outgoing)
	return err
}

// SetLinger changes how long the server goes on without a client; 0 leaves it as
// it is.
func (c *Client) SetLinger(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = d
	poke(c.outgoing)
}

// write sends what Set wants to one connection, until that ends.
func (c *Client) write(ctx context.Context, conn net.Conn) {
	defer conn.Close() // the reader ends, too
	told := time.Duration(-1)
	for {
		c.mu.Lock()
		want, isSet, linger := c.want, c.isSet, c.linger
		c.mu.Unlock()
		if linger != told {
			if writeLine(conn, request{Hello: &clientHello{Version: protocolVersion, Linger: linger}}) != nil {
				return
			}
			told = linger
		}
		if want == nil {
			want = []Config{} // not null, which would be no Set
		}
		if isSet && writeLine(conn, request{Set: &want}) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-c.outgoing:
		}
	}
}

// State is what is known of every wanted session, by name, at most a second
// old; changes of Status are known at once. While the server does not answer,
// or has not told about a session, its state is Stale.
func (c *Client) State() []State {
	c.mu.Lock()
	defer c.mu.Unlock()
	states := make([]State, 0, len(c.states))
	for _, st := range c.states {
		if !c.isSet {
			st.Stale = c.conn == nil
			states = append(states, st)
		}
	}
	for _, w := range c.want {
		st, known := c.states[w.Name]
		if !known {
			st = State{Name: w.Name, Status: Down}
		}
		st.Stale = !known || c.conn == nil
		states = append(states, st)
	}
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.Name, b.Name) })
	return states
}

// Close ends the connection. With keep the sessions go on without us, for the
// time Linger; otherwise they and the server end, if it can be reached.
func (c *Client) Close(keep bool) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	conn := c.conn
	c.mu.Unlock()
	var err error
	if conn != nil {
		if !keep {
			err = writeLine(conn, request{Quit: true})
		}
		c.cancel() // first, so that the reader knows that nothing was lost
		conn.Close()
	}
	c.cancel()
	c.running.Wait()
	if err != nil {
		return fmt.Errorf("end bfd sessions: %w", err)
	}
	return nil
}

// run connects until Close.
func (c *Client) run() {
	retry := firstRetry
	for c.ctx.Err() == nil {
		d := net.Dialer{Timeout: dialTimeout}
		conn, err := d.DialContext(c.ctx, "unix", c.opts.Path)
		if err == nil {
			began := time.Now()
			c.serve(conn)
			if time.Since(began) > lastRetry {
				retry = firstRetry
			}
		} else if c.opts.Start != nil && c.ctx.Err() == nil {
			if err := c.opts.Start(); err != nil {
				c.opts.Log.Error("cannot start the bfd process", "err", err)
			}
		}
		select {
		case <-c.ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// serve reads from one connection to its end.
func (c *Client) serve(conn net.Conn) {
	ctx, cancel := context.WithCancel(c.ctx)
	var writer sync.WaitGroup
	writer.Go(func() { c.write(ctx, conn) })
	defer func() {
		cancel()
		conn.Close()
		writer.Wait()
		c.mu.Lock()
		c.conn = nil
		c.mu.Unlock()
	}()
	lines := readLines(conn)
	for lines.Scan() {
		var r response
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			c.opts.Log.Warn("bfd process is not understood", "err", err)
			return
		}
		if !c.hear(conn, r) {
			return
		}
	}
	if c.ctx.Err() == nil {
		c.opts.Log.Warn("lost the bfd process", "err", lines.Err())
	}
}

// hear takes over a response and reports whether to go on.
func (c *Client) hear(conn net.Conn, r response) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if r.Hello != nil {
		c.opts.Log.Debug("reached the bfd process", "pid", r.Hello.PID, "started", r.Hello.Started)
		c.conn = conn
	}
	if r.SetError != "" {
		c.opts.Log.Error("bfd process refuses sessions", "err", r.SetError)
	}
	if r.States != nil {
		c.learn(*r.States)
		known := make(map[string]bool, len(*r.States))
		for _, st := range *r.States {
			known[st.Name] = true
		}
		for name := range c.states {
			if !known[name] {
				delete(c.states, name)
			}
		}
	}
	c.learn(r.Changed)
	return true
}

// learn keeps states, and has Notify called for what changed.
func (c *Client) learn(states []State) {
	for _, st := range states {
		was, known := c.states[st.Name]
		c.states[st.Name] = st
		if known && was.Status == st.Status && was.Since.Equal(st.Since) {
			continue
		}
		if !slices.Contains(c.news, st.Name) {
			c.news = append(c.news, st.Name)
		}
		poke(c.changed)
	}
}

func (c *Client) notifier() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.changed:
		}
		c.mu.Lock()
		news := c.news
		c.news = nil
		var states []State
		for _, name := range news {
			if st, known := c.states[name]; known {
				states = append(states, st)
			}
		}
		c.mu.Unlock()
		for _, st := range states {
			if c.opts.Notify != nil {
				c.opts.Notify(st)
			}
		}
	}
}
