package bgp

import (
	"net/netip"
	"slices"
	"time"
)

const established = "established"

// sessionEvent is a change of a session's state.
type sessionEvent struct {
	peer  netip.Addr
	state string
	at    time.Time
	// cause is why a session went down, "" where a NOTIFICATION says it better.
	cause string
	// kept is true when the peer's paths are kept while it restarts (RFC 4724).
	kept bool
	// expired is true when the peer's restart time is over.
	expired bool
	// negotiated are the families of an established session, capabilities those
	// of both sides, routerID the peer's.
	negotiated   [families]bool
	capabilities []string
	routerID     netip.Addr
}

// session is what is known about one peer.
type session struct {
	// peer is the configuration in force.
	peer       Peer
	state      string
	since      time.Time
	lastErr    string
	lastErrAt  time.Time
	lastEvent  time.Time
	flaps      int
	negotiated [families]bool
	endOfRIB   [families]bool
	// capabilities and routerID are of the established session.
	capabilities []string
	routerID     netip.Addr
	// kept is true while the paths of a peer that restarts are kept, longLived
	// when it agreed to have them kept longer (RFC 9494).
	kept, longLived bool
	// running is true while the server has the peer, disabled while the server
	// keeps it shut down. They, peer and secret are changed with network.opMu held
	// as well.
	running, disabled bool
	// secret is the password in force.
	secret string

	// overLimit is set when the peer exceeded MaxPrefixes, closing while the
	// session is being closed for it, and suspended until when it stays down.
	overLimit bool
	// warned is how grave the last count of prefixes was.
	warned int
	// surplus is set for a session from a range that has too many.
	surplus   bool
	closing   time.Time
	suspended time.Time
}

func newSession(p Peer, now time.Time) *session {
	return &session{peer: p, state: "idle", since: now}
}

// apply takes an event in and tells whether the state changed.
func (s *session) apply(e sessionEvent) bool {
	changed := e.state != s.state
	if changed {
		s.leave()
		s.state, s.since = e.state, e.at
	}
	switch e.state {
	case established:
		s.negotiated, s.kept = e.negotiated, false
		s.capabilities, s.routerID = e.capabilities, e.routerID
		s.longLived = slices.Contains(e.capabilities, capLongLived)
	case "idle":
		s.kept = e.kept
	}
	// A NOTIFICATION since the last event explains this one better than its cause.
	if e.cause != "" && !s.lastErrAt.After(s.lastEvent) {
		s.fail(e.cause, e.at)
		changed = true
	}
	s.lastEvent = e.at
	return changed
}

// leave accounts for the end of an established session.
func (s *session) leave() {
	if s.state == established {
		s.flaps++
	}
	s.negotiated, s.endOfRIB = [families]bool{}, [families]bool{}
	s.capabilities, s.routerID = nil, netip.Addr{}
}

// fail records an error and tells whether it is another one than before.
func (s *session) fail(text string, at time.Time) bool {
	changed := s.lastErr != text
	s.lastErr, s.lastErrAt = text, at
	return changed
}

// down is for a session that ends by our own doing, where no event may come.
func (s *session) down(now time.Time) {
	s.leave()
	if s.state != "idle" {
		s.state, s.since = "idle", now
	}
	s.lastEvent, s.kept = now, false
	s.overLimit, s.closing, s.suspended = false, time.Time{}, time.Time{}
}

// stopped is for a session that the server no longer has.
func (s *session) stopped() { s.running, s.disabled = false, false }

// dynamic tells whether the session came from a range.
func (s *session) dynamic() bool { return s.peer.Range.IsValid() }

// synced tells whether the peer came up and sent End-of-RIB for all families.
// Nobody waits for one that is kept down or may never come.
func (s *session) synced() bool {
	return s.peer.closed() || s.dynamic() || s.state == established && s.endOfRIB == s.negotiated
}

// announces tells whether our prefixes of family f are sent in this session.
func (s *session) announces(f family) bool {
	return s.state == established && s.negotiated[f] && s.peer.nextHop(f) != refuse
}

// missing says what was configured and not agreed on.
func (s *session) missing() string {
	if s.state != established {
		return ""
	}
	for _, want := range []struct {
		wanted bool
		name   string
	}{{s.peer.ExtendedNextHop, capExtendedNextHop}, {s.peer.AddPath, capAddPath}, {s.peer.IPv4, "ipv4-unicast"}, {s.peer.IPv6, "ipv6-unicast"}} {
		// A peer without the capability speaks IPv4 (RFC 4760 8).
		if want.wanted && !slices.Contains(s.capabilities, want.name) && !(want.name == "ipv4-unicast" && s.negotiated[ipv4]) {
			return "the peer does not support " + want.name
		}
	}
	return ""
}

// status is the session's part of State.
func (s *session) status(in *adjIn, local [families]int) PeerState {
	st := PeerState{
		Address: s.peer.Address, Range: s.peer.Range, Description: s.peer.Description, ASN: s.peer.ASN,
		Shutdown: s.peer.Shutdown, State: s.state, Since: s.since,
		RouterID: s.routerID, Capabilities: s.capabilities,
		LastError: s.lastErr, Flaps: s.flaps, ImportMissing: len(s.peer.Import) == 0,
	}
	if in != nil {
		st.Received, st.Accepted = in.count[ipv4]+in.count[ipv6], in.accepted
		st.Warning, _ = s.peer.prefixWarning(max(in.count[ipv4], in.count[ipv6]))
	}
	if text := s.missing(); text != "" && st.Warning == "" {
		st.Warning = text
	}
	for f := range families {
		if s.announces(f) {
			st.Advertised += local[f]
		}
	}
	return st
}
