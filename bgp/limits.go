package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// checkLimit warns about a peer with many prefixes, and has the worker close the
// session of one with too many.
func (n *network) checkLimit(peer netip.Addr) {
	n.mu.Lock()
	s := n.sessions[peer]
	if s == nil || s.peer.MaxPrefixes == 0 || s.overLimit || !s.running {
		n.mu.Unlock()
		return
	}
	count := 0
	if in := n.rib.peers[peer]; in != nil {
		count = max(in.count[ipv4], in.count[ipv6])
	}
	warning, level := s.peer.prefixWarning(count)
	warn := level > s.warned
	s.warned = level
	if count > int(s.peer.MaxPrefixes) && !s.peer.MaxPrefixesWarnOnly {
		s.overLimit = true
		n.poke()
	}
	n.mu.Unlock()
	if warn {
		n.log.Warn("bgp prefix limit", "peer", peer, "warning", warning)
	}
}

// prefixWarning is what there is to say about so many prefixes of one family,
// and how grave it is; 0 is nothing.
func (p Peer) prefixWarning(count int) (text string, level int) {
	limit := int(p.MaxPrefixes)
	switch {
	case limit == 0:
		return "", 0
	case count > limit && p.MaxPrefixesWarnOnly:
		return fmt.Sprintf("sent %d prefixes, more than the limit of %d", count, limit), 2
	case p.MaxPrefixesWarning > 0 && count > limit*int(p.MaxPrefixesWarning)/100:
		return fmt.Sprintf("sent %d prefixes, more than %d%% of the limit of %d", count, p.MaxPrefixesWarning, limit), 1
	}
	return "", 0
}

// enforceLimits ends the sessions of peers with too many prefixes and lets them
// come back later.
func (n *network) enforceLimits() {
	n.opMu.Lock()
	defer n.opMu.Unlock()
	if n.srv == nil {
		return
	}
	for _, addr := range n.peers() {
		s := n.session(addr)
		now := time.Now()
		n.mu.Lock()
		start := s.overLimit && s.running && !s.dynamic() && s.closing.IsZero()
		finish := !s.closing.IsZero() && (s.state == "idle" || !now.Before(s.closing))
		again := !s.suspended.IsZero() && !now.Before(s.suspended)
		if start {
			s.closing = now.Add(closeWait)
		}
		n.mu.Unlock()
		var err error
		switch {
		case start:
			err = n.srv.closeFull(s.peer, s.secret)
		case finish:
			err = n.suspend(s, now)
		case again:
			err = n.resume(s)
		}
		if err == nil {
			continue
		}
		n.log.Error("bgp prefix limit", "peer", addr, "err", err)
		n.mu.Lock()
		if finish {
			s.closing = now.Add(closeWait)
		}
		if again {
			s.suspended = now.Add(n.timing.prefixBackoff)
		}
		n.mu.Unlock()
	}
}

// suspend keeps a session that was closed down for a while. One that was not
// closed in time is removed.
func (n *network) suspend(s *session, now time.Time) error {
	n.mu.Lock()
	closed := s.state == "idle"
	n.mu.Unlock()
	if !closed {
		if err := n.removePeer(s.peer.Address); err != nil {
			return err
		}
	}
	n.mu.Lock()
	s.down(now)
	n.rib.clear(s.peer.Address)
	wait := cmp.Or(s.peer.MaxPrefixesRestart, n.timing.prefixBackoff)
	s.suspended = now.Add(wait)
	s.fail(fmt.Sprintf("sent NOTIFICATION %s (the limit is %d); the next attempt is in %v",
		notification{code: 6, subcode: 1}, s.peer.MaxPrefixes, wait), now)
	text := s.lastErr
	n.mu.Unlock()
	n.log.Warn("bgp session closed", "peer", s.peer.Address, "err", text)
	n.kick()
	return nil
}

func (n *network) resume(s *session) error {
	var err error
	if s.running {
		err = n.srv.reopen(s.peer, s.secret)
	} else {
		n.changeRIB(func() { n.rib.setPeer(s.peer.Address, s.peer.policy(n.cfg.ASN)) })
		err = n.srv.addPeer(s.peer, s.secret, false)
	}
	if err != nil {
		return fmt.Errorf("resume peer %q: %w", s.peer.Address, err)
	}
	n.mu.Lock()
	s.suspended, s.running = time.Time{}, true
	n.mu.Unlock()
	return nil
}
