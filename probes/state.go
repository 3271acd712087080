package probes

import (
	"time"
)

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
	Network string
	Verdict Verdict
	// Since is when the verdict last changed, or when the probe started.
	Since time.Time
	// Changes counts the changes of the verdict since the probe started.
	Changes uint64
	// PacketsPerSecond is Config.PacketsPerSecond.
	PacketsPerSecond float64
	// Targets are in the order of Config.Targets.
	Targets []TargetState
}

// TargetState is what is known of one target.
type TargetState struct {
	Target  string
	Verdict Verdict
	Since   time.Time
	// LastRTT is the duration of the last successful attempt: for ICMP, ARPND and
	// DNS by UDP from the request to the reply's arrival in the kernel, for TCP the
	// handshake, for HTTP from the start of the connection to the end of the checks.
	LastRTT time.Duration
	// LastError is why the last attempt failed; empty after a success. It is at
	// most 300 bytes long.
	LastError string
	// Attempts and Failures count since the target started.
	Attempts, Failures uint64
	// Changes counts the changes of the verdict.
	Changes uint64
	// RTT sums up all successful attempts.
	RTT RTT
	// Detection is how long the last change from Up to Down took, from the start of
	// the first of its failed attempts; 0 before there was one.
	Detection time.Duration
	// Penalty is the figure of merit of Config.Damping at the last attempt.
	Penalty float64
	// Suppressed says that damping keeps the target down.
	Suppressed bool
	// HeldUntil is, for a target that is healthy but kept down by hold-down or
	// damping, the earliest time it can be up again; else it is zero.
	HeldUntil time.Time
}

// RTT is a summary of round-trip times.
type RTT struct {
	Count         uint64
	Sum, Min, Max time.Duration
	// Smoothed moves an eighth of the way with each attempt, as in RFC 6298.
	Smoothed time.Duration
}

func (r *RTT) add(d time.Duration) {
	if r.Count == 0 {
		r.Min, r.Max, r.Smoothed = d, d, d
	}
	r.Count++
	r.Sum += d
	r.Min, r.Max = min(r.Min, d), max(r.Max, d)
	r.Smoothed += (d - r.Smoothed) / 8
}

// Change is one change of a verdict, of a target or of a whole probe.
type Change struct {
	// Seq counts all changes of a Prober, from 1 on.
	Seq uint64
	At  time.Time
	// Probe and Network are of the Config. Target is the target that changed, or
	// that made the probe change; it is empty when Set changed the probe.
	Probe, Network, Target string
	// Whole says that it is the probe that changed, not the target alone.
	Whole    bool
	From, To Verdict
	// Cause is the error of the attempt that led to Down.
	Cause string
	// Detection is, for a change from Up to Down, the time from the start of the
	// first of the failed attempts.
	Detection time.Duration
	// Attempts is how many in a row led to this change; 0 when Set made it.
	Attempts int
	// Suppressed says that this Down began a suppression, Released that this Up is
	// the first after one.
	Suppressed, Released bool
}

// changesKept bounds the changes that a Prober remembers.
const changesKept = 1024

// history is a ring of the last changes.
type history struct {
	ring []Change
	next uint64 // the Seq of the next one, less 1
}

func (h *history) add(c Change) {
	if h.ring == nil {
		h.ring = make([]Change, changesKept)
	}
	c.Seq = h.next + 1
	h.ring[h.next%changesKept] = c
	h.next++
}

// since are the changes after seq that are still known, oldest first.
func (h *history) since(seq uint64) []Change {
	first := max(seq, h.next-min(h.next, changesKept))
	if first >= h.next {
		return nil
	}
	out := make([]Change, 0, h.next-first)
	for i := first; i < h.next; i++ {
		out = append(out, h.ring[i%changesKept])
	}
	return out
}
