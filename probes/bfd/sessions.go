package bfd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// closeWait bounds how long Close tells peers good-bye.
const closeWait = 2 * time.Second

// ErrClosed is Set's answer after Close.
var ErrClosed = errors.New("bfd sessions are closed")

// Options are what Sessions need besides Configs.
type Options struct {
	// Log gets the changes of sessions. It must not be nil.
	Log *slog.Logger
	// Notify is called with the state of a session after its Status changed: from
	// a goroutine of its own, at once, never twice at a time, and never while a
	// lock is held. While it blocks, changes of one session become one; their
	// number is in State.Ups and State.Downs. It may be nil.
	Notify func(State)
	// Independent sets bit C in all packets: the sessions outlive the control
	// plane. It has to be true.
	Independent bool
}

// Sessions runs BFD sessions: one goroutine for each receive socket, one for
// all timers, one that calls Notify. Its methods may be called concurrently.
type Sessions struct {
	opts     Options
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	wake     chan struct{} // the timers have to look again
	notified chan struct{} // there are changed sessions

	mu        sync.Mutex
	closed    bool
	sessions  map[string]*session
	byDiscr   map[uint32]*session
	byPeer    map[peerKey][]*session
	receivers map[spot]*receiver
	spotErrs  map[spot]error
	queue     schedule // of sessions and of those that leave
	leaving   int
	gone      chan struct{} // closed when leaving is 0 after Close
	changed   []*session
	due       []*session // of turn
}

// peerKey finds sessions for packets that do not know our discriminator.
type peerKey struct {
	spot spot
	peer netip.Addr // without zone
}

func (s *session) peerKey() peerKey {
	return peerKey{spot: s.spot, peer: s.config.Peer.WithZone("")}
}

// New starts without sessions.
func New(opts Options) *Sessions {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sessions{
		opts: opts, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), notified: make(chan struct{}, 1),
		sessions: map[string]*session{}, byDiscr: map[uint32]*session{}, byPeer: map[peerKey][]*session{},
		receivers: map[spot]*receiver{}, spotErrs: map[spot]error{}, gone: make(chan struct{}),
	}
	s.running.Go(s.timers)
	s.running.Go(s.notifier)
	return s
}

// Set makes exactly want run. A session that did not change goes on
// undisturbed; new intervals are negotiated by a Poll Sequence without leaving
// Up, and so is a new multiplier. A session with another device, address or
// kind begins anew. Peers of removed sessions are told that they are
// administratively down.
//
// Set is total: a Config that is not valid, or the second of a name, is
// reported and does not run; all others do. A socket that cannot be opened is
// no error of Set but State.LastError, and tried again every second.
func (s *Sessions) Set(want []Config) error {
	valid, err := runnable(want)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("set bfd sessions: %w", ErrClosed)
	}
	s.setLocked(time.Now(), valid)
	stale := s.maintain()
	s.mu.Unlock()
	closeAll(stale)
	poke(s.wake)
	return err
}

func (s *Sessions) setLocked(now time.Time, want []Config) {
	keep := make(map[string]bool, len(want))
	for _, c := range want {
		keep[c.Name] = true
	}
	for name, old := range s.sessions {
		if !keep[name] {
			s.remove(now, old)
		}
	}
	for _, c := range want {
		old := s.sessions[c.Name]
		if old != nil && old.config.place() == c.place() {
			s.reconfigure(now, old, c)
			continue
		}
		if old != nil {
			s.remove(now, old)
		}
		s.add(now, c)
	}
}

func (s *Sessions) add(now time.Time, c Config) {
	c = c.clone()
	x := &session{config: c, spot: c.spot(), fd: -1, place: -1, seq: sequence{sent: rand.Uint32()}}
	x.m = newMachine(now, c.params(), s.newDiscriminator(), rand.Float64)
	x.m.independent = s.opts.Independent
	s.sessions[c.Name] = x
	s.byDiscr[x.m.discr] = x
	s.byPeer[x.peerKey()] = append(s.byPeer[x.peerKey()], x)
	s.queue.add(x)
}

func (c Config) clone() Config {
	if c.Auth != nil {
		a := *c.Auth
		c.Auth = &a
	}
	return c
}

func (s *Sessions) newDiscriminator() uint32 {
	for {
		if d := rand.Uint32(); d != 0 && s.byDiscr[d] == nil {
			return d
		}
	}
}

func (s *Sessions) reconfigure(now time.Time, x *session, c Config) {
	was := x.m.status
	before := x.config
	x.config = c.clone()
	if (before.Auth == nil) != (c.Auth == nil) || c.Auth != nil && *before.Auth != *c.Auth {
		x.seq.known = false
	}
	if before.params() != c.params() {
		x.m.configure(now, c.params())
	}
	s.after(x, now, was)
}

// remove forgets a session, and tells the peer if it knows of it.
func (s *Sessions) remove(now time.Time, x *session) {
	x.removed = true
	delete(s.sessions, x.config.Name)
	delete(s.byDiscr, x.m.discr)
	key := x.peerKey()
	s.byPeer[key] = slices.DeleteFunc(s.byPeer[key], func(o *session) bool { return o == x })
	if len(s.byPeer[key]) == 0 {
		delete(s.byPeer, key)
	}
	if x.fd < 0 || x.m.remoteDiscr == 0 || x.m.status == AdminDown {
		s.drop(x)
		return
	}
	gap := min(x.m.interval(), slowInterval/farewells)
	x.m.leave(now)
	x.m.heard = false
	x.m.flush(now, x.send)
	x.leaving, x.gap = farewells-1, gap
	x.m.repeat(now, gap)
	s.leaving++
	s.queue.sooner(x)
}

// drop is the end of a removed session.
func (s *Sessions) drop(x *session) {
	s.queue.remove(x)
	x.close()
}

// after is what follows on every event of a session: s.mu is held.
func (s *Sessions) after(x *session, now time.Time, was Status) {
	x.m.flush(now, x.send)
	if x.m.status != was {
		s.tell(x, was)
	}
	if s.queue.sooner(x) {
		poke(s.wake)
	}
}

// tell logs a change and has Notify called.
func (s *Sessions) tell(x *session, was Status) {
	if x.m.status == Up {
		x.lastErr = ""
	}
	if x.removed {
		return
	}
	silent := time.Duration(0)
	if !x.m.lastRx.IsZero() {
		silent = x.m.since.Sub(x.m.lastRx)
	}
	s.opts.Log.Info("bfd session changed", "session", x.config.Name, "peer", x.config.Peer, "device", x.config.Device,
		"from", was, "to", x.m.status, "diag", x.m.diag, "peer_status", x.m.remoteStatus, "peer_diag", x.m.remoteDiag,
		"silent", silent)
	if !x.dirty {
		x.dirty = true
		s.changed = append(s.changed, x)
	}
	poke(s.notified)
}

// notifier calls Notify, in the order of the changes.
func (s *Sessions) notifier() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.notified:
		}
		s.mu.Lock()
		states := make([]State, 0, len(s.changed))
		for _, x := range s.changed {
			x.dirty = false
			if !x.removed {
				states = append(states, x.state())
			}
		}
		s.changed = s.changed[:0]
		s.mu.Unlock()
		for _, st := range states {
			if s.opts.Notify != nil {
				s.opts.Notify(st)
			}
		}
	}
}

// State is what is known of every session, by name.
func (s *Sessions) State() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]State, 0, len(s.sessions))
	for _, x := range s.sessions {
		st := x.state()
		if err := s.spotErrs[x.spot]; err != nil {
			st.LastError = err.Error()
		}
		states = append(states, st)
	}
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.Name, b.Name) })
	return states
}

// Close ends everything. Unless keep, it first tells the peers that the
// sessions are administratively down, for at most two seconds; with keep
// they notice by themselves, after their detection time, that we are gone.
func (s *Sessions) Close(keep bool) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	if !keep {
		s.setLocked(time.Now(), nil)
	}
	if s.leaving == 0 {
		close(s.gone)
	}
	s.mu.Unlock()
	poke(s.wake)
	select {
	case <-s.gone:
	case <-time.After(closeWait):
	}
	s.cancel()
	s.running.Wait()
	s.mu.Lock()
	var all []*receiver
	for _, r := range s.receivers {
		all = append(all, r)
	}
	for _, x := range s.queue {
		x.close()
	}
	s.queue = nil
	s.mu.Unlock()
	closeAll(all)
	return nil
}

// poke makes the reader of a channel of capacity 1 look again.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
