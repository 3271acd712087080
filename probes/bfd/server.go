package bfd

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultLinger is how long the sessions of a server outlive their last
	// client. They tell the truth as long as the kernel forwards, which it does
	// without the daemon; but nobody cares for a data plane whose daemon does not
	// come back. It has to be longer than the restart time of BGP.
	DefaultLinger = 5 * time.Minute

	maxClients    = 16
	statesPeriod  = time.Second
	maxPending    = 64 // responses
	acceptBackoff = 100 * time.Millisecond
)

// ServerOptions are for Serve.
type ServerOptions struct {
	// Path is the unix socket. Only its owner may connect.
	Path string
	Log  *slog.Logger
	// Linger is DefaultLinger if 0; each client may change it.
	Linger time.Duration
}

// Serve runs sessions for clients on a socket: a process of its own that goes
// on when its client ends, restarts or is killed. It returns when ctx ends, when
// a client asks for it, or when there was no client for the time Linger; the
// peers are then told that the sessions are administratively down.
func Serve(ctx context.Context, opts ServerOptions) error {
	l, lock, err := listen(opts.Path)
	if err != nil {
		return err
	}
	defer lock.Close()
	v := &server{log: opts.Log, started: time.Now(), linger: opts.Linger, clients: map[*serverConn]bool{}}
	if v.linger == 0 {
		v.linger = DefaultLinger
	}
	ctx, v.quit = context.WithCancel(ctx)
	defer v.quit()
	v.sessions = New(Options{Log: opts.Log, Notify: v.broadcast, Independent: true})
	v.lonely = time.AfterFunc(v.linger, v.abandon)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	v.running.Go(func() { v.publish(ctx) })
	err = v.accept(ctx, l)
	v.quit()
	v.lonely.Stop()
	closed := v.sessions.Close(false)
	v.hangUp()
	v.running.Wait()
	if err != nil {
		return fmt.Errorf("serve bfd socket %q: %w", opts.Path, err)
	}
	return closed
}

type server struct {
	log      *slog.Logger
	started  time.Time
	sessions *Sessions
	quit     context.CancelFunc
	running  sync.WaitGroup

	mu      sync.Mutex
	clients map[*serverConn]bool
	linger  time.Duration
	lonely  *time.Timer // runs while there is no client
}

// abandon ends the server.
func (v *server) abandon() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.clients) == 0 {
		v.log.Warn("no client of the bfd sessions came back: ending them", "linger", v.linger)
		v.quit()
	}
}

func (v *server) accept(ctx context.Context, l net.Listener) error {
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			// Such as no file descriptors: the sessions must not end for that.
			v.log.Error("accept client of bfd sessions", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptBackoff):
			}
			continue
		}
		v.join(c)
	}
}

// join serves a client in two goroutines, which end with its connection.
func (v *server) join(c net.Conn) {
	x := &serverConn{conn: c, pending: make(chan response, maxPending), done: make(chan struct{})}
	v.mu.Lock()
	full := len(v.clients) == maxClients
	if !full {
		v.clients[x] = true
		v.lonely.Stop()
		x.queue(response{Hello: &serverHello{Version: protocolVersion, PID: os.Getpid(), Started: v.started}})
		v.tell(response{}, x)
	}
	v.mu.Unlock()
	if full {
		v.log.Warn("too many clients of the bfd sessions", "most", maxClients)
		c.Close()
		return
	}
	v.running.Go(x.write)
	v.running.Go(func() {
		v.read(x)
		v.leave(x)
	})
}

func (v *server) leave(x *serverConn) {
	x.hangUp()
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.clients, x)
	if len(v.clients) == 0 {
		v.lonely.Reset(v.linger)
	}
}

// read carries out a client's requests.
func (v *server) read(x *serverConn) {
	lines := readLines(x.conn)
	for lines.Scan() {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			v.log.Warn("client of the bfd sessions is not understood", "err", err)
			return
		}
		if q.Hello != nil && q.Hello.Linger > 0 {
			v.mu.Lock()
			v.linger = q.Hello.Linger
			v.mu.Unlock()
		}
		if q.Set != nil {
			var answer response
			if err := v.sessions.Set(*q.Set); err != nil {
				answer.SetError = err.Error()
			}
			v.mu.Lock()
			v.tell(answer, x)
			v.mu.Unlock()
		}
		if q.Quit {
			v.quit()
			return
		}
	}
}

// broadcast is Sessions' Notify.
func (v *server) broadcast(st State) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for x := range v.clients {
		x.queue(response{Changed: []State{st}})
	}
}

// tell adds all states to a response. v.mu is held, so that no change is told
// between the look and the word, which would then be older.
func (v *server) tell(r response, to ...*serverConn) {
	states := v.sessions.State()
	r.States = &states
	for _, x := range to {
		x.queue(r)
	}
}

// publish tells the counters, too, from time to time.
func (v *server) publish(ctx context.Context) {
	tick := time.NewTicker(statesPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v.mu.Lock()
		if len(v.clients) > 0 {
			v.tell(response{}, slices.Collect(maps.Keys(v.clients))...)
		}
		v.mu.Unlock()
	}
}

func (v *server) hangUp() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for x := range v.clients {
		x.hangUp()
	}
}

// serverConn is a client's connection. One that does not read what it is told
// is hung up on; it may come back.
type serverConn struct {
	conn    net.Conn
	pending chan response
	once    sync.Once
	done    chan struct{}
}

func (x *serverConn) hangUp() {
	x.once.Do(func() {
		close(x.done)
		x.conn.Close()
	})
}

func (x *serverConn) queue(r response) {
	select {
	case x.pending <- r:
	default:
		x.hangUp()
	}
}

func (x *serverConn) write() {
	for {
		select {
		case <-x.done:
			return
		case r := <-x.pending:
			if err := writeLine(x.conn, r); err != nil {
				x.hangUp()
				return
			}
		}
	}
}
