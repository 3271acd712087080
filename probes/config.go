// Package probes checks that a network's far side answers: probe
// implementations bound to a VRF device, a pure state machine that turns
// attempts into a Verdict, and one runner goroutine per target.
package probes

import (
	"net/netip"
	"time"
)

// Type is the kind of a probe.
type Type string

// The probe types.
const (
	ICMP Type = "icmp"
	HTTP Type = "http"
)

// Require says how many targets must be up for the probe to be up.
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
	// Device is what the sockets are bound to (SO_BINDTODEVICE): the VRF device.
	Device string
	Type   Type
	// Targets: addresses for ICMP, URLs for HTTP. A URL's host is an IP address:
	// no name is ever looked up. Each may occur once.
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
	// Source is the local address, of the family of every target; invalid lets
	// the kernel choose.
	Source netip.Addr
	HTTP   *HTTPConfig
}

// Target is one thing to probe: exactly one field is set.
type Target struct {
	Address netip.Addr
	URL     string
}

// HTTPConfig is what an HTTP probe sends and expects.
type HTTPConfig struct {
	// Method is GET when empty.
	Method string
	// Host overrides the Host header. It does not change the server name of TLS.
	Host string
	// StatusMin and StatusMax bound the accepted status; 0 means 200 and 399.
	StatusMin, StatusMax int
	// Body must occur in the first 64 KiB of the answer, when not empty.
	Body string
	// TLSServerName is the SNI and the name verified, for https; the URL's address
	// is verified when it is empty.
	TLSServerName string
	// TLSInsecure skips verification of the certificate.
	TLSInsecure bool
}

func (t Target) String() string {
	if t.URL != "" {
		return t.URL
	}
	return t.Address.String()
}

// Verdict is a probe's judgement.
type Verdict uint8

// Unknown is neither up nor down: not enough attempts yet.
const (
	Unknown Verdict = iota
	Up
	Down
)

func (v Verdict) String() string {
	switch v {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// State is what is known of one probe.
type State struct {
	Name    string
	Verdict Verdict
	// Since is when the verdict last changed, or when the probe started.
	Since time.Time
	// Targets are in the order of Config.Targets.
	Targets []TargetState
}

// TargetState is what is known of one target.
type TargetState struct {
	Target  string
	Verdict Verdict
	Since   time.Time
	// LastRTT is the duration of the last successful attempt: for ICMP from the
	// request to the reply, for HTTP from the start of the connection to the end
	// of the checks.
	LastRTT time.Duration
	// LastError is why the last attempt failed; empty after a success. It is at
	// most 300 bytes long.
	LastError string
	// Attempts and Failures count since the target started.
	Attempts, Failures uint64
}
