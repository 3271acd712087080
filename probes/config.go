// Package probes checks that a network's far side answers: probe
// implementations bound to a device, a pure state machine that turns attempts
// into a Verdict, and one goroutine that begins the attempts and reads the
// answers of those that need no connection.
//
// What an attempt costs, when the target answers, in packets of both
// directions: icmp 2, arp-nd 2, dns 2 (8 or more by TCP), tcp 4, http about 10,
// https about 16. Config.PacketsPerSecond adds that up. icmp and arp-nd use one
// socket per device, family and source for all targets, and no goroutine; tcp,
// dns and http use a socket and a goroutine per attempt that is under way, so
// at most one per target.
//
// What is in time is decided by the kernel's time of arrival, except for HTTP,
// whose many steps are ours: a process that is kept from the processor for longer
// than the timeout blames the target of an HTTP probe, and of no other.
//
// Bounds: a target takes about 1 KiB, a socket for several of them 32 KiB and at
// most twice 64 MiB of the kernel's memory for packets that wait; a DNS target
// 64 KiB once it was asked; a Prober remembers 1024 changes of verdicts.
package probes

import (
	"net/netip"
	"time"
)

// Type is the kind of a probe.
type Type string

// The probe types.
const (
	// ICMP sends an echo request and waits for its reply.
	ICMP Type = "icmp"
	// HTTP makes a request on a new connection.
	HTTP Type = "http"
	// TCP opens a connection, and aborts it with a reset.
	TCP Type = "tcp"
	// DNS asks a server a question by UDP, and by TCP if the answer is truncated.
	DNS Type = "dns"
	// ARPND asks a neighbour on the link for its link-layer address: ARP (RFC 826)
	// or neighbour solicitation (RFC 4861). It asks by itself, beside the kernel's
	// neighbour cache.
	ARPND Type = "arp-nd"
)

// Require says how many targets must be up for the probe to be up: Any, All, or
// a number, as Quorum makes one.
type Require string

// The ways targets are combined.
const (
	Any Require = "any"
	All Require = "all"
)

// Config is one probe of a network.
type Config struct {
	// Name is unique over all probes: "<network>/<probe>".
	Name    string
	Network string
	// Device is what the sockets are bound to (SO_BINDTODEVICE): the VRF device, or
	// for ARPND the port that the neighbours are on, as neither ARP nor neighbour
	// discovery pass a VRF device.
	Device string
	Type   Type
	// Targets are of the kind that Type needs. A host is always an IP address: no
	// name is ever looked up. Each may occur once.
	Targets []Target
	Require Require
	// Interval is from the start of an attempt to the start of the next, less a
	// jitter of up to a tenth; AttemptTimeout bounds one attempt. An attempt that
	// outlasts the interval delays the next one: they never overlap. So a target
	// that falls silent is down after at most
	// Interval + (Fall-1) * max(Interval, AttemptTimeout) + AttemptTimeout.
	Interval, AttemptTimeout time.Duration
	// Rise and Fall are the consecutive attempts that change a verdict, also from
	// Unknown.
	Rise, Fall int
	// HoldDown is how long a target that was down must have been healthy without
	// a break, from the end of its first successful attempt on, before it is up
	// again. It comes beside Rise, and delays neither Down nor the first Up.
	HoldDown time.Duration
	// Damping keeps a target that goes down again and again down; nil does not.
	Damping *Damping
	// Source is the local address, of the family of every target that has no
	// source of its own; invalid lets the kernel choose.
	Source netip.Addr
	HTTP   *HTTPConfig
	// DNS is needed by type DNS.
	DNS *DNSConfig
}

// Target is one thing to probe. Exactly one of Address (ICMP, ARPND), Endpoint
// (TCP, DNS) and URL (HTTP) is set.
type Target struct {
	Address  netip.Addr
	Endpoint netip.AddrPort
	URL      string
	// Source is the local address for this target, instead of Config.Source.
	Source netip.Addr
}

// Damping is the suppression of targets that flap, as in RFC 2439: each Down
// adds Penalty to the target's figure of merit, which halves every HalfLife. At
// Suppress or above the target is kept down until the figure is below Reuse.
// The figure is bounded so that a target that flaps no more is released after
// MaxSuppress at the latest.
type Damping struct {
	Penalty, Suppress, Reuse int
	HalfLife, MaxSuppress    time.Duration
}

// DefaultDamping suppresses what goes down five times in about ten seconds, or
// goes on flapping with a period of less than some six seconds; a single outage,
// however long, and a few of them in a minute have no effect.
func DefaultDamping() Damping {
	return Damping{Penalty: 1000, Suppress: 4000, Reuse: 1000, HalfLife: 15 * time.Second, MaxSuppress: time.Minute}
}

// HTTPConfig is what an HTTP probe sends and expects.
type HTTPConfig struct {
	// Method is GET when empty.
	Method string
	// Host overrides the Host header. It does not change the server name of TLS.
	Host string
	// Headers are sent as they are, in this order; not Host.
	Headers []Header
	// StatusMin and StatusMax bound the accepted status; 0 means 200 and 399.
	StatusMin, StatusMax int
	// Body must occur in the first 64 KiB of the answer, when not empty.
	Body string
	// TLSServerName is the SNI and the name verified, for https; the URL's address
	// is verified when it is empty.
	TLSServerName string
	// TLSInsecure skips verification of the certificate.
	TLSInsecure bool
	// CAFile has the certificates (PEM) that the server's must be signed by,
	// instead of the system's. It is read again when it changes.
	CAFile string
}

// Header is a header of a request.
type Header struct{ Name, Value string }

// DNSConfig is what a DNS probe asks and expects.
type DNSConfig struct {
	// Name is asked for. It may end in a dot.
	Name string
	// Type is A, AAAA, NS or SOA; empty means A.
	Type string
	// RCode is the response code expected: NOERROR (or empty), FORMERR, SERVFAIL,
	// NXDOMAIN, NOTIMP or REFUSED. With NOERROR there must be an answer of Type.
	RCode string
	// Answer must be among the answers of Type when not empty: an address for A
	// and AAAA, a name server for NS, the primary server for SOA.
	Answer string
}

func (t Target) String() string {
	s := t.Address.String()
	switch {
	case t.URL != "":
		s = t.URL
	case t.Endpoint.IsValid():
		s = t.Endpoint.String()
	}
	if t.Source.IsValid() {
		s += " from " + t.Source.String()
	}
	return s
}

// source is where attempts at t come from; invalid if the kernel chooses.
func (c Config) source(t Target) netip.Addr {
	if t.Source.IsValid() {
		return t.Source
	}
	return c.Source
}

// packets are those of one successful attempt, in both directions; for HTTP an
// estimate.
func (c Config) packets(t Target) int {
	switch c.Type {
	case TCP:
		return 4
	case HTTP:
		if isTLS(t) {
			return 16
		}
		return 10
	}
	return 2
}

// PacketsPerSecond is what the probe costs while its targets answer, in both
// directions together; for HTTP an estimate.
func (c Config) PacketsPerSecond() float64 {
	n := 0
	for _, t := range c.Targets {
		n += c.packets(t)
	}
	// The jitter shortens the interval by a twentieth on average.
	mean := float64(c.Interval) * (1 - 0.5/jitterShare)
	return float64(n) / (mean / float64(time.Second))
}
