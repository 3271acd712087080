package egress

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/probes"
)

// kinds is the events in short: kind state, one in a word.
func kinds(events []Event) string {
	var out []string
	for _, e := range events {
		out = append(out, string(e.Kind)+"="+strings.ReplaceAll(e.State, " ", "-"))
	}
	return strings.Join(out, " ")
}

func all(r *Router) []Event {
	events, _ := r.events.since(0)
	return events
}

func find(events []Event, kind EventKind, state string) *Event {
	for i := range events {
		if events[i].Kind == kind && events[i].State == state {
			return &events[i]
		}
	}
	return nil
}

// TestEventsOfAFailure follows a network's probe down and up again: what was
// found, what the kernel and BGP were told, in this order, and how long it took.
func TestEventsOfAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := bring(t, w, twoNetworks())
		before := all(r)
		if find(before, EventConfig, "taken") == nil || find(before, EventNetwork, string(PhaseUp)) == nil || find(before, EventPool, "advertised") == nil {
			t.Fatalf("the start is told as: %s", kinds(before))
		}
		time.Sleep(time.Second)
		w.verdict(probes.Down, "red/icmp0")
		time.Sleep(70 * time.Millisecond) // until the loop gets to it
		if err := r.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		events, _ := r.events.since(uint64(len(before)))
		order := kinds(events)
		probe, withdrawn, applied := find(events, EventProbe, "down"), find(events, EventPool, "withdrawn"), find(events, EventNextHop, "applied")
		if probe == nil || withdrawn == nil || applied == nil || find(events, EventNetwork, string(PhaseDown)) == nil {
			t.Fatalf("a failure is told as: %s", order)
		}
		if probe.Seq > withdrawn.Seq || withdrawn.Seq > applied.Seq {
			t.Errorf("the order is %s", order)
		}
		if withdrawn.Withdraw != 70*time.Millisecond || applied.Kernel != 70*time.Millisecond {
			t.Errorf("withdrawn after %v, in the kernel after %v", withdrawn.Withdraw, applied.Kernel)
		}
		count := map[string]uint64{}
		for _, timing := range r.Status().Timings {
			if timing.Network != "red" {
				t.Errorf("a timing of %q", timing.Network)
			}
			for _, n := range timing.Counts {
				count[timing.Stage] += n
			}
		}
		if count[stageKernel] != 1 || count[stageWithdraw] != 1 {
			t.Errorf("timings: %v", count)
		}
		// A round without news tells nothing.
		n := len(all(r))
		if err := r.round(t.Context()); err != nil || len(all(r)) != n {
			t.Errorf("a quiet round (%v) told %s", err, kinds(all(r)[n:]))
		}
	})
}

// TestEventRing: the oldest go first, and the numbers tell of the gap.
func TestEventRing(t *testing.T) {
	l := newEventLog()
	for range eventsKept + 10 {
		l.add(Event{Kind: EventConfig, Cause: strings.Repeat("x", 2*maxEventText)})
	}
	events, _ := l.since(3)
	if len(events) != eventsKept || events[0].Seq != 11 || events[len(events)-1].Seq != eventsKept+10 || len(events[0].Cause) > maxEventText+4 {
		t.Errorf("%d events from %d to %d", len(events), events[0].Seq, events[len(events)-1].Seq)
	}
	if events, _ := l.since(eventsKept + 10); len(events) != 0 {
		t.Errorf("%d events after the last", len(events))
	}
	if events, _ := l.since(eventsKept + 1000); len(events) != 0 {
		t.Errorf("%d events after one that never was", len(events))
	}
}

// TestEventsAreWaitedFor: the next event ends the wait, and so does the context.
func TestEventsAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWorld().daemon(twoNetworks())
		last := uint64(len(all(r)))
		got := make(chan []Event)
		go func() { got <- r.Events(t.Context(), last) }()
		synctest.Wait()
		r.Reject(context.Canceled)
		if events := <-got; kinds(events) != "config=refused" || events[0].Cause != context.Canceled.Error() {
			t.Errorf("waited for %s", kinds(events))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if events := r.Events(ctx, last+1); events != nil {
			t.Errorf("there was nothing to wait for, but %s", kinds(events))
		}
	})
}
