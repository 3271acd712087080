package acceptance

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// TestNextHops: four next hops of which two carry a client's traffic. The load
// is even; one is lost, and only its flows move; it returns, and nothing moves; all
// are lost, and nothing leaves the gateway; all return. The flows are offloaded.
func TestNextHops(t *testing.T) { nextHops(t, fanOptions{}) }

// TestNextHopsWithoutFlowtable is the same on the way of ordinary packets.
func TestNextHopsWithoutFlowtable(t *testing.T) { nextHops(t, fanOptions{noFlowtable: true}) }

const (
	loadClients = 300
	keptClients = 100
)

// hopWorld is the test's state: the flows that are kept, who carries them, and
// which two next hops each client has.
type hopWorld struct {
	*fan
	t       *testing.T
	options fanOptions
	leaks   *traffic.Sniffer
	kept    []*flow
	carrier map[flowKey]int
	pairs   map[netip.Addr]map[int]bool
}

func nextHops(t *testing.T, o fanOptions) {
	w := &hopWorld{fan: newFan(t, loadClients), t: t, options: o, pairs: map[netip.Addr]map[int]bool{}}
	begin := time.Now()
	w.boot(o)
	w.usable(0, 1, 2, 3)
	leaks, err := w.SniffGateway(traffic.SnifferOptions{Allowed: prefixes(fanPool4, fanPool6, "172.16.0.1/32", "fd00:16::1/128")})
	if err != nil {
		t.Fatal(err)
	}
	w.leaks = leaks
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"load", w.load},
		{"exactly two", w.exactlyTwo},
		{"one is lost", w.lose},
		{"it returns", w.returns},
		{"all are lost", w.loseAll},
		{"all return", w.returnAll},
	} {
		if !t.Run(step.name, step.do) {
			break
		}
		t.Logf("%4.0f s  %s", time.Since(begin).Seconds(), step.name)
	}
	if err := w.routers.dropped(); err != nil {
		t.Error(err)
	}
	r, err := leaks.Stop()
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Errorf("what the gateway sent: %v", err)
	}
}

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// load opens four flows of every client in each family, and counts what each
// router has of them. Those of the first clients stay open, with TCP ones.
func (w *hopWorld) load(t *testing.T) {
	var all []*flow
	for _, family := range lab.Families() {
		for n := range loadClients {
			for range 4 {
				f := w.flow(family, n, false, serverOf(family))
				all = append(all, f)
				if n < keptClients {
					w.kept = append(w.kept, f)
				}
			}
		}
	}
	if err := talk(all); err != nil {
		t.Fatal(err)
	}
	carrier, err := w.routers.of(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range lab.Families() {
		flows, clients := map[int]int{}, map[int]map[netip.Addr]bool{}
		for _, f := range all {
			if f.key.v6 != (family == lab.IPv6) {
				continue
			}
			r := carrier[f.key]
			flows[r]++
			if clients[r] == nil {
				clients[r] = map[netip.Addr]bool{}
			}
			clients[r][f.client] = true
		}
		const mean = loadClients * 4 / lab.FanRouters
		worst := 0.0
		for r := range lab.FanRouters {
			off := float64(flows[r]-mean) / mean
			worst = max(worst, off, -off)
		}
		t.Logf("%s: flows by router %v, clients by router %d %d %d %d; at most %.1f %% off the mean of %d", family,
			flows, len(clients[0]), len(clients[1]), len(clients[2]), len(clients[3]), 100*worst, mean)
		if worst > 0.15 {
			t.Errorf("%s: the load is uneven by %.1f %%", family, 100*worst)
		}
	}
	w.note(t, all, carrier)
	for _, f := range all {
		if !slices.Contains(w.kept, f) {
			f.close()
		}
	}
}

// note takes down which next hops a client's flows have, more than two of which
// are an error.
func (w *hopWorld) note(t *testing.T, flows []*flow, carrier map[flowKey]int) {
	t.Helper()
	for _, f := range flows {
		if w.pairs[f.client] == nil {
			w.pairs[f.client] = map[int]bool{}
		}
		w.pairs[f.client][carrier[f.key]] = true
	}
	for client, hops := range w.pairs {
		if len(hops) > 2 {
			t.Errorf("%s uses next hops %v", client, slices.Sorted(maps.Keys(hops)))
		}
	}
}

// exactlyTwo gives each of the kept clients flows until two next hops have been
// seen: with the second one carrying nothing for 64 flows it has only one.
func (w *hopWorld) exactlyTwo(t *testing.T) {
	for _, family := range lab.Families() {
		for n := range keptClients {
			w.kept = append(w.kept, w.flow(family, n, true, serverOf(family)), w.flow(family, n, true, serverOf(family)))
		}
	}
	for round := range 7 {
		w.routers.forget()
		if err := talk(w.kept); err != nil {
			t.Fatal(err)
		}
		carrier, err := w.routers.of(t.Context(), w.kept)
		if err != nil {
			t.Fatal(err)
		}
		for key, r := range w.carrier {
			if carrier[key] != r {
				t.Errorf("%+v moved from router %d to %d without a reason", key, r+1, carrier[key]+1)
			}
		}
		w.carrier = carrier
		w.note(t, w.kept, carrier)
		more := 0
		for _, family := range lab.Families() {
			for n := range keptClients {
				if len(w.pairs[lab.FanClient(family, n)]) < 2 {
					for range 2 + 2*round {
						w.kept = append(w.kept, w.flow(family, n, false, serverOf(family)))
					}
					more++
				}
			}
		}
		t.Logf("%d flows, %d clients have been seen with one next hop only", len(w.kept), more)
		if more == 0 {
			break
		}
	}
	for _, family := range lab.Families() {
		for n := range keptClients {
			client := lab.FanClient(family, n)
			if hops := w.pairs[client]; len(hops) != 2 {
				t.Errorf("%s uses next hops %v, want two", client, slices.Sorted(maps.Keys(hops)))
			}
		}
	}
}

// fast wants the flowtable to carry the kept flows, or none of them.
func (w *hopWorld) fast(t *testing.T, when string) {
	t.Helper()
	n := w.offloaded(w.kept)
	t.Logf("%s: %d of %d flows are offloaded", when, n, len(w.kept))
	switch {
	case w.options.noFlowtable && n > 0:
		t.Errorf("%s: %d flows are offloaded without a flowtable", when, n)
	case !w.options.noFlowtable && n < len(w.kept)*9/10:
		t.Errorf("%s: only %d of %d flows are offloaded", when, n, len(w.kept))
	}
}

const victim = 2

// lose cuts one router off.
func (w *hopWorld) lose(t *testing.T) {
	if err := talk(w.kept); err != nil {
		t.Fatal(err)
	}
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
	if moved > 0 || stayed == 0 || lost == 0 {
		t.Errorf("%d flows moved without need", moved)
	}
	w.carrier = now
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
		for n := range keptClients {
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
	w.fast(t, "after the return")
	w.empty("after the return")
	w.kept = append(w.kept, fresh...)
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
		t.Error(err)
	}
	w.fast(t, "after all returned")
}
