package egress

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/flows"
)

// TestBrokenRecord: nothing is drained, and the user is told, until something is
// drained again.
func TestBrokenRecord(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "drain.json"), []byte(`{"version": 1, "networks": {"red": {}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	w, r := drainWorld(t, dir)
	if got := strings.Join(r.Status().Problems, "\n"); !strings.Contains(got, "drain.json") || !strings.Contains(got, "corrupt") || !strings.Contains(got, "drain it again") {
		t.Errorf("problems %q", got)
	}
	if w.drainTells("red") != "A" || phases(r) != "blue Up, red Up" {
		t.Errorf("%s, %s", w.drainTells("red"), phases(r))
	}
	if err := r.Drain(DrainRequest{Network: "red"}); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	if w.drainTells("red") != "LA" || len(r.Status().Problems) != 0 {
		t.Errorf("%s, problems %q", w.drainTells("red"), r.Status().Problems)
	}
}

// fullDisk is a store that fails on demand.
type fullDisk struct {
	drain.File
	full bool
}

func (d *fullDisk) Save(r drain.Records) error {
	if d.full {
		return errors.New("no space left on device")
	}
	return d.File.Save(r)
}

// TestDrainThatCannotBeKept is refused; one that goes on goes on, and is written
// when there is room.
func TestDrainThatCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk := &fullDisk{File: drain.InDir(dir), full: true}
		w := newWorld()
		w.drains = disk
		r := bring(t, w, drained())
		if err := r.Drain(DrainRequest{Network: "red"}); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("drained: %v", err)
		}
		settle(t, r)
		if w.drainTells("red") != "A" {
			t.Errorf("red is %s", w.drainTells("red"))
		}
		disk.full = false
		if err := r.Drain(DrainRequest{Network: "red"}); err != nil {
			t.Fatal(err)
		}
		disk.full = true
		time.Sleep(2 * time.Second)
		settle(t, r)
		if w.drainTells("red") != "LAR" || !strings.Contains(strings.Join(r.Status().Problems, ""), "no space left") {
			t.Errorf("red is %s, problems %q", w.drainTells("red"), r.Status().Problems)
		}
		disk.full = false
		settle(t, r)
		if kept, err := disk.Load(); err != nil || kept.Networks["red"].Stage != drain.Refusing || len(r.Status().Problems) != 0 {
			t.Errorf("%+v, %v, problems %q", kept, err, r.Status().Problems)
		}
		r.drains.timer.arm(0)
	})
}

// TestDrainGateway: all networks, those that come later, and none alone back.
func TestDrainGateway(t *testing.T) {
	dir := t.TempDir()
	w := newWorld()
	w.drains = drain.InDir(dir)
	one := drained()
	one.Networks, one.Pools, one.Policies = one.Networks[:1], one.Pools[:1], one.Policies[:1]
	r := bring(t, w, one)
	for name, err := range map[string]error{"nothing to undrain": r.Undrain(""), "not drained": r.Undrain("red")} {
		if !errors.Is(err, ErrNotDrained) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Drain(DrainRequest{Network: "blue"}); !errors.Is(err, ErrNoSuchNetwork) {
		t.Errorf("a network that is not there: %v", err)
	}
	long := drain.MaxDelay + 1
	if err := r.Drain(DrainRequest{Delay: &long}); err == nil {
		t.Error("a delay beyond its bound")
	}
	if err := r.Drain(DrainRequest{}); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	r.SetSpec(drained())
	r.take()
	settle(t, r)
	w.verdict(1, "blue/icmp0")
	settle(t, r)
	if w.drainTells("red") != "LA" || w.drainOf(t, r, "blue") == nil {
		t.Errorf("red %s, blue %+v", w.drainTells("red"), w.drainOf(t, r, "blue"))
	}
	if err := r.Undrain("red"); !errors.Is(err, ErrWholeGateway) {
		t.Errorf("one of all: %v", err)
	}
	r.SetSpec(one)
	r.take()
	settle(t, r)
	if kept, err := drain.InDir(dir).Load(); err != nil || len(kept.Networks) != 1 || kept.Gateway == nil {
		t.Errorf("after a network is gone: %+v, %v", kept, err)
	}
	if err := r.Undrain(""); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	if w.drainTells("red") != "A" {
		t.Errorf("red %s", w.drainTells("red"))
	}
}

// TestDrainToEnd drains everything, and leaves the next process nothing but what
// an operator asked for.
func TestDrainToEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, r := drainWorld(t, dir)
		w.flows.Add(flowOf(r, "red", "10.244.1.1"))
		w.run(t, r)
		hour := time.Hour
		if err := r.Drain(DrainRequest{Network: "blue", Deadline: &hour}); err != nil {
			t.Fatal(err)
		}
		r.DrainToEnd()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if w.drainTells("red") != "LAR" || w.drainTells("blue") != "LR" || r.DrainedToEnd() {
			t.Fatalf("red %s, blue %s, drained %v", w.drainTells("red"), w.drainTells("blue"), r.DrainedToEnd())
		}
		w.flows.Remove(func(flows.Flow) bool { return true })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if w.drainTells("red") != "LR" || !r.DrainedToEnd() {
			t.Errorf("red %s, drained %v", w.drainTells("red"), r.DrainedToEnd())
		}
		if kept, err := drain.InDir(dir).Load(); err != nil || kept.Gateway != nil || len(kept.Networks) != 1 || kept.Networks["blue"].Stage != drain.Withdrawn {
			t.Errorf("kept %+v, %v", kept, err)
		}
	})
}

// TestStraysDuringFallback: flows that a policy's edit would call back are left
// where they are while the network sends new ones there itself.
func TestStraysDuringFallback(t *testing.T) {
	spec := drained()
	spec.Policies[0].Cut = true
	f := flows.Flow{Src: addrOf("10.244.1.1"), Dst: addrOf("10.0.0.5")}
	for _, tt := range []struct {
		mode NoNextHop
		want bool
	}{{NoNextHopFallback, false}, {NoNextHopDrop, true}} {
		spec.Networks[0].OnNoNextHop = tt.mode
		st := readyState()
		st.Drains = map[string]drain.Record{"red": {Stage: drain.Refusing}}
		d := Resolve(spec, st)
		if got := newJudge(spec, &d, compile(spec).poolIDs, nil, nil).strays(f); got != tt.want {
			t.Errorf("%s: strays %v", tt.mode, got)
		}
	}
}

// TestOldCountEndsNothing: what was counted while new flows were still taken says
// nothing of those that are left. And the delay is kept to the moment.
func TestOldCountEndsNothing(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, r := drainWorld(t, dir)
		delay := 300 * time.Millisecond
		if err := r.Drain(DrainRequest{Network: "red", Delay: &delay}); err != nil {
			t.Fatal(err)
		}
		settle(t, r)
		r.flows.sweep(t.Context(), r.flows.current())
		w.flows.Add(flowOf(r, "red", "10.244.1.1"))
		select {
		case <-r.trigger: // of the request and the sweep
		default:
		}
		begin := time.Now()
		<-r.trigger
		if took := time.Since(begin); took != delay {
			t.Errorf("woken after %s", took)
		}
		settle(t, r)
		settle(t, r)
		if w.drainTells("red") != "LAR" {
			t.Fatalf("red is %s", w.drainTells("red"))
		}
		r.flows.sweep(t.Context(), r.flows.current())
		settle(t, r)
		if d := w.drainOf(t, r, "red"); d.Stage != drain.Refusing || !d.Counted || d.FlowsBegun != 1 {
			t.Errorf("%+v", d)
		}
		r.drains.timer.arm(0)
	})
}

// TestDeadlineWithoutDaemon: one that passes while no daemon runs is kept at
// the start, before anything is advertised.
func TestDeadlineWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w, r := drainWorld(t, dir)
		w.flows.Add(flowOf(r, "red", "10.244.1.1"))
		stop := startLoop(r)
		if err := r.Drain(DrainRequest{Network: "red"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		stop()
		time.Sleep(time.Hour)
		r = w.daemon(drained())
		w.journal = nil
		if err := r.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"speaker advertises 2"}; !slices.Equal(w.journal, want) || w.drainTells("red") != "LR" {
			t.Errorf("the first round did %v; red %s", w.journal, w.drainTells("red"))
		}
		if d := w.drainOf(t, r, "red"); d.Stage != drain.Withdrawn || d.FlowsBegun != 1 || d.FlowsLeft != 1 {
			t.Errorf("%+v", d)
		}
	})
}
