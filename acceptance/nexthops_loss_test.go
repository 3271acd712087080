package acceptance

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/egret-router/egret/lab"
)

const victim = 2

// lose cuts one router off.
func (w *hopWorld) lose(t *testing.T) {
	w.again(t)
	w.fast(t, "before the loss")
	if err := w.SetRouter(victim, false); err != nil {
		t.Fatal(err)
	}
	w.usable(0, 1, 3)
	w.routers.forget()
	if err := talk(w.kept); err != nil {
		t.Fatal(err)
	}
	now, err := w.routers.of(t.Context(), w.kept)
	if err != nil {
		t.Fatal(err)
	}
	stayed, lost, moved := 0, 0, 0
	hops := map[netip.Addr]map[int]bool{}
	for _, f := range w.kept {
		before, after := w.carrier[f.key], now[f.key]
		switch {
		case after == victim:
			t.Errorf("%s still goes to the router that is cut off", f)
		case before == victim:
			lost++
		case before == after:
			stayed++
		default:
			moved++
			if moved < 5 {
				t.Errorf("%s moved from router %d to %d, and neither was lost", f, before+1, after+1)
			}
		}
		if hops[f.client] == nil {
			hops[f.client] = map[int]bool{}
		}
		hops[f.client][after] = true
	}
	for client, used := range hops {
		if len(used) > 2 {
			t.Errorf("%s uses next hops %v after the loss", client, used)
		}
	}
	t.Logf("%d flows stayed on their next hop, %d of the lost one go on by another, %d moved without need", stayed, lost, moved)
	if stayed == 0 || lost == 0 {
		t.Error("nothing is proved")
	}
	if moved > 0 {
		t.Errorf("%d flows moved without need", moved)
	}
	w.carrier = now
	w.again(t)
	w.fast(t, "after the loss")
}

// returns plugs the router in again: established flows stay where they are, new
// ones have the next hops that their client had at first.
func (w *hopWorld) returns(t *testing.T) {
	if err := w.SetRouter(victim, true); err != nil {
		t.Fatal(err)
	}
	w.usable(0, 1, 2, 3)
	w.routers.forget()
	if err := talk(w.kept); err != nil {
		t.Fatal(err)
	}
	now, err := w.routers.of(t.Context(), w.kept)
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, f := range w.kept {
		if now[f.key] != w.carrier[f.key] {
			moved++
		}
	}
	var fresh []*flow
	for _, family := range lab.Families() {
		for n := range w.keep {
			fresh = append(fresh, w.flow(family, n, false, serverOf(family)), w.flow(family, n, false, serverOf(family)), w.flow(family, n, true, serverOf(family)))
		}
	}
	if err := talk(fresh); err != nil {
		t.Fatal(err)
	}
	carrier, err := w.routers.of(t.Context(), fresh)
	if err != nil {
		t.Fatal(err)
	}
	w.note(t, fresh, carrier) // no third next hop
	back := 0
	for _, f := range fresh {
		if carrier[f.key] == victim {
			back++
		}
	}
	t.Logf("%d of %d established flows moved; %d of %d new flows use the next hop that returned", moved, len(w.kept), back, len(fresh))
	if moved > 0 {
		t.Errorf("%d established flows moved when the next hop returned", moved)
	}
	if want := len(fresh) / lab.FanRouters; back < want*3/4 || back > want*5/4 {
		t.Errorf("%d of %d new flows use the next hop that returned, want about %d", back, len(fresh), want)
	}
	w.again(t)
	w.fast(t, "after the return")
	w.kept = append(w.kept, fresh...)
	w.empty("after the return")
}

// loseAll makes all routers silent to probes. They go on forwarding: what fails
// closed is the gateway.
func (w *hopWorld) loseAll(t *testing.T) {
	for i := range w.Routers {
		if err := w.SetEcho(i, false); err != nil {
			t.Fatal(err)
		}
	}
	w.wait(map[string]string{"red": "Down", "blue": "Up"})
	w.advertised(false)
	w.usable()
	if err := w.BGP.WaitEstablished(t.Context(), patience); err != nil {
		t.Errorf("the session should have stayed: %v", err)
	}
	w.blackholes(t)
	w.routers.forget()
	before := w.leaks.Report()
	var some []*flow
	for i := 0; i < len(w.kept); i += 8 {
		some = append(some, w.kept[i])
	}
	if err := silent(some); err != nil {
		t.Error(err)
	}
	// What was sent on a connection will be answered late, in the place of what is
	// sent then.
	w.kept = slices.DeleteFunc(w.kept, func(f *flow) bool { return f.key.tcp && slices.Contains(some, f) })
	// Later echo requests on the same wire tell that what was sent before is through.
	sent := w.leaks.Report()
	lab.Eventually(t, patience, "later probes", func() error {
		if n := w.leaks.Report().Sources[netip.MustParseAddr("172.16.0.1")] - sent.Sources[netip.MustParseAddr("172.16.0.1")]; n < 8 {
			return fmt.Errorf("%d packets", n)
		}
		return nil
	})
	after := w.leaks.Report()
	passed := 0
	for a, n := range after.Sources {
		if !a.IsLinkLocalUnicast() && a.String() != "172.16.0.1" && a.String() != "fd00:16::1" {
			passed += n - before.Sources[a]
		}
	}
	if passed > 0 {
		t.Errorf("%d packets left the gateway while no next hop works", passed)
	}
	t.Logf("%d flows sent, nothing left the gateway", len(some))
}

// blackholes: of red's groups each is one blackhole. Blue's are two.
func (w *hopWorld) blackholes(t *testing.T) {
	t.Helper()
	groups, blackhole := w.groups()
	closed, open := 0, 0
	for _, g := range groups {
		if len(g.Members) == 1 && blackhole[g.Members[0]] {
			closed++
		} else {
			open++
		}
	}
	t.Logf("%d groups are one blackhole", closed)
	if open != 2 || closed < 2*lab.FanRouters {
		t.Errorf("%d groups are one blackhole and %d are not; want blue's two only\n%s", closed, open, w.Gateway.Must("ip", "nexthop"))
	}
}

// returnAll: every flow goes on, since each of them has its entry still.
func (w *hopWorld) returnAll(t *testing.T) {
	for i := range w.Routers {
		if err := w.SetEcho(i, true); err != nil {
			t.Fatal(err)
		}
	}
	w.usable(0, 1, 2, 3)
	w.up()
	w.empty("after all returned")
	if err := talk(w.kept); err != nil {
		t.Fatal(err)
	}
	w.carrier = nil // where they were is forgotten with the last next hop
	w.again(t)
	w.fast(t, "after all returned")
}
