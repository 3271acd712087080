package probes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// world answers attempts in place of the network.
type world struct {
	mu sync.Mutex
	// down has the targets that do not answer, slow those that answer late,
	// deaf those that do not even notice the end of their attempt.
	down map[string]bool
	slow map[string]time.Duration
	deaf map[string]chan struct{}
	// starts are when attempts began, by target.
	starts map[string][]time.Time
	active map[string]int
	// overlaps counts attempts that began before the one before had ended.
	overlaps int
}

func newWorld() *world {
	return &world{down: map[string]bool{}, slow: map[string]time.Duration{}, deaf: map[string]chan struct{}{},
		starts: map[string][]time.Time{}, active: map[string]int{}}
}

func (w *world) attempts(c Config, t Target) func(context.Context) (time.Duration, error) {
	who := c.Name + " " + t.String()
	return func(ctx context.Context) (time.Duration, error) {
		w.mu.Lock()
		w.starts[who] = append(w.starts[who], time.Now())
		if w.active[who]++; w.active[who] > 1 {
			w.overlaps++
		}
		down, slow, deaf := w.down[who], w.slow[who], w.deaf[who]
		w.mu.Unlock()
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.active[who]--
		}()
		if deaf != nil {
			<-deaf
		}
		if down {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(slow):
			return slow, nil
		}
	}
}

func (w *world) set(who string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[who] = down
}

func (w *world) times(who string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.starts[who])
}

func (w *world) count(who string) int { return len(w.times(who)) }

func (w *world) noOverlaps(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.overlaps != 0 {
		t.Errorf("%d attempts overlapped", w.overlaps)
	}
}

// ping is a probe of addresses 10.0.0.<host>.
func ping(name string, hosts ...byte) Config {
	c := Config{Name: name, Network: "red", Device: "red", Type: ICMP, Require: Any, Interval: 300 * time.Millisecond,
		AttemptTimeout: 300 * time.Millisecond, Rise: 3, Fall: 2}
	for _, h := range hosts {
		c.Targets = append(c.Targets, Target{Address: netip.AddrFrom4([4]byte{10, 0, 0, h})})
	}
	return c
}

// testProber tries targets by calling what attempts makes.
func testProber(log *slog.Logger, notify func(), attempts func(Config, Target) func(context.Context) (time.Duration, error)) *Prober {
	p := newProber(log, notify)
	p.triers = func(c Config, t Target) trier { return &called{prober: p, try: within(attempts(c, t))} }
	return p
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// one is the state of the only probe.
func one(t *testing.T, p *Prober) State {
	t.Helper()
	s := p.State()
	if len(s) != 1 {
		t.Fatalf("%d probes, want one: %v", len(s), s)
	}
	return s[0]
}

func mustSet(t *testing.T, p *Prober, want ...Config) {
	t.Helper()
	if err := p.Set(want); err != nil {
		t.Fatal(err)
	}
}

func TestDetectionWithinASecond(t *testing.T) {
	// Cut at many moments of the interval; none may take longer than promised.
	var worst time.Duration
	for cut := range 60 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			changed := make(chan struct{}, 100)
			p := testProber(quiet(), func() { changed <- struct{}{} }, w.attempts)
			defer p.Close()
			mustSet(t, p, ping("red/icmp", 1))
			<-changed
			if s := one(t, p); s.Verdict != Up || s.Targets[0].Attempts != 3 {
				t.Fatalf("after the first change: %+v", s)
			}
			time.Sleep(time.Duration(cut) * 7 * time.Millisecond)
			start := time.Now()
			w.set("red/icmp 10.0.0.1", true)
			<-changed
			if s := one(t, p); s.Verdict != Down || !s.Since.Equal(time.Now()) || s.Targets[0].LastError == "" {
				t.Fatalf("after the cut: %+v", s)
			}
			worst = max(worst, time.Since(start))
			w.set("red/icmp 10.0.0.1", false)
			<-changed
			if s := one(t, p); s.Verdict != Up {
				t.Fatalf("after the repair: %+v", s)
			}
		})
	}
	t.Logf("worst detection: %v", worst)
	if worst > 900*time.Millisecond {
		t.Errorf("detection took %v, promised are 900ms", worst)
	}
}

func TestAttemptsDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := testProber(quiet(), nil, w.attempts)
		defer p.Close()
		c := ping("red/icmp", 1, 2)
		c.AttemptTimeout = time.Second // more than three intervals
		w.down["red/icmp 10.0.0.1"] = true
		w.slow["red/icmp 10.0.0.2"] = 400 * time.Millisecond
		mustSet(t, p, c)
		time.Sleep(30 * time.Second)
		for i := range 10 { // new clocks, also in the middle of attempts
			c.Interval += time.Millisecond
			mustSet(t, p, c)
			time.Sleep(time.Duration(i) * 137 * time.Millisecond)
		}
		w.noOverlaps(t)
		// One follows the other at once: 1 s each, and 0.4 s each.
		if a, b := w.count("red/icmp 10.0.0.1"), w.count("red/icmp 10.0.0.2"); a < 30 || a > 50 || b < 74 || b > 100 {
			t.Errorf("%d and %d attempts", a, b)
		}
		s := one(t, p)
		if s.Targets[0].Verdict != Down || s.Targets[1].Verdict != Up || s.Verdict != Up {
			t.Errorf("%+v", s)
		}
	})
}

func TestIntervalIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := testProber(quiet(), nil, w.attempts)
		defer p.Close()
		w.slow["red/icmp 10.0.0.1"] = 100 * time.Millisecond // does not add to the interval
		mustSet(t, p, ping("red/icmp", 1))
		time.Sleep(30 * time.Second)
		starts := w.times("red/icmp 10.0.0.1")
		for i := 1; i < len(starts); i++ {
			if gap := starts[i].Sub(starts[i-1]); gap < 270*time.Millisecond || gap > 300*time.Millisecond {
				t.Errorf("gap %v", gap)
			}
		}
		if len(starts) < 99 {
			t.Errorf("%d attempts", len(starts))
		}
	})
}

// TestDeafTarget has an attempt that never ends: it blocks nobody.
func TestDeafTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		free := make(chan struct{})
		w.deaf["a 10.0.0.1"] = free
		p := testProber(quiet(), nil, w.attempts)
		mustSet(t, p, ping("a", 1), ping("b", 1))
		time.Sleep(time.Second)
		start := time.Now()
		c := ping("a", 1)
		c.Interval *= 2
		mustSet(t, p, c, ping("b", 1))
		mustSet(t, p, ping("b", 1))
		if since := time.Since(start); since != 0 {
			t.Errorf("set waited %v", since)
		}
		time.Sleep(5 * time.Second)
		if s := one(t, p); s.Name != "b" || s.Verdict != Up {
			t.Errorf("%+v", s)
		}
		start = time.Now()
		p.Close()
		if since := time.Since(start); since != closeWait {
			t.Errorf("close took %v, want %v", since, closeWait)
		}
		w.noOverlaps(t)
		close(free)
	})
}

// TestNewClockWaitsForTheOldAttempt: a target whose attempt takes its time to
// end does not get a second one beside it, and goes on afterwards.
func TestNewClockWaitsForTheOldAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		free := make(chan struct{})
		w.deaf["a 10.0.0.1"] = free
		p := testProber(quiet(), nil, w.attempts)
		defer p.Close()
		c := ping("a", 1)
		mustSet(t, p, c)
		for range 5 {
			time.Sleep(time.Second)
			c.Interval += time.Millisecond
			mustSet(t, p, c)
		}
		if n := w.count("a 10.0.0.1"); n != 1 {
			t.Errorf("%d attempts while the first goes on", n)
		}
		close(free)
		time.Sleep(5 * time.Second)
		if s := one(t, p); s.Verdict != Up {
			t.Errorf("%+v", s)
		}
		w.noOverlaps(t)
	})
}

// TestLateReportIsIgnored: an attempt may end while Set replaces its runner.
func TestLateReportIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testProber(quiet(), nil, newWorld().attempts)
		defer p.Close()
		c := ping("a", 1)
		c.Rise, c.Fall = 1, 1
		mustSet(t, p, c)
		b, old := p.probes[0], p.probes[0].targets[0]
		runner := old.runner
		for name, change := range map[string]func(){
			"new clock":    func() { c.Interval *= 2 },
			"new question": func() { c.Device = "blue" },
			"removed":      func() { c.Name = "b" },
		} {
			change()
			mustSet(t, p, c)
			p.finish(b, old, runner, outcome{at: time.Now(), err: errTest})
			if s := one(t, p); s.Verdict != Unknown || s.Targets[0].Attempts != 0 {
				t.Errorf("%s: %+v", name, s)
			}
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.down["a 10.0.0.1"] = true
		var calls atomic.Int32
		p := testProber(quiet(), func() { calls.Add(1) }, w.attempts)
		mustSet(t, p, ping("a", 1, 2, 3))
		time.Sleep(5*time.Second + 17*time.Millisecond)
		start := time.Now()
		p.Close()
		if since := time.Since(start); since != 0 {
			t.Errorf("close took %v", since)
		}
		p.Close()
		n, before := w.count("a 10.0.0.2"), calls.Load()
		time.Sleep(5 * time.Second)
		if w.count("a 10.0.0.2") != n || calls.Load() != before {
			t.Error("something goes on after close")
		}
		if err := p.Set([]Config{ping("a", 1)}); !errors.Is(err, ErrClosed) {
			t.Errorf("set after close: %v", err)
		}
		if s := one(t, p); s.Verdict != Up {
			t.Errorf("the last state is gone: %+v", s)
		}
		// synctest fails the test if a goroutine is left.
	})
}

func TestNotifyIsCoalescedAndMayBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var calls atomic.Int32
		free := make(chan struct{})
		var p *Prober
		p = testProber(quiet(), func() {
			_ = p.State() // no lock is held
			if calls.Add(1) == 1 {
				<-free
			}
		}, w.attempts)
		defer p.Close()
		hosts := make([]byte, 100)
		for i := range hosts {
			hosts[i] = byte(i + 1)
		}
		mustSet(t, p, ping("a", hosts...))
		time.Sleep(10 * time.Second)
		for _, ts := range one(t, p).Targets {
			if ts.Verdict != Up {
				t.Errorf("a blocked notify held up %+v", ts)
			}
		}
		close(free)
		synctest.Wait()
		if calls.Load() != 2 {
			t.Errorf("%d calls for 100 changes during one call, want 2", calls.Load())
		}
	})
}

func TestGoroutinesAreBoundedByTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		before := runtime.NumGoroutine()
		p := testProber(quiet(), func() {}, w.attempts)
		var want []Config
		for i := range 3 {
			c := ping(fmt.Sprintf("n%d/icmp", i))
			for h := range 100 {
				c.Targets = append(c.Targets, Target{Address: netip.AddrFrom4([4]byte{10, 0, byte(i), byte(h + 1)})})
			}
			want = append(want, c)
		}
		for i := range 20 { // changes leave nothing behind
			want[1].Interval += time.Duration(i+1) * time.Millisecond
			mustSet(t, p, want...)
			time.Sleep(400 * time.Millisecond)
		}
		synctest.Wait()
		// One more for notify, and some that are not the prober's.
		if n := runtime.NumGoroutine() - before; n > 310 {
			t.Errorf("%d goroutines for 300 targets", n)
		}
		p.Close()
	})
}
