package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// timing are the waits that tests shorten.
type timing struct {
	// prefixBackoff is how long a session stays down after MaxPrefixes.
	prefixBackoff time.Duration
	// resync is how often the mirror of the Adj-RIB-In is compared with GoBGP's.
	resync time.Duration
	// sync bounds the wait for End-of-RIB without graceful restart.
	sync time.Duration
}

// network is one network's speaker. A server runs between start and stop; the
// sessions' histories outlive it.
type network struct {
	name string
	log  *slog.Logger
	// kick tells at once that something changed, burst that routes did.
	kick, burst func()
	// urgent is set when an event of this batch was more than a route.
	urgent atomic.Bool
	timing timing

	// opMu serialises what changes the server: apply, stop and the worker. It is
	// taken before mu, never while mu is held.
	opMu sync.Mutex
	srv  *server
	// cfg, index, rules and local are what srv has; its peers are in sessions.
	cfg   Config
	index int
	rules exportRules
	local map[netip.Prefix]Advertisement
	// ranges are what srv takes sessions from; also guarded by mu.
	ranges map[netip.Prefix]*peerRange
	// started is true once a server of this network ran.
	started    bool
	stopWorker context.CancelFunc
	workerDone chan struct{}

	// mu guards what events and State share; it is held for moments only.
	mu sync.Mutex
	// current is srv for those without opMu, and generation tells its events from
	// those of the servers before.
	current    *server
	generation int
	rib        *rib
	sessions   map[netip.Addr]*session
	counts     [families]int // of local
	err        error
	ready      bool // an apply went through
	synced     bool
	deadline   time.Time // when synced at the latest
	damaged    bool      // an event was lost in a panic
	// discarded is what md5Discarded last said, passwordDue when to ask again.
	discarded   uint64
	passwordDue time.Time
	wake        chan struct{}
}

func newNetwork(name string, log *slog.Logger, kick, burst func(), t timing) *network {
	n := &network{
		name: name, log: log.With("network", name), kick: kick, burst: burst, timing: t,
		local: map[netip.Prefix]Advertisement{}, ranges: map[netip.Prefix]*peerRange{}, rib: newRIB(), sessions: map[netip.Addr]*session{},
		wake: make(chan struct{}, 1), workerDone: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.stopWorker = cancel
	go n.work(ctx)
	return n
}

// apply makes the network what cfg says. What fails is left for the next apply.
func (n *network) apply(cfg Config) error {
	n.opMu.Lock()
	defer n.opMu.Unlock()
	err := n.applyLocked(cfg)
	n.mu.Lock()
	changed := (err == nil) != (n.err == nil) || err != nil && err.Error() != n.err.Error()
	n.err = err
	n.ready = n.ready || err == nil
	n.mu.Unlock()
	n.poke()
	if changed {
		n.kick()
	}
	return err
}

func (n *network) applyLocked(cfg Config) error {
	if errs := cfg.Validate(); len(errs) > 0 {
		return fmt.Errorf("network %q: %w", cfg.Network, errors.Join(errs...))
	}
	cfg = cfg.normalised()
	n.startWaiting(cfg)
	index, err := deviceIndex(cfg.Device)
	if err != nil {
		return fmt.Errorf("network %q: %w", cfg.Network, err)
	}
	// Sockets are bound to a device's index: a device made anew needs new ones.
	if n.srv != nil && (!sameServer(n.cfg, cfg) || n.index != index) {
		n.stopServer(false)
	}
	first := n.srv == nil
	if first {
		if err := n.startServer(cfg, index); err != nil {
			return fmt.Errorf("network %q: %w", cfg.Network, err)
		}
	}
	restarting := first && !n.started && cfg.Restarting && cfg.GracefulRestart != nil
	n.started = true
	resetAll := !sameRestart(n.cfg.GracefulRestart, cfg.GracefulRestart)
	n.srv.restart = cfg.GracefulRestart
	n.cfg = cfg

	errs := append(n.removeRanges(cfg, resetAll), n.removePeers(cfg, resetAll)...)
	n.filter(cfg)
	resend, err := n.applyPolicy(cfg)
	errs = append(errs, err)
	errs = append(errs, n.applyLocal(cfg.Advertise)...)
	for _, p := range cfg.Peers {
		if p.Range.IsValid() {
			errs = append(errs, n.applyRange(p))
		} else {
			errs = append(errs, n.applyPeer(p, restarting))
		}
	}
	for _, addr := range resend {
		errs = append(errs, n.srv.resend(addr))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("network %q: %w", cfg.Network, err)
	}
	return nil
}

func (n *network) startServer(cfg Config, index int) error {
	n.mu.Lock()
	n.generation++
	generation := n.generation
	n.mu.Unlock()
	srv, err := startServer(cfg, n.log.Handler(), n.note, n.events(generation))
	if err != nil {
		return err
	}
	n.srv, n.index, n.cfg = srv, index, cfg
	n.mu.Lock()
	n.current = srv
	n.mu.Unlock()
	return nil
}

// startWaiting sets the latest time of Synced at the first apply.
func (n *network) startWaiting(cfg Config) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.deadline.IsZero() {
		return
	}
	wait := n.timing.sync
	if cfg.GracefulRestart != nil {
		wait = cfg.GracefulRestart.RestartTime
	}
	n.deadline = time.Now().Add(wait)
}

func deviceIndex(device string) (int, error) {
	if device == "" {
		return 0, nil
	}
	link, err := net.InterfaceByName(device)
	if err != nil {
		return 0, fmt.Errorf("find device %q: %w", device, err)
	}
	return link.Index, nil
}

// filter puts the prefixes that nobody may announce in force.
func (n *network) filter(cfg Config) {
	never := slices.Clone(cfg.Reject)
	for _, a := range cfg.Advertise {
		never = append(never, a.Prefix)
	}
	n.changeRIB(func() { n.rib.setNever(never) })
}

// stopServer ends the server. Everything about it is forgotten but the
// sessions' histories.
func (n *network) stopServer(graceful bool) {
	if n.srv == nil {
		return
	}
	n.mu.Lock()
	n.generation++
	n.current = nil
	n.mu.Unlock()
	n.srv.stop(graceful)
	n.srv, n.rules = nil, exportRules{}
	clear(n.local)
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, s := range n.sessions {
		s.down(time.Now())
		s.stopped()
		n.rib.removePeer(addr)
		if s.dynamic() {
			delete(n.sessions, addr)
		}
	}
	clear(n.ranges)
	n.counts = [families]int{}
}

// stop ends the network for good.
func (n *network) stop(graceful bool) {
	n.stopWorker()
	<-n.workerDone
	n.opMu.Lock()
	defer n.opMu.Unlock()
	n.stopServer(graceful)
}
