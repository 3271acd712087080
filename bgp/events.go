package bgp

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// closeWait is how long a session that is closed for too many prefixes may take.
const closeWait = 5 * time.Second

func (n *network) session(addr netip.Addr) *session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions[addr]
}

func (n *network) peers() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Keys(n.sessions), netip.Addr.Compare)
}

// poke wakes the worker.
func (n *network) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// changeRIB runs f on the rib and tells the owner if that changed something.
func (n *network) changeRIB(f func()) {
	n.mu.Lock()
	before := n.acceptedLocked()
	f()
	changed := len(n.rib.dirty) > 0 || before != n.acceptedLocked()
	n.mu.Unlock()
	if changed {
		n.kick()
	}
}

func (n *network) acceptedLocked() int {
	sum := 0
	for _, in := range n.rib.peers {
		sum += in.accepted
	}
	return sum
}

// events are the callbacks for a server. Those of one that was stopped still
// come for a moment and must not be taken for its successor's.
func (n *network) events(generation int) events {
	return events{
		path: func(peer netip.Addr, k pathKey, c candidate, withdrawn bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			switch {
			case n.generation != generation:
			case withdrawn:
				n.rib.withdraw(peer, k)
			default:
				n.rib.announce(peer, k, c)
			}
		},
		endOfRIB: func(peer netip.Addr, f family) { n.endOfRIB(generation, peer, f) },
		session:  func(e sessionEvent) { n.sessionChanged(generation, e) },
		done:     n.eventsDone,
	}
}

func (n *network) eventsDone(err error) {
	if err != nil {
		n.log.Error("bgp event lost", "err", err)
		n.mu.Lock()
		n.damaged = true
		n.mu.Unlock()
		n.poke()
	}
	for _, addr := range n.peers() {
		n.checkLimit(addr)
	}
	if err != nil || n.urgent.Swap(false) {
		n.kick()
	} else {
		n.burst()
	}
}

// endOfRIB also lists the peer's paths: GoBGP drops the stale ones of a peer
// that restarted right after this event, and tells nobody.
func (n *network) endOfRIB(generation int, peer netip.Addr, f family) {
	n.mu.Lock()
	s := n.sessions[peer]
	current := n.generation == generation && s != nil
	if current {
		s.endOfRIB[f] = true
	}
	n.mu.Unlock()
	if current {
		n.urgent.Store(true)
		n.resync(peer)
		n.poke()
	}
}

func (n *network) sessionChanged(generation int, e sessionEvent) {
	n.mu.Lock()
	s := n.sessions[e.peer]
	if s == nil && n.generation == generation {
		s = n.newDynamicLocked(e)
	}
	if n.generation != generation || s == nil || !s.running {
		n.mu.Unlock()
		return
	}
	n.urgent.Store(true)
	was, since := s.state, s.since
	// Beyond the restart time GoBGP marks the paths as stale and tells nobody; it
	// tells when it drops them.
	stale := e.expired && s.longLived
	e.kept = e.kept || stale
	s.apply(e)
	if e.state == "idle" && !e.kept {
		n.rib.clear(e.peer)
	}
	state, lastErr := s.state, s.lastErr
	n.mu.Unlock()
	if stale {
		n.resync(e.peer)
	}
	switch {
	case state == was:
	case state == established:
		n.log.Info("bgp session up", "peer", e.peer)
	case was == established:
		n.log.Warn("bgp session down", "peer", e.peer, "err", lastErr, "lasted", e.at.Sub(since).Round(time.Second))
	}
	n.poke()
}

// note is called for errors found in the log, from any goroutine.
func (n *network) note(peer netip.Addr, text string, at time.Time) {
	n.mu.Lock()
	s := n.sessions[peer]
	if s != nil && s.secret != "" && strings.HasPrefix(text, "connect: ") && strings.HasSuffix(text, "i/o timeout") {
		text += timeoutHint
	}
	changed := s != nil && s.running && s.fail(text, at)
	n.mu.Unlock()
	if changed {
		n.kick()
	}
}

// resync compares the mirror of a peer's Adj-RIB-In with GoBGP's. It gives up
// where events come in faster than it can list; the next one will do.
func (n *network) resync(peer netip.Addr) {
	for range 3 {
		n.mu.Lock()
		srv, s, version := n.current, n.sessions[peer], n.rib.version(peer)
		var fs [families]bool
		// A session that is down has no paths, but for those kept in a restart.
		alive := srv != nil && s != nil && s.running && (s.state == established || s.kept)
		if alive {
			fs = [families]bool{s.peer.IPv4, s.peer.IPv6}
		}
		n.mu.Unlock()
		if !alive {
			return
		}
		listing, err := srv.adjIn(peer, fs)
		if err != nil {
			return
		}
		done := false
		n.changeRIB(func() { done = n.rib.replace(peer, version, listing) })
		if done {
			return
		}
	}
}

// work does what must wait: it ends the wait for End-of-RIB, closes sessions
// with too many prefixes and lets them come back, and repairs the mirror.
func (n *network) work(ctx context.Context) {
	defer close(n.workerDone)
	timer := time.NewTimer(n.timing.resync)
	defer timer.Stop()
	next := time.Now().Add(n.timing.resync)
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-timer.C:
		}
		n.checkSynced()
		n.pruneDynamic(time.Now())
		n.enforceLimits()
		n.checkPasswords(time.Now())
		if now := time.Now(); n.takeDamage() || !now.Before(next) {
			for _, addr := range n.peers() {
				n.resync(addr)
			}
			next = now.Add(n.timing.resync)
		}
		timer.Reset(max(time.Until(n.nextDue(next)), 0))
	}
}

func (n *network) takeDamage() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.damaged
	n.damaged = false
	return was
}

// nextDue is when the worker has to look again, at the latest at limit.
func (n *network) nextDue(limit time.Time) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	due := limit
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(due) {
			due = t
		}
	}
	if !n.synced {
		earlier(n.deadline)
	}
	for _, s := range n.sessions {
		earlier(s.closing)
		earlier(s.suspended)
		if s.dynamic() && s.state != established && !s.kept {
			earlier(s.since.Add(dynamicPatience + time.Second))
		}
		if s.awaitsPassword() {
			earlier(n.passwordDue)
		}
	}
	return due
}

// checkSynced latches State.Synced.
func (n *network) checkSynced() {
	n.mu.Lock()
	if n.synced || n.deadline.IsZero() {
		n.mu.Unlock()
		return
	}
	all := n.ready
	for _, s := range n.sessions {
		all = all && s.synced()
	}
	n.synced = all || !time.Now().Before(n.deadline)
	changed := n.synced
	n.mu.Unlock()
	if changed {
		n.kick()
	}
}
