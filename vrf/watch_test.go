package vrf_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
)

// watching runs Watch and returns the channel of its notifications.
func watching(t *testing.T, k *vrf.Kernel) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	notes, ended := make(chan struct{}, 1), make(chan error)
	go func() {
		ended <- k.Watch(ctx, func() {
			select {
			case notes <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
	return notes
}

func awaitNote(t *testing.T, what string, notes <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitKernel)
	defer cancel()
	select {
	case <-notes:
	case <-ctx.Done():
		t.Fatalf("no notification of %s", what)
	}
}

// TestWatch: everything that a snapshot shows, and settings of devices, are told;
// routes of others are not.
func TestWatch(t *testing.T) {
	r := newRig(t)
	want := routing("192.0.2.1")
	must(t, r.real.Apply(t.Context(), vrf.Diff(snapshot(t, r.real), want)).Err())
	snapshot(t, r.real)
	notes := watching(t, r.real)
	awaitNote(t, "the subscription", notes)
	for _, command := range []string{
		"ip addr add 10.9.0.1/24 dev eth3", "ip -6 addr add fd00:9::1/64 dev eth3",
		"ip rule del pref 810", "ip -6 rule del pref 810",
		"ip route del blackhole 198.51.100.0/28 table 5000", "ip -6 route del prohibit 2001:db8:1::/48 table 5000",
		fmt.Sprintf("ip nexthop del id %d", want.NextHops[0].ID),
		"ip link set eth2 alias x",
		"sysctl -qw net.ipv4.conf.eth2.rp_filter=2", "sysctl -qw net.ipv6.conf.eth2.forwarding=1",
	} {
		drain(notes)
		r.gw.Must(strings.Fields(command)...)
		awaitNote(t, command, notes)
	}
	if err := r.far.SetLink("eth4", false); err != nil {
		t.Fatal(err)
	}
	awaitNote(t, "a pulled cable", notes)

	// A thousand routes of others, then one address: the address must be what is
	// told, so the routes in between are not.
	settle(t, r, notes)
	var batch strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&batch, "route add blackhole 20.0.%d.%d/32 table 100 proto 77\n", i/256, i%256)
	}
	runBatch(t, r, batch.String())
	select {
	case <-notes:
		t.Error("routes of others are told")
	default:
	}
	r.gw.Must("ip", "addr", "add", "10.9.9.1/24", "dev", "eth3")
	awaitNote(t, "an address after routes of others", notes)
}

// settle makes a change and waits until notifications of it have ceased.
func settle(t *testing.T, r *rig, notes <-chan struct{}) {
	t.Helper()
	r.gw.Must("ip", "link", "set", "eth2", "alias", "settled")
	awaitNote(t, "an alias", notes)
	for quiet := 0; quiet < 20; {
		r.gw.Must("ip", "route", "show") // gives late events the time of some processes
		if drain(notes) {
			quiet = 0
		} else {
			quiet++
		}
	}
}

func drain(notes <-chan struct{}) (some bool) {
	for {
		select {
		case <-notes:
			some = true
		default:
			return some
		}
	}
}

func runBatch(t *testing.T, r *rig, batch string) {
	t.Helper()
	cmd := r.gw.Command(t.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	if _, err := r.gw.RunCommand(cmd); err != nil {
		t.Fatal(err)
	}
}

// TestWatchOverflow loses events: Watch must say that something happened, and be
// there for the next.
func TestWatchOverflow(t *testing.T) {
	r := newRig(t)
	r.real.SetWatchBuffer(1)
	notes := watching(t, r.real)
	awaitNote(t, "the subscription", notes)
	var batch strings.Builder
	for i := range 500 {
		fmt.Fprintf(&batch, "link set eth%d alias storm%d\n", 1+i%3, i)
	}
	// Whether a storm overflows the buffer depends on who gets the processor.
	lab.Eventually(t, waitKernel, "an overflow", func() error {
		runBatch(t, r, batch.String())
		awaitNote(t, "a storm of events", notes)
		if !strings.Contains(r.log.String(), "kernel events lost") {
			return errors.New("nothing was lost")
		}
		return nil
	})
	settle(t, r, notes)
	r.gw.Must("ip", "addr", "add", "10.9.0.1/24", "dev", "eth3")
	awaitNote(t, "an address after the storm", notes)
}

// TestWatchEndsWithContext ends before and after it has begun.
func TestWatchEndsWithContext(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	if err := r.real.Watch(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch returned %v", err)
	}
	if err := r.real.Watch(ctx, func() { t.Error("notified") }); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch returned %v", err)
	}
	if _, err := r.real.Snapshot(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Snapshot returned %v", err)
	}
	result := r.real.Apply(ctx, vrf.Diff(vrf.Snapshot{Owner: owner}, routing("192.0.2.1")))
	if result.Applied != 0 || !errors.Is(result.Err(), context.Canceled) {
		t.Errorf("Apply: %d applied, %v", result.Applied, result.Err())
	}
	lab.Eventually(t, waitKernel, "an untouched kernel", func() error {
		if left := snapshot(t, r.real).Config; len(left.NextHops)+len(left.Routes)+len(left.Rules) > 0 {
			return fmt.Errorf("it has %+v", left)
		}
		return nil
	})
}
