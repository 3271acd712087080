package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrClosed is returned by Set after Close.
var ErrClosed = errors.New("bgp speaker is closed")

// Speaker runs one BGP server per network. Its methods may be called from any
// goroutine.
type Speaker struct {
	log    *slog.Logger
	timing timing
	// changed and learned have room for one: changes coalesce while notify runs.
	changed chan struct{}
	// learned is for changed routes, which come in bursts.
	learned chan struct{}
	done    chan struct{}
	wg      sync.WaitGroup

	// setMu serialises Set and Close.
	setMu  sync.Mutex
	closed bool

	// mu guards networks, for moments only.
	mu       sync.Mutex
	networks map[string]*network
}

// New returns a speaker without networks. notify is called when a session's
// state or a learned route changed: never twice at the same time, many changes
// at once, and without holding anything up should it block. While routes pour in
// it waits for the end of the burst, for a second at most.
func New(log *slog.Logger, notify func()) *Speaker {
	return newSpeaker(log, notify, timing{
		prefixBackoff: time.Minute,
		resync:        5 * time.Minute,
		sync:          time.Minute,
	})
}

func newSpeaker(log *slog.Logger, notify func(), t timing) *Speaker {
	s := &Speaker{
		log: log, timing: t, changed: make(chan struct{}, 1), learned: make(chan struct{}, 1), done: make(chan struct{}),
		networks: map[string]*network{},
	}
	s.wg.Go(func() { s.notifier(notify) })
	return s
}

// The first of learned routes is told of at once. What follows it is a burst,
// which is over after burstQuiet without a route, and told of after burstMax in any
// case: every round of who listens goes through all routes.
const (
	burstQuiet = 20 * time.Millisecond
	burstMax   = time.Second
)

// notifier calls notify: at once for changes of sessions, at the end of a burst
// for routes.
func (s *Speaker) notifier(notify func()) {
	var quiet, limit <-chan time.Time
	var last time.Time
	for {
		select {
		case <-s.done:
			return
		case <-s.learned:
			if limit == nil && time.Since(last) > burstMax {
				break
			}
			quiet = time.After(burstQuiet)
			if limit == nil {
				limit = time.After(burstMax)
			}
			continue
		case <-s.changed:
		case <-quiet:
		case <-limit:
		}
		quiet, limit = nil, nil
		notify()
		last = time.Now()
	}
}

func (s *Speaker) burst() {
	select {
	case s.learned <- struct{}{}:
	default:
	}
}

func (s *Speaker) kick() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Set makes the servers what want says, networks not named in it are stopped
// with a Cease. It is idempotent. A network that fails does not keep the others
// from being set; its error, also in State, names it. An invalid configuration
// leaves the network as it was. What failed is tried again by the next Set.
//
// The first Set with a network starts its server, in an order that leaks
// nothing: policies (only Advertise is exported, nothing is taken from one peer
// to another), the prefixes of Advertise, then the peers. Later ones change in
// place; only what is part of a session's OPEN message or its transport resets
// that session.
func (s *Speaker) Set(ctx context.Context, want []Config) error {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	if s.closed {
		return ErrClosed
	}
	configs := map[string][]Config{}
	for _, c := range want {
		configs[c.Network] = append(configs[c.Network], c)
	}
	// First the removals: what comes may need their ports.
	s.stop(func(name string) bool { return len(configs[name]) == 0 }, false)

	var errs []error
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("network %q: %w", name, err))
			continue
		}
		n := s.network(name)
		if len(configs[name]) > 1 {
			errs = append(errs, n.fail(fmt.Errorf("network %q: configured twice", name)))
			continue
		}
		if err := n.apply(configs[name][0]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// network returns the named network, new if need be.
func (s *Speaker) network(name string) *network {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.networks[name]
	if n == nil {
		n = newNetwork(name, s.log, s.kick, s.burst, s.timing)
		s.networks[name] = n
	}
	return n
}

// stop ends the networks chosen, all at the same time.
func (s *Speaker) stop(choose func(name string) bool, graceful bool) {
	s.mu.Lock()
	var stopping []*network
	for name, n := range s.networks {
		if choose(name) {
			stopping = append(stopping, n)
			delete(s.networks, name)
		}
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range stopping {
		wg.Go(func() { n.stop(graceful) })
	}
	wg.Wait()
	if len(stopping) > 0 {
		s.kick()
	}
}

// State returns what is known of every network, sorted by name. It asks nobody
// and blocks for moments only; the routes in it are shared, not to be changed.
func (s *Speaker) State() []State {
	s.mu.Lock()
	networks := slices.Collect(maps.Values(s.networks))
	s.mu.Unlock()
	slices.SortFunc(networks, func(a, b *network) int { return strings.Compare(a.name, b.name) })
	states := make([]State, 0, len(networks))
	for _, n := range networks {
		states = append(states, n.state())
	}
	return states
}

// Close ends all sessions and stops everything that runs. With graceful, peers
// that agreed to graceful restart only see their connection end and keep our
// prefixes while we restart; all others, and all without graceful, get a Cease
// and withdraw them at once.
func (s *Speaker) Close(graceful bool) {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.stop(func(string) bool { return true }, graceful)
	close(s.done)
	s.wg.Wait()
}

// fail records an error that kept a configuration from being applied.
func (n *network) fail(err error) error {
	n.mu.Lock()
	changed := n.err == nil || n.err.Error() != err.Error()
	n.err = err
	n.mu.Unlock()
	if changed {
		n.kick()
	}
	return err
}

func (n *network) state() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	st := State{Network: n.name, Synced: n.synced, Err: n.err, Routes: n.rib.snapshot()}
	for _, addr := range slices.SortedFunc(maps.Keys(n.sessions), netip.Addr.Compare) {
		st.Peers = append(st.Peers, n.sessions[addr].status(n.rib.peers[addr], n.counts))
	}
	return st
}
