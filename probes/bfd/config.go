// Package bfd is Bidirectional Forwarding Detection: RFC 5880 in asynchronous
// mode, over one hop (RFC 5881) and over several (RFC 5883), for IPv4 and IPv6,
// inside VRFs.
//
// The protocol is pure: a codec and a state machine that is told the time. The
// sockets and the clock are thin edges around it. Sessions runs the sessions in
// this process; Serve runs them in a process of its own, which outlives the
// daemon, and Client speaks to it with the same methods as Sessions. What runs
// there goes on while the daemon restarts, so its packets say so: bit C.
//
// Not done, because nothing here needs it: demand mode of our own (the peer's is
// honoured) and the echo function.
package bfd

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Bounds of a Config.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Minute
	// MaxSessions is how many sessions run at most.
	MaxSessions = 4096

	maxNameBytes   = 255
	maxDeviceBytes = 15 // IFNAMSIZ - 1
)

// Config is one session.
type Config struct {
	// Name is unique over all sessions.
	Name string
	// Device is what the sockets are bound to (SO_BINDTODEVICE): the VRF device.
	// Empty is the default VRF.
	Device string
	// Local is our address; invalid lets the kernel choose for every packet.
	Local netip.Addr
	// Peer is the neighbour's address. A link-local one has a zone: the port,
	// which may belong to the VRF that is Device.
	Peer netip.Addr
	// Multihop is RFC 5883: port 4784, and no demand on the distance but MinTTL.
	// Otherwise only packets with a TTL or hop limit of 255 count (RFC 5881 5).
	Multihop bool
	// MinTTL is the least TTL or hop limit of received packets, for Multihop.
	MinTTL uint8
	// DesiredMinTx is how often we would like to send when Up, RequiredMinRx how
	// often we can receive. The slower of the two sides decides. Until the session
	// is Up packets go out once in a second at most (RFC 5880 6.8.3).
	DesiredMinTx, RequiredMinRx time.Duration
	// DetectMult: the peer declares us down when it misses this many packets.
	DetectMult uint8
	// Passive waits for the peer's first packet.
	Passive bool
	// AdminDown holds the session down, and tells the peer that it is no failure.
	AdminDown bool
	// Auth is nil without authentication.
	Auth *Auth `json:",omitempty"`
}

// Status is the state of a session (bfd.SessionState), with its wire values.
type Status uint8

// The states.
const (
	AdminDown Status = iota
	Down
	Init
	Up
)

var statusNames = [...]string{"admin-down", "down", "init", "up"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// MarshalText makes JSON readable.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Status) UnmarshalText(text []byte) error {
	for i, name := range statusNames {
		if name == string(text) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("unknown status %q", text)
}

// Diag is why a session left Up last (RFC 5880 4.1).
type Diag uint8

// The diagnostic codes.
const (
	NoDiag Diag = iota
	DetectionTimeExpired
	EchoFailed
	NeighborDown
	ForwardingReset
	PathDown
	ConcatenatedPathDown
	AdministrativelyDown
	ReverseConcatenatedPathDown
)

func (d Diag) String() string {
	names := [...]string{"none", "detection time expired", "echo failed", "neighbor signaled down", "forwarding plane reset",
		"path down", "concatenated path down", "administratively down", "reverse concatenated path down"}
	if int(d) < len(names) {
		return names[d]
	}
	return fmt.Sprintf("diag(%d)", uint8(d))
}

// State is what is known of one session.
type State struct {
	Name   string
	Status Status
	// Since is when Status last changed, as we noticed it.
	Since time.Time
	// Diag is why we are not Up; NoDiag when we are.
	Diag Diag
	// RemoteStatus is what the peer said last: a peer that is AdminDown has no failure.
	RemoteStatus Status
	RemoteDiag   Diag
	// RemoteIndependent is the peer's bit C: its BFD outlives its control plane.
	RemoteIndependent bool
	// Discriminator is ours; the peer's is zero while nothing is heard from it.
	Discriminator, RemoteDiscriminator uint32
	// TxInterval is between our packets, before jitter; RxInterval between the
	// peer's. Without a word from us for DetectTime, the session goes Down.
	TxInterval, RxInterval, DetectTime time.Duration
	// Ups and Downs count how often the session came Up and left it.
	Ups, Downs uint64
	// In are the packets that were valid and for this session, Out those sent,
	// Refused those for it which were not valid: wrong distance, wrong key.
	In, Out, Refused uint64
	// LastError is why the last packet could not be sent or was refused; at most
	// 300 bytes. It goes when the session comes Up.
	LastError string
	// Stale says that the process which runs the session does not answer, so that
	// this is the last that was known. Only a Client says so.
	Stale bool `json:",omitempty"`
}

// Validate returns all that is wrong with a Config.
func (c Config) Validate() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(c.Name == "" || len(c.Name) > maxNameBytes, "name: must have 1 to %d bytes", maxNameBytes)
	wrong(len(c.Device) > maxDeviceBytes, "device %q: longer than %d bytes", c.Device, maxDeviceBytes)
	if err := unicast(c.Peer); err != nil {
		errs = append(errs, fmt.Errorf("peer: %w", err))
	}
	if c.Local.IsValid() {
		if err := unicast(c.Local); err != nil {
			errs = append(errs, fmt.Errorf("local: %w", err))
		}
		wrong(c.Local.Is4() != c.Peer.Is4(), "local %s: not of the peer's family", c.Local)
		wrong(c.Local.Zone() != "" && c.Local.Zone() != c.Peer.Zone(), "local %s: not of the peer's zone", c.Local)
	}
	linkLocal := c.Peer.Is6() && c.Peer.IsLinkLocalUnicast()
	wrong(linkLocal != (c.Peer.Zone() != ""), "peer %s: a link-local address, and no other, has a zone", c.Peer)
	wrong(c.Multihop && linkLocal, "peer %s: link-local, but multihop", c.Peer)
	wrong(c.MinTTL != 0 && !c.Multihop, "min TTL: only for multihop, a single hop demands 255")
	for name, d := range map[string]time.Duration{"desired min tx": c.DesiredMinTx, "required min rx": c.RequiredMinRx} {
		wrong(d < MinInterval || d > MaxInterval, "%s: must be %v to %v", name, MinInterval, MaxInterval)
	}
	wrong(c.DetectMult == 0, "detect multiplier: must be 1 to 255")
	if c.Auth != nil {
		errs = append(errs, c.Auth.validate())
	}
	return errors.Join(errs...)
}

func unicast(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("no address")
	case a.Is4In6():
		return fmt.Errorf("%s: IPv4 in IPv6", a)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s: not unicast", a)
	}
	return nil
}

// A place is where a session's packets come from and go to: what makes two
// Configs the same session.
type place struct {
	device      string
	local, peer netip.Addr
	multihop    bool
}

func (c Config) place() place {
	return place{device: c.Device, local: c.Local, peer: c.Peer, multihop: c.Multihop}
}

// runnable is want without what is not valid, second uses of a name or place,
// and what is too many.
func runnable(want []Config) ([]Config, error) {
	var valid []Config
	var errs []error
	names, places := make(map[string]bool, len(want)), make(map[place]string, len(want))
	for i, c := range want {
		err := c.Validate()
		switch other, taken := places[c.place()]; {
		case err != nil:
		case names[c.Name]:
			err = errors.New("name: used by another session")
		case taken:
			err = fmt.Errorf("same addresses as session %q", other)
		case len(valid) == MaxSessions:
			err = fmt.Errorf("more than %d sessions", MaxSessions)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("run bfd session %q (sessions[%d]): %w", c.Name, i, err))
			continue
		}
		names[c.Name] = true
		places[c.place()] = c.Name
		valid = append(valid, c)
	}
	return valid, errors.Join(errs...)
}
