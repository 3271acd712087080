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
func TestNextHops(t *testing.T) { nextHops(t, fanOptions{}, 300, 100) }

// TestNextHopsWithoutFlowtable is the same on the way of ordinary packets, with
// too few clients to judge the load.
func TestNextHopsWithoutFlowtable(t *testing.T) { nextHops(t, fanOptions{noFlowtable: true}, 100, 100) }

// hopWorld is the test's state: the flows that are kept, who carries them, and
// which two next hops each client has.
type hopWorld struct {
	*fan
	t       *testing.T
	options fanOptions
	// clients is how many there are, keep how many of them have flows all the time.
	clients, keep int
	leaks         *traffic.Sniffer
	kept          []*flow
	carrier       map[flowKey]int
	pairs         map[netip.Addr]map[int]bool
}

func nextHops(t *testing.T, o fanOptions, clients, keep int) {
	w := &hopWorld{fan: newFan(t, clients), t: t, options: o, clients: clients, keep: keep, pairs: map[netip.Addr]map[int]bool{}}
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
		{"retransmissions", w.retransmissions},
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
		for n := range w.clients {
			for i := range 4 {
				f := w.flow(family, n, false, serverOf(family))
				all = append(all, f)
				if n < w.keep && i < 2 {
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
		mean := w.clients * 4 / lab.FanRouters
		worst := 0.0
		for r := range lab.FanRouters {
			off := float64(flows[r]-mean) / float64(mean)
			worst = max(worst, off, -off)
		}
		t.Logf("%s: flows by router %v, clients by router %d %d %d %d; at most %.1f %% off the mean of %d", family,
			flows, len(clients[0]), len(clients[1]), len(clients[2]), len(clients[3]), 100*worst, mean)
		if worst > 0.15 && w.clients >= 300 {
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
		for n := range w.keep {
			w.kept = append(w.kept, w.flow(family, n, true, serverOf(family)))
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
			for n := range w.keep {
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
		for n := range w.keep {
			client := lab.FanClient(family, n)
			if hops := w.pairs[client]; len(hops) != 2 {
				t.Errorf("%s uses next hops %v, want two", client, slices.Sorted(maps.Keys(hops)))
			}
		}
	}
}

// retransmissions: the server hears nothing of TCP for a while, and clients send
// again. A flow stays on its next hop all the same: clients in this kernel choose
// another hash for what they send again.
func (w *hopWorld) retransmissions(t *testing.T) {
	w.routers.forget()
	w.Server.Must("nft", fmt.Sprintf("table inet deaf { chain in { type filter hook prerouting priority -300; tcp dport %d drop; }; }", lab.TCPPort))
	var tcp []*flow
	for _, f := range w.kept {
		if f.key.tcp {
			tcp = append(tcp, f)
		}
	}
	done := make(chan error, 1)
	go func() { done <- talk(tcp[:16]) }() // as many as talk at the same time
	lab.Eventually(t, patience, "retransmissions", func() error {
		for _, f := range tcp[:16] {
			if n := w.routers.packets(f); n < 4 {
				return fmt.Errorf("%s: %d packets", f, n)
			}
		}
		return nil
	})
	w.Server.Must("nft", "delete table inet deaf")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	now, err := w.routers.of(t.Context(), tcp[:16])
	if err != nil {
		t.Fatal(err)
	}
	for key, r := range now {
		if r != w.carrier[key] {
			t.Errorf("%+v moved from router %d to %d", key, w.carrier[key]+1, r+1)
		}
	}
}

// again talks once more, so that a flow which had to leave the flowtable comes
// back to it, and checks that each is where it was.
func (w *hopWorld) again(t *testing.T) {
	t.Helper()
	w.routers.forget()
	if err := talk(w.kept); err != nil {
		t.Fatal(err)
	}
	now, err := w.routers.of(t.Context(), w.kept)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range w.kept {
		if was, known := w.carrier[f.key]; known && now[f.key] != was {
			t.Errorf("%s moved from router %d to %d", f, was+1, now[f.key]+1)
		}
	}
	w.carrier = now
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
