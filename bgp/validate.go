package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// maxRestartTime is the largest value of the 12-bit field of RFC 4724 3.
const maxRestartTime = 4095 * time.Second

// maxLongLived is the largest value of the 24-bit field of RFC 9494 3.
const maxLongLived = 16777215 * time.Second

// maxHoldTime is the largest value of the 16-bit field of RFC 4271 4.2.
const maxHoldTime = 65535 * time.Second

// Validate returns everything in c that would be refused, ambiguous or, worse,
// a panic inside the BGP library. It looks at nothing but c.
func (c Config) Validate() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.Network == "" {
		bad("network name is empty")
	}
	// IFNAMSIZ is 16 with the terminating zero.
	if len(c.Device) > 15 || strings.ContainsAny(c.Device, "/ \t\n\x00") {
		bad("device %q is not an interface name", c.Device)
	}
	if err := validASN(c.ASN); err != nil {
		bad("own %w", err)
	}
	// RFC 6286 2.1: any non-zero 32-bit value; written as an IPv4 address.
	if !c.RouterID.Is4() || c.RouterID.IsUnspecified() {
		bad("router id %q is not an IPv4 address other than 0.0.0.0", c.RouterID)
	}
	if c.ListenPort < -1 || c.ListenPort > 65535 {
		bad("listen port %d is not a TCP port", c.ListenPort)
	}
	if gr := c.GracefulRestart; gr != nil {
		if !wholeSeconds(gr.RestartTime) || gr.RestartTime < time.Second || gr.RestartTime > maxRestartTime {
			bad("restart time %v is not whole seconds between 1 s and 4095 s", gr.RestartTime)
		}
		if !wholeSeconds(gr.LongLived) || gr.LongLived < 0 || gr.LongLived > maxLongLived {
			bad("long-lived time %v is not whole seconds up to 16777215 s", gr.LongLived)
		}
	}

	for i, p := range c.Peers {
		for _, err := range p.validate(c.ASN) {
			bad("peer %s: %w", p.name(), err)
		}
		if p.Range.IsValid() && c.ListenPort == -1 {
			bad("peer %s: a range needs a port to listen on", p.name())
		}
		for _, q := range c.Peers[:i] {
			if err := p.clashes(q); err != nil {
				bad("peer %s: %w", p.name(), err)
			}
		}
	}
	advertised := map[netip.Prefix]bool{}
	for _, a := range c.Advertise {
		if err := validPrefix(a.Prefix); err != nil {
			bad("advertise: %w", err)
			continue
		}
		if advertised[a.Prefix] {
			bad("advertise: prefix %q named twice", a.Prefix)
		}
		advertised[a.Prefix] = true
		for _, err := range a.validate() {
			bad("advertise %q: %w", a.Prefix, err)
		}
	}
	for _, p := range c.Reject {
		if err := validPrefix(p); err != nil {
			bad("reject: %w", err)
		}
	}
	return errs
}

// name is how the peer is called in errors.
func (p Peer) name() string {
	if p.Range.IsValid() {
		return fmt.Sprintf("%q", p.Range)
	}
	return fmt.Sprintf("%q", p.Address)
}

// clashes says why two peers cannot be told apart.
func (p Peer) clashes(q Peer) error {
	switch {
	case p.Range.IsValid() && q.Range.IsValid():
		if p.Range.Overlaps(q.Range) {
			return fmt.Errorf("range overlaps %q", q.Range)
		}
	case p.Range.IsValid() || q.Range.IsValid():
		if p.Range.Contains(q.Address) || q.Range.Contains(p.Address) {
			return fmt.Errorf("the range and peer %s overlap", q.name())
		}
	case p.Address == q.Address:
		return errors.New("configured twice")
	}
	return nil
}

// maxMessage is what GoBGP sends of a shutdown message.
const maxMessage = 128

func (p Peer) validateSession(asn uint32) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := validASN(p.ASN); err != nil {
		bad("%w", err)
	}
	if p.LocalASN != 0 {
		if err := validASN(p.LocalASN); err != nil {
			bad("local %w", err)
		} else if p.ASN == asn {
			bad("local ASN %d is for peers in another AS", p.LocalASN)
		}
	}
	if p.PasswordFile != "" && p.PasswordEnv != "" {
		bad("password from both a file and the environment")
	}
	if len(p.ShutdownMessage) > maxMessage || !utf8.ValidString(p.ShutdownMessage) {
		bad("shutdown message %q is not UTF-8 of at most %d bytes", p.ShutdownMessage, maxMessage)
	}
	if len(p.Down) > maxMessage || !utf8.ValidString(p.Down) {
		bad("reason to be down %q is not UTF-8 of at most %d bytes", p.Down, maxMessage)
	}
	if p.Down != "" && p.Range.IsValid() {
		bad("down is not for a range")
	}
	if p.TTLSecurity > 0 && p.Multihop > 0 {
		bad("TTL security and multihop exclude each other")
	}
	if p.TTLSecurity > 0 && (p.Passive || p.Range.IsValid()) && p.family() == ipv6 {
		bad("TTL security is not supported for peers that dial us over IPv6")
	}
	if p.TTLSecurity == 255 {
		bad("TTL security of 255 hops would accept everything")
	}
	return errs
}

func (p Peer) validate(asn uint32) []error {
	errs := append(p.validateAddresses(), p.validateSession(asn)...)
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if p.HoldTime != 0 && (!wholeSeconds(p.HoldTime) || p.HoldTime < 3*time.Second || p.HoldTime > maxHoldTime) {
		bad("hold time %v is not whole seconds between 3 s and 65535 s", p.HoldTime)
	}
	hold := p.HoldTime
	if hold == 0 {
		hold = defaultHoldTime
	}
	if p.KeepaliveTime != 0 && (!wholeSeconds(p.KeepaliveTime) || p.KeepaliveTime < time.Second || p.KeepaliveTime >= hold) {
		bad("keepalive time %v is not whole seconds between 1 s and the hold time", p.KeepaliveTime)
	}
	if p.ConnectRetry != 0 && (!wholeSeconds(p.ConnectRetry) || p.ConnectRetry < time.Second || p.ConnectRetry > maxHoldTime) {
		bad("connect retry %v is not whole seconds between 1 s and 65535 s", p.ConnectRetry)
	}
	if p.MaxPrefixesWarning > 100 {
		bad("a warning at %d percent of the prefixes", p.MaxPrefixesWarning)
	}
	if p.MaxPrefixesRestart < 0 {
		bad("restart after %v", p.MaxPrefixesRestart)
	}
	for _, err := range p.Export.validate() {
		bad("export: %w", err)
	}
	if pref := p.Export.LocalPref; pref != nil && *pref == 0 {
		bad("export: local preference 0 is only for draining")
	}
	for _, r := range p.Import {
		if err := validPrefix(r.Prefix); err != nil {
			bad("import: %w", err)
			continue
		}
		if r.Min < r.Prefix.Bits() || r.Max < r.Min || r.Max > r.Prefix.Addr().BitLen() {
			bad("import: lengths %d to %d are not within %d to %d of prefix %q",
				r.Min, r.Max, r.Prefix.Bits(), r.Prefix.Addr().BitLen(), r.Prefix)
		}
		if _, err := CompileASPath(r.ASPath); err != nil {
			bad("import: AS path %q: %w", r.ASPath, err)
		}
	}
	return errs
}

func (p Peer) validateAddresses() []error {
	var errs []error
	switch {
	case p.Range.IsValid():
		errs = append(errs, p.validateRange()...)
	case p.MaxSessions != 0:
		errs = append(errs, errors.New("a bound of sessions is for a range"))
	default:
		if err := validPeerAddress(p.Address); err != nil {
			errs = append(errs, fmt.Errorf("address: %w", err))
		}
	}
	if p.ExtendedNextHop && p.family() == ipv4 {
		errs = append(errs, errors.New("extended next hops are for sessions over IPv6"))
	}
	if p.LocalAddress.IsValid() {
		if err := validHost(p.LocalAddress); err != nil {
			errs = append(errs, fmt.Errorf("local address: %w", err))
		} else if familyOf(p.LocalAddress) != p.family() {
			errs = append(errs, fmt.Errorf("local address %q is not of the peer's family", p.LocalAddress))
		}
	}
	if nh := p.NextHopIPv4; nh.IsValid() && (!nh.Is4() || validHost(nh) != nil) {
		errs = append(errs, fmt.Errorf("next hop %q is not a usable IPv4 address", nh))
	}
	if nh := p.NextHopIPv6; nh.IsValid() && (!nh.Is6() || validHost(nh) != nil) {
		errs = append(errs, fmt.Errorf("next hop %q is not a usable IPv6 address", nh))
	}
	return errs
}

func (p Peer) validateRange() []error {
	var errs []error
	if err := validPrefix(p.Range); err != nil {
		errs = append(errs, fmt.Errorf("range: %w", err))
	}
	if p.Address.IsValid() {
		errs = append(errs, errors.New("both an address and a range"))
	}
	if p.LocalAddress.IsValid() {
		errs = append(errs, errors.New("a range has no local address"))
	}
	if p.Shutdown {
		errs = append(errs, errors.New("a range cannot be shut down: remove it"))
	}
	if p.MaxSessions < 0 || p.MaxSessions > maxMaxSessions {
		errs = append(errs, fmt.Errorf("%d sessions are not between 1 and %d", p.MaxSessions, maxMaxSessions))
	}
	return errs
}

// maxMaxSessions bounds Peer.MaxSessions.
const maxMaxSessions = 4096

// validPeerAddress also allows link-local addresses that say on which link.
func validPeerAddress(a netip.Addr) error {
	if a.Is6() && !a.Is4In6() && a.IsLinkLocalUnicast() && a.Zone() != "" {
		return nil
	}
	return validHost(a)
}

// validHost refuses what is no unicast address of one host in one network.
// Link-local addresses are ambiguous without a zone, and a route cannot carry
// one.
func validHost(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("no address")
	case a.Zone() != "" || a.IsLinkLocalUnicast():
		return fmt.Errorf("link-local address %q is not supported", a)
	case a.Is4In6():
		return fmt.Errorf("address %q is an IPv4-mapped IPv6 address", a)
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %q is not a unicast address", a)
	}
	return nil
}

// validASN refuses the numbers nobody can hold: 0 (RFC 7607), 23456 (RFC 6793)
// and the last one of 16 and of 32 bits (RFC 7300).
func validASN(asn uint32) error {
	switch asn {
	case 0, 23456, 65535, 4294967295:
		return fmt.Errorf("ASN %d is reserved", asn)
	}
	return nil
}

func validPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("no prefix")
	case p.Addr().Is4In6():
		return fmt.Errorf("prefix %q is IPv4-mapped", p)
	case p != p.Masked():
		return fmt.Errorf("prefix %q has host bits set", p)
	}
	return nil
}

func wholeSeconds(d time.Duration) bool { return d%time.Second == 0 }
