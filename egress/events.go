package egress

import (
	"context"
	"sync"
	"time"
)

// EventKind is what an Event is about.
type EventKind string

// The kinds of events. Subject and State mean, in this order: a probe and its
// target, the verdict, with what damping began or ended by it; a BFD session, its state; a next hop, usable or lost; a
// peer, the state of the session; a network, its phase; the number of prefixes,
// advertised or withdrawn; the configuration, taken or refused; what somebody
// else changed, repaired; a step of the round, failed; the stage of a drain,
// "taken back" for its end.
const (
	EventProbe   EventKind = "probe"
	EventBFD     EventKind = "bfd"
	EventNextHop EventKind = "next-hop"
	EventBGP     EventKind = "bgp"
	EventNetwork EventKind = "network"
	EventPool    EventKind = "pool"
	EventConfig  EventKind = "config"
	EventRepair  EventKind = "repair"
	EventRound   EventKind = "round"
	EventDrain   EventKind = "drain"
)

// Event is one thing that happened, with its cause and how long it took. Its
// JSON form is an interface: fields are only ever added.
type Event struct {
	// Seq counts the events of one daemon, from 1 on.
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Kind    EventKind `json:"kind"`
	Network string    `json:"network,omitempty"`
	Subject string    `json:"subject,omitempty"`
	State   string    `json:"state"`
	Cause   string    `json:"cause,omitempty"`
	// Attempts is how many attempts of a probe in a row led to its verdict.
	Attempts int `json:"attempts,omitempty"`
	// Detection is from the first sign of a failure (the start of the first failed
	// attempt, the last BFD packet) to the verdict.
	Detection time.Duration `json:"detectionNanoseconds,omitempty"`
	// Kernel is from the verdict until the kernel no longer used what had failed;
	// Withdraw from the verdict until the speaker had been told to withdraw.
	Kernel   time.Duration `json:"kernelNanoseconds,omitempty"`
	Withdraw time.Duration `json:"withdrawNanoseconds,omitempty"`
}

// eventsKept bounds the events that a Router remembers, maxEventText what one
// says.
const (
	eventsKept   = 10_000
	maxEventText = 500
)

// eventLog is a ring of the last events. Its methods may be called from any
// goroutine.
type eventLog struct {
	mu   sync.Mutex
	ring []Event
	seq  uint64
	// more is closed at the next event.
	more chan struct{}
}

func newEventLog() *eventLog { return &eventLog{more: make(chan struct{})} }

// add gives e its number, and its time unless it has one.
func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq = l.seq
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if len(e.Cause) > maxEventText {
		e.Cause = e.Cause[:maxEventText] + " ..."
	}
	if len(l.ring) < eventsKept {
		l.ring = append(l.ring, e)
	} else {
		l.ring[(e.Seq-1)%eventsKept] = e
	}
	close(l.more)
	l.more = make(chan struct{})
}

// since copies the events after a number, oldest first, and gives what is closed
// when there are more.
func (l *eventLog) since(after uint64) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := max(after, l.seq-uint64(len(l.ring)))
	out := make([]Event, 0, max(l.seq, first)-first)
	for n := first; n < l.seq; n++ {
		out = append(out, l.ring[n%eventsKept])
	}
	return out, l.more
}

// Events are those after the one with this number, oldest first; 0 gives all
// that are known, the last 10,000. A first number that does not follow tells of a
// gap. When there are none it waits for one until ctx ends.
func (r *Router) Events(ctx context.Context, after uint64) []Event {
	for {
		events, more := r.events.since(after)
		if len(events) > 0 {
			return events
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// Started is when the Router was made. Numbers of events belong to it.
func (r *Router) Started() time.Time { return r.started }
