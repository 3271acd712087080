package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// dynamicPatience is how long a session from a range may take to come up before
// it is forgotten.
const dynamicPatience = 2 * time.Minute

// peerRange is a range that the server takes sessions from. It is changed with
// network.opMu and network.mu held.
type peerRange struct {
	peer   Peer
	secret string
}

// removeRanges ends the ranges that are no longer wanted or not as they are,
// with their sessions.
func (n *network) removeRanges(cfg Config, all bool) []error {
	var errs []error
	for prefix, r := range n.ranges {
		i := slices.IndexFunc(cfg.Peers, func(p Peer) bool { return p.Range == prefix })
		if i >= 0 && !all && sameSession(r.peer, cfg.Peers[i]) {
			continue
		}
		errs = append(errs, n.removeRange(r))
	}
	return errs
}

func (n *network) removeRange(r *peerRange) error {
	if err := n.srv.stopRange(r.peer); err != nil {
		return fmt.Errorf("remove range %q: %w", r.peer.Range, err)
	}
	for _, addr := range n.peers() {
		if s := n.session(addr); s.peer.Range == r.peer.Range {
			n.dropDynamic(s)
		}
	}
	if err := n.srv.removeRange(r.peer); err != nil {
		return fmt.Errorf("remove range %q: %w", r.peer.Range, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ranges, r.peer.Range)
	return nil
}

// dropDynamic ends and forgets a session that came from a range. The server may
// have forgotten it already.
func (n *network) dropDynamic(s *session) {
	_ = n.srv.dropDynamic(s.peer)
	n.mu.Lock()
	delete(n.sessions, s.peer.Address)
	n.rib.removePeer(s.peer.Address)
	n.mu.Unlock()
	n.kick()
}

// applyRange opens a range, or changes it and its sessions in place.
func (n *network) applyRange(p Peer) error {
	secret, err := p.password()
	have := n.ranges[p.Range]
	if err != nil {
		n.log.Warn("bgp range not as configured", "range", p.Range, "err", err)
		if have == nil {
			return nil // as for a peer, see applyPeer
		}
		secret = have.secret
	}
	if have != nil && have.secret != secret {
		if err := n.removeRange(have); err != nil {
			return err
		}
		have = nil
	}
	n.mu.Lock()
	n.ranges[p.Range] = &peerRange{peer: p, secret: secret}
	n.mu.Unlock()
	if have == nil {
		if err := n.srv.addRange(p, secret); err != nil {
			n.mu.Lock()
			delete(n.ranges, p.Range)
			n.mu.Unlock()
			return fmt.Errorf("add range %q: %w", p.Range, err)
		}
		return nil
	}
	for _, addr := range n.peers() {
		s := n.session(addr)
		if s.peer.Range != p.Range {
			continue
		}
		n.mu.Lock()
		s.peer = p
		s.peer.Address = addr
		n.mu.Unlock()
		n.changeRIB(func() { n.rib.setPeer(addr, p.policy(n.cfg.ASN)) })
		n.checkLimit(addr)
	}
	return nil
}

// newDynamicLocked makes the session of a peer that dialled us from a range,
// nil if there is no such range. Events of sessions just dropped start none.
func (n *network) newDynamicLocked(e sessionEvent) *session {
	if e.state != "opensent" && e.state != "openconfirm" && e.state != established {
		return nil
	}
	for prefix, r := range n.ranges {
		if !prefix.Contains(e.peer) {
			continue
		}
		p := r.peer
		p.Address = e.peer
		s := newSession(p, e.at)
		s.running, s.secret = true, r.secret
		s.surplus = n.dynamicLocked(prefix) >= p.MaxSessions
		n.sessions[e.peer] = s
		n.rib.setPeer(e.peer, p.policy(n.cfg.ASN))
		return s
	}
	return nil
}

func (n *network) dynamicLocked(prefix netip.Prefix) int {
	count := 0
	for _, s := range n.sessions {
		if s.peer.Range == prefix {
			count++
		}
	}
	return count
}

// over tells whether a session from a range is to be ended and forgotten: one
// too many, with too many prefixes, one that went down, or never came up. The
// server forgets those that went down by itself.
func (s *session) over(now time.Time) bool {
	if !s.dynamic() || s.kept {
		return false
	}
	down := s.state == "idle" && s.flaps > 0
	late := s.state != established && now.Sub(s.since) > dynamicPatience
	return s.surplus || s.overLimit || down || late
}

// pruneDynamic ends such sessions.
func (n *network) pruneDynamic(now time.Time) {
	n.opMu.Lock()
	defer n.opMu.Unlock()
	if n.srv == nil {
		return
	}
	for _, addr := range n.peers() {
		s := n.session(addr)
		n.mu.Lock()
		over, surplus, limit := s.over(now), s.surplus, s.overLimit
		n.mu.Unlock()
		if !over {
			continue
		}
		switch {
		case surplus:
			n.log.Warn("bgp session refused: too many from the range", "peer", addr, "range", s.peer.Range, "limit", s.peer.MaxSessions)
		case limit:
			n.log.Warn("bgp session closed: too many prefixes", "peer", addr, "range", s.peer.Range, "limit", s.peer.MaxPrefixes)
		}
		n.dropDynamic(s)
	}
}
