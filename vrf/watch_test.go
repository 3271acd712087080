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

// quiet says that nothing is told of within the time of some processes.
func quiet(r *rig, notes <-chan struct{}) bool {
	for range 8 {
		r.gw.Must("ip", "route", "show")
	}
	return !drain(notes)
}

// TestWatchLeavesOutOwn: of what Apply does to routing nothing is told, with what goes
// with it; what others do at the same time is, and so are addresses.
func TestWatchLeavesOutOwn(t *testing.T) {
	r := newRig(t)
	notes := watching(t, r.real)
	awaitNote(t, "the subscription", notes)
	settle(t, r, notes)
	apply := func(what string, plan vrf.Plan) {
		t.Helper()
		if plan.Empty() {
			t.Fatalf("%s: nothing to do", what)
		}
		must(t, r.real.Apply(t.Context(), plan).Err())
		if !quiet(r, notes) {
			t.Errorf("%s is told:\n%s", what, plan)
		}
	}
	want := routing("192.0.2.1")
	apply("a first plan", vrf.Diff(snapshot(t, r.real), want))
	apply("another gateway", vrf.Diff(snapshot(t, r.real), routing("192.0.2.9")))
	apply("the first again", vrf.Diff(snapshot(t, r.real), want))
	apply("resilient groups", vrf.Diff(snapshot(t, r.real), resilient("a b", vrf.Resilient{Buckets: 8})))
	apply("the first once more", vrf.Diff(snapshot(t, r.real), want))
	hops := vrf.Plan{}
	for _, n := range want.NextHops { // groups and routes go with them
		hops.Ops = append(hops.Ops, vrf.Op{Action: vrf.DeleteNextHop{ID: n.ID}})
	}
	// With the mode on, the kernel tells of IPv6 routes that go with a next hop without
	// saying whose doing it was.
	must(t, r.gw.Sysctl("net.ipv4.nexthop_compat_mode", "0"))
	settle(t, r, notes)
	before := snapshot(t, r.real)
	apply("lost next hops", hops)
	if after, ok := hops.ApplyTo(before); !ok || sameSnapshot(snapshot(t, r.real), after) != "" {
		t.Errorf("followed %t: -kernel +followed:\n%s", ok, sameSnapshot(snapshot(t, r.real), after))
	}
	apply("a repair", vrf.Diff(snapshot(t, r.real), want))

	for _, route := range []string{"blackhole 10.9.9.0/24", "-6 blackhole 2001:db8:99::/48"} {
		family, route, six := strings.Cut(route, " ")
		if !six || family != "-6" {
			family, route = "-4", family+" "+route
		}
		r.gw.Must(strings.Fields("ip " + family + " route add " + route + " table 5000 proto 77")...)
		must(t, r.real.Apply(t.Context(), vrf.Teardown(snapshot(t, r.real))).Err())
		awaitNote(t, "a foreign route between ours", notes)
		must(t, r.real.Apply(t.Context(), vrf.Diff(snapshot(t, r.real), want)).Err())
		drain(notes)
	}
	settle(t, r, notes)
	apply("a teardown", vrf.Teardown(snapshot(t, r.real)))
	must(t, r.real.Apply(t.Context(), vrf.Plan{Ops: []vrf.Op{{Action: vrf.PutAddress{Device: "eth3", Address: vrf.Address{
		Prefix: prefix("10.9.0.1/24"), Protocol: 108, Valid: vrf.Forever, Preferred: vrf.Forever}}}}}).Err())
	awaitNote(t, "an address", notes)
}

// TestWatchFirstOfATable: foreign routes are told in tables that Apply was the first
// to use, without a Snapshot in between.
func TestWatchFirstOfATable(t *testing.T) {
	r := newRig(t)
	plan := vrf.Diff(snapshot(t, r.real), routing("192.0.2.1"))
	notes := watching(t, r.real)
	awaitNote(t, "the subscription", notes)
	must(t, r.real.Apply(t.Context(), plan).Err())
	settle(t, r, notes)
	r.gw.Must("ip", "route", "add", "blackhole", "10.9.9.0/24", "table", "5000", "proto", "77")
	awaitNote(t, "a foreign route", notes)
}
