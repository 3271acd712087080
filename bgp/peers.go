package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// removePeers ends the sessions that are no longer wanted or not as they are.
func (n *network) removePeers(cfg Config, all bool) []error {
	var errs []error
	for _, addr := range n.peers() {
		s := n.session(addr)
		if s.dynamic() {
			continue // goes with its range
		}
		i := slices.IndexFunc(cfg.Peers, func(p Peer) bool { return p.Address == addr })
		if i >= 0 && !all && sameSession(s.peer, cfg.Peers[i]) {
			continue
		}
		if err := n.removePeer(addr); err != nil {
			errs = append(errs, err)
			continue
		}
		if i < 0 {
			n.mu.Lock()
			delete(n.sessions, addr)
			n.mu.Unlock()
		}
		n.kick()
	}
	return errs
}

// removePeer takes a peer out of the server; its history stays.
func (n *network) removePeer(addr netip.Addr) error {
	s := n.session(addr)
	if s.running {
		if err := n.srv.deletePeer(s.peer, s.secret); err != nil {
			return fmt.Errorf("remove peer %q: %w", addr, err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.down(time.Now())
	s.stopped()
	n.rib.removePeer(addr)
	return nil
}

// applyPeer adds a peer or changes it in place.
func (n *network) applyPeer(p Peer, restarting bool) error {
	s := n.session(p.Address)
	if s == nil {
		s = newSession(p, time.Now())
		n.mu.Lock()
		n.sessions[p.Address] = s
		n.mu.Unlock()
	}
	secret, err := p.password()
	if err != nil {
		n.peerFailed(s, err)
		if !s.running {
			return nil // this peer's trouble alone; the next Set tries again
		}
		secret = s.secret
	}
	n.mu.Lock()
	// A raised limit ends the punishment for the old one, and a session that
	// is down may be set up with the new timer.
	again := !s.suspended.IsZero() && s.peer.MaxPrefixes != p.MaxPrefixes ||
		s.running && s.peer.ConnectRetry != p.ConnectRetry && s.state != established && !s.kept ||
		s.running && s.secret != secret
	suspended := !s.suspended.IsZero()
	if s.running && !again {
		p.ConnectRetry = s.peer.ConnectRetry
	}
	n.mu.Unlock()
	if again {
		if err := n.removePeer(p.Address); err != nil {
			return err
		}
		suspended = false
	}
	n.mu.Lock()
	s.peer, s.secret = p, secret
	n.mu.Unlock()
	n.changeRIB(func() { n.rib.setPeer(p.Address, p.policy(n.cfg.ASN)) })
	n.checkLimit(p.Address)
	if !s.running && !suspended {
		n.setRunning(s, true) // its events may come before addPeer returns
		if err := n.srv.addPeer(p, secret, restarting); err != nil {
			n.setRunning(s, false)
			return fmt.Errorf("add peer %q: %w", p.Address, err)
		}
	}
	return n.applyShutdown(s)
}

func (n *network) setRunning(s *session, running bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.running = running
}

// peerFailed is for what keeps one peer from being set up.
func (n *network) peerFailed(s *session, err error) {
	n.mu.Lock()
	changed := s.fail(err.Error(), time.Now())
	n.mu.Unlock()
	if changed {
		n.log.Warn("bgp peer not as configured", "peer", s.peer.Address, "err", err)
		n.kick()
	}
}

// closed tells whether the session is to be down.
func (p Peer) closed() bool { return p.Shutdown || p.Down != "" }

// applyShutdown shuts a session down (RFC 9003) or lets it come up again.
func (n *network) applyShutdown(s *session) error {
	if s.peer.Down != "" {
		n.mu.Lock()
		s.fail(s.peer.Down, time.Now())
		n.mu.Unlock()
		n.changeRIB(func() { n.rib.clear(s.peer.Address) })
	}
	if s.peer.closed() == s.disabled || !s.running {
		return nil
	}
	var err error
	if s.peer.closed() {
		err = n.srv.disable(s.peer)
	} else {
		err = n.srv.reopen(s.peer, s.secret)
	}
	if err != nil {
		return fmt.Errorf("shut down peer %q (%t): %w", s.peer.Address, s.peer.closed(), err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.disabled = s.peer.closed()
	s.overLimit, s.closing, s.suspended = false, time.Time{}, time.Time{}
	return nil
}

// passwordCheck is how often it is looked whether a peer that is waited for
// fails by its password.
const passwordCheck = 10 * time.Second

// awaitsPassword tells whether the peer is to dial us with a password and does
// not come: what the kernel discards, nobody sees.
func (s *session) awaitsPassword() bool {
	return s.running && s.secret != "" && s.peer.Passive && s.state != established && !s.disabled
}

// checkPasswords notes that segments without the right signature came in. The
// kernel does not say whose.
func (n *network) checkPasswords(now time.Time) {
	n.mu.Lock()
	waiting := false
	for _, s := range n.sessions {
		waiting = waiting || s.awaitsPassword()
	}
	due := waiting && !now.Before(n.passwordDue)
	n.mu.Unlock()
	if !due {
		return
	}
	count := md5Discarded()
	n.mu.Lock()
	changed := false
	for _, s := range n.sessions {
		if s.awaitsPassword() && n.discarded > 0 && count > n.discarded {
			changed = s.fail(passwordHint, now) || changed
		}
	}
	n.discarded, n.passwordDue = max(count, 1), now.Add(passwordCheck)
	n.mu.Unlock()
	if changed {
		n.kick()
	}
}

// Hints for sessions with a password: the kernels of both sides discard what is
// not signed well, and say nothing.
const (
	passwordHint = "segments without the right TCP-MD5 signature were discarded in this network namespace: does the peer have another password, or none?"
	timeoutHint  = "; does the peer have another password, or none?"
)
