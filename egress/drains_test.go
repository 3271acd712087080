package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/probes"
)

// drained is twoNetworks with what the configuration says of drains.
func drained() *Spec {
	s := twoNetworks()
	s.Settings.Drain = drain.Order{Delay: time.Second, Deadline: 5 * time.Minute}
	return s
}

// TestResolveDrains: what each stage asks of the speaker and the packet filter.
func TestResolveDrains(t *testing.T) {
	for _, mode := range []NoNextHop{NoNextHopDrop, NoNextHopReject, NoNextHopFallback} {
		for _, tt := range []struct {
			stage      drain.Stage
			draining   bool
			advertises int
			refuses    bool
		}{
			{drain.None, false, 2, false}, {drain.Lowered, true, 2, false}, {drain.Refusing, true, 2, true}, {drain.Withdrawn, true, 0, true},
		} {
			spec, st := drained(), readyState()
			for i := range spec.Networks {
				spec.Networks[i].OnNoNextHop = mode
			}
			st.Drains = map[string]drain.Record{"red": {Stage: tt.stage}}
			d := Resolve(spec, st)
			if !d.network("red").Up {
				t.Errorf("%s: red is not up: its flows would be dropped", tt.stage)
			}
			for _, c := range d.BGP {
				want := fmt.Sprint(c.Network == "red" && tt.draining, 2)
				if c.Network == "red" {
					want = fmt.Sprint(tt.draining, tt.advertises)
				}
				if got := fmt.Sprint(c.Draining, len(c.Advertise)); got != want {
					t.Errorf("%s: %s: draining, advertised: %s, want %s", tt.stage, c.Network, got, want)
				}
			}
			for _, e := range d.NAT.Exits {
				refuses := e.Fallback || e.Refuse == nat.Drop || e.Refuse == nat.Reject
				right := mode == NoNextHopFallback && e.Fallback || mode == NoNextHopReject && e.Refuse == nat.Reject || mode == NoNextHopDrop && e.Refuse == nat.Drop
				if want := e.Network == "red" && tt.refuses; refuses != want || want && !right {
					t.Errorf("%s, %s: exit %+v", tt.stage, mode, e)
				}
			}
			flow := Flow{Src: addrOf("10.244.1.7"), Dst: addrOf("10.0.0.5")}
			e := Explain(spec, st, &d, flow)
			if said := strings.Contains(text(e), "drain: network red is drained: "); said != tt.draining || e.Dropped != (tt.refuses && mode != NoNextHopFallback) {
				t.Errorf("%s, %s: dropped %v\n%s", tt.stage, mode, e.Dropped, text(e))
			}
		}
	}
}

// TestDrainKeepsClients: the clients' routers are led elsewhere when the pools are
// withdrawn, and not before.
func TestDrainKeepsClients(t *testing.T) {
	for stage, want := range map[drain.Stage]string{drain.None: "10.0.0.0/8 [red blue]", drain.Lowered: "10.0.0.0/8 [red blue]",
		drain.Refusing: "10.0.0.0/8 [red blue]", drain.Withdrawn: "10.0.0.0/8 [blue]"} {
		spec, st := withClientBGP(), readyState()
		st.Drains = map[string]drain.Record{"red": {Stage: stage}}
		d := Resolve(spec, st)
		for _, c := range d.BGP {
			if c.Network != ClientsNetwork {
				continue
			}
			got := "nothing"
			for _, a := range c.Advertise {
				if a.Prefix.String() == "10.0.0.0/8" {
					got = map[uint32]string{10: "10.0.0.0/8 [red blue]", 110: "10.0.0.0/8 [blue]"}[*a.MED]
				}
			}
			if got != want || c.Draining {
				t.Errorf("%s: %s, want %s", stage, got, want)
			}
		}
	}
}

// run runs the loop in a bubble until the test's end.
func (w *world) run(t *testing.T, r *Router) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
}

// stop ends a loop that was started with the context's cancel.
func startLoop(r *Router) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	synctest.Wait()
	return func() { cancel(); <-done }
}

// network is a network's status.
func (w *world) drainOf(t *testing.T, r *Router, name string) *DrainStatus {
	t.Helper()
	for _, n := range r.Status().Networks {
		if n.Name == name {
			return n.Drain
		}
	}
	t.Fatalf("no network %s", name)
	return nil
}

// drainTells is what red's routers are told and what its exit does: "L" for a lowered
// preference, "A" for what is advertised, "R" for new flows refused.
func (w *world) drainTells(network string) string {
	out := ""
	c, _ := w.speaker.Config(network)
	if c.Draining {
		out += "L"
	}
	if len(c.Advertise) > 0 {
		out += "A"
	}
	for _, l := range w.filter.Ruleset().Chains["exit_"+network+"."+network+"-pool"].Lines {
		if strings.Contains(l.Text, "0x10000004") {
			out += "R"
		}
	}
	return out
}

// flowOf is a flow of a network.
func flowOf(r *Router, network string, client string) flows.Flow {
	return flows.Flow{Mark: uint32(exitMark(r.prev.network(network).Index, r.compiled.poolIDs[network+"-pool"])), Proto: 6,
		Src: addrOf(client), Dst: addrOf("10.0.0.5"), Address: addrOf("198.51.100.3")}
}

func isClient(client string) func(flows.Flow) bool {
	return func(f flows.Flow) bool { return f.Src == netip.MustParseAddr(client) }
}

// settled brings a gateway with drains in a directory; the loop is not running.
func drainWorld(t *testing.T, dir string) (*world, *Router) {
	w := newWorld()
	w.drains = drain.InDir(dir)
	return w, bring(t, w, drained())
}

// TestDrainRunsItsCourse: preference, new flows, waiting, withdrawal, in this
// order, and the way back; the other network notices nothing.
func TestDrainRunsItsCourse(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, r := drainWorld(t, dir)
		closed := flowOf(r, "red", "10.244.1.9")
		closed.Closed = true
		w.flows.Add(flowOf(r, "red", "10.244.1.1"), flowOf(r, "red", "10.244.1.2"), flowOf(r, "red", "10.244.1.3"), closed, flowOf(r, "blue", "10.244.2.1"))
		w.run(t, r)
		expect := func(when, told string, stage drain.Stage, flowsLeft int) {
			t.Helper()
			synctest.Wait()
			if got := w.drainTells("red"); got != told {
				t.Fatalf("%s: red is %q, want %q", when, got, told)
			}
			if got := w.drainTells("blue"); got != "A" || w.drainOf(t, r, "blue") != nil {
				t.Errorf("%s: blue is %q", when, got)
			}
			if d := w.drainOf(t, r, "red"); (d == nil) != (stage == drain.None) || d != nil && (d.Stage != stage || d.Flows != flowsLeft) {
				t.Errorf("%s: %+v, want %s with %d flows", when, d, stage, flowsLeft)
			}
		}
		expect("before", "A", drain.None, 0)
		if err := r.Drain(DrainRequest{Network: "red"}); err != nil {
			t.Fatal(err)
		}
		expect("asked for", "LA", drain.Lowered, 3)
		time.Sleep(900 * time.Millisecond)
		expect("before the delay's end", "LA", drain.Lowered, 3)
		time.Sleep(100 * time.Millisecond)
		expect("after the delay", "LAR", drain.Refusing, 3)
		if got := phases(r); got != "blue Up, red Draining" {
			t.Error(got)
		}
		w.flows.Remove(isClient("10.244.1.1"))
		time.Sleep(time.Second)
		expect("one flow less", "LAR", drain.Refusing, 2)
		time.Sleep(time.Minute)
		expect("a minute later", "LAR", drain.Refusing, 2)
		w.flows.Remove(func(f flows.Flow) bool { return isClient("10.244.1.2")(f) || isClient("10.244.1.3")(f) })
		time.Sleep(2 * time.Second)
		expect("no flows", "LR", drain.Withdrawn, 0)
		if d := w.drainOf(t, r, "red"); !d.Counted || d.FlowsBegun != 3 || d.FlowsEnded != 3 || d.FlowsLeft != 0 {
			t.Errorf("%+v", d)
		}
		for _, p := range r.Status().Pools {
			if p.Network == "red" && (p.Advertised || p.Reason != "network red is drained") {
				t.Errorf("%+v", p)
			}
		}
		if err := r.Undrain("red"); err != nil {
			t.Fatal(err)
		}
		expect("undrained", "A", drain.None, 0)
		if got := phases(r); got != "blue Up, red Up" {
			t.Error(got)
		}
		var told []string
		for _, e := range r.Events(t.Context(), 0) {
			if e.Kind == EventDrain {
				told = append(told, e.Network+" "+e.State)
			}
		}
		if want := []string{"red lowered", "red refusing", "red withdrawn", "red taken back"}; !slices.Equal(told, want) {
			t.Errorf("events %v, want %v", told, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "drain.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the record is left: %v", err)
		}
	})
}

// TestDrainDeadline: what is left at the deadline stays, or is cut if asked for.
func TestDrainDeadline(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprint("cut ", cut), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w, r := drainWorld(t, dir)
				w.flows.Add(flowOf(r, "red", "10.244.1.1"), flowOf(r, "red", "10.244.1.2"), flowOf(r, "blue", "10.244.2.1"))
				w.run(t, r)
				deadline := 30 * time.Second
				if err := r.Drain(DrainRequest{Network: "red", Deadline: &deadline, Cut: cut}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				w.flows.Remove(isClient("10.244.1.1"))
				time.Sleep(24 * time.Second)
				synctest.Wait()
				if w.drainTells("red") != "LAR" || len(w.flows.Flows()) != 2 {
					t.Fatalf("before the deadline: %s, flows %v", w.drainTells("red"), w.flows.Flows())
				}
				time.Sleep(time.Second)
				synctest.Wait()
				left := 2
				if cut {
					left = 1
				}
				if w.drainTells("red") != "LR" || len(w.flows.Flows()) != left {
					t.Errorf("after the deadline: %s, flows %v", w.drainTells("red"), w.flows.Flows())
				}
				if d := w.drainOf(t, r, "red"); d.FlowsBegun != 2 || d.FlowsEnded != 1 || d.FlowsLeft != 1 {
					t.Errorf("%+v", d)
				}
			})
		})
	}
}

// TestDrainSurvivesRestart: another process goes on where the one before was
// killed, with the same deadline, and lets nothing in between.
func TestDrainSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, r := drainWorld(t, dir)
		flow := flowOf(r, "red", "10.244.1.1")
		w.flows.Add(flow)
		stop := startLoop(r)
		if err := r.Drain(DrainRequest{Network: "red"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		before := w.drainOf(t, r, "red")
		stop()
		time.Sleep(time.Minute)
		r = w.daemon(drained())
		w.journal = nil
		if err := r.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"speaker advertises 4"}; !slices.Equal(w.journal, want) || w.drainTells("red") != "LAR" || w.drainTells("blue") != "A" {
			t.Fatalf("the first round did %v; red %s, blue %s", w.journal, w.drainTells("red"), w.drainTells("blue"))
		}
		if after := w.drainOf(t, r, "red"); !after.Deadline.Equal(before.Deadline) || after.FlowsBegun != 1 || after.Stage != drain.Refusing {
			t.Errorf("%+v became %+v", before, after)
		}
		w.learn()
		w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
		w.run(t, r)
		r.trigger.Fire()
		w.flows.Remove(func(flows.Flow) bool { return true })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if d := w.drainOf(t, r, "red"); w.drainTells("red") != "LR" || d.FlowsEnded != 1 {
			t.Errorf("%s, %+v", w.drainTells("red"), d)
		}
	})
}
