package bfd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxErrorBytes bounds State.LastError.
const maxErrorBytes = 300

// farewells is how many packets tell the peer of a session that ends by
// decision: one that is lost would look like a failure.
const farewells = 3

// session is a machine with its socket. Sessions.mu guards it.
type session struct {
	config Config
	m      *machine
	seq    sequence
	spot   spot
	// fd sends; -1 while it cannot be opened.
	fd          int
	index, zone uint32 // of the devices when it was opened
	to          unix.Sockaddr
	buf         []byte

	// leaving is how many packets of a removed session are left to be sent, gap
	// the time between them.
	leaving int
	gap     time.Duration
	removed bool

	in, out, refused uint64
	lastErr          string

	// at and place are the session's entry in the schedule.
	at    time.Time
	place int
	dirty bool // in Sessions.changed
}

// open opens the socket if it is not open. A device, zone or address that is
// missing is tried again by the caller, once in a second.
func (s *session) open(zone uint32) {
	if s.fd >= 0 {
		return
	}
	if s.config.Peer.Zone() != "" && zone == 0 {
		s.fail(fmt.Errorf("no device %q", s.config.Peer.Zone()))
		return
	}
	fd, err := openSender(s.config, zone)
	if err != nil {
		s.fail(fmt.Errorf("open socket: %w", err))
		return
	}
	port := uint16(singleHopPort)
	if s.config.Multihop {
		port = multihopPort
	}
	s.fd, s.zone, s.index = fd, zone, deviceIndex(fd, s.config.Device)
	s.to = socketAddress(s.config.Peer, port, zone)
}

func (s *session) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// send sends one packet. It never waits: a full queue of the device loses it.
func (s *session) send(p packet) {
	if s.fd < 0 {
		return
	}
	s.buf = s.config.Auth.seal(s.buf[:0], p, &s.seq)
	err := unix.Sendto(s.fd, s.buf, unix.MSG_DONTWAIT, s.to)
	if err == nil {
		s.out++
		return
	}
	s.fail(os.NewSyscallError("send", err))
}

func (s *session) fail(err error) {
	text := err.Error()
	s.lastErr = text[:min(len(text), maxErrorBytes)]
}

var (
	errTTL    = errors.New("packet came too far")
	errSource = errors.New("packet for this session from elsewhere")
)

// accept checks a packet that is for this session, before the machine sees it.
func (s *session) accept(raw []byte, p packet, a arrival, now time.Time) error {
	least := uint8(maxTTL)
	if s.config.Multihop {
		least = s.config.MinTTL
	}
	if a.ttl < least {
		return fmt.Errorf("%w: TTL %d, at least %d is wanted", errTTL, a.ttl, least)
	}
	if a.from != s.config.Peer.WithZone("") || s.zone != 0 && a.device != s.zone {
		return fmt.Errorf("%w: %s", errSource, a.from)
	}
	if s.m.heard || s.seq.known {
		s.seq.forget(now.Sub(s.m.lastRx), s.m.detection())
	}
	return s.config.Auth.open(raw, p, &s.seq, p.mult)
}

func (s *session) state() State {
	m := s.m
	st := State{
		Name: s.config.Name, Status: m.status, Since: m.since.Round(0), Diag: m.diag,
		RemoteStatus: m.remoteStatus, RemoteDiag: m.remoteDiag, RemoteIndependent: m.remoteIndependent,
		Discriminator: m.discr, RemoteDiscriminator: m.remoteDiscr,
		TxInterval: m.interval(), Ups: m.ups, Downs: m.downs,
		In: s.in, Out: s.out, Refused: s.refused, LastError: s.lastErr,
	}
	if m.heard {
		st.RxInterval, st.DetectTime = max(m.timing.minRx, m.remoteMinTx), m.detection()
	}
	return st
}
