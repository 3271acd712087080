package probes

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestUnchangedProbeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var notified atomic.Int32
		p := testProber(quiet(), func() { notified.Add(1) }, w.attempts)
		defer p.Close()
		c := ping("red/icmp", 1)
		mustSet(t, p, c)
		time.Sleep(5 * time.Second)
		before, calls := one(t, p), notified.Load()
		for range 100 { // much more often than the interval
			mustSet(t, p, clone(c))
			time.Sleep(50 * time.Millisecond)
		}
		after := one(t, p)
		if after.Verdict != Up || !after.Since.Equal(before.Since) || notified.Load() != calls {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if n := after.Targets[0].Attempts - before.Targets[0].Attempts; n < 16 || n > 19 {
			t.Errorf("%d attempts in 5 s", n)
		}
	})
}

func TestChangesKeepWhatTheyCan(t *testing.T) {
	http := func(name, body string) Config {
		c := ping(name)
		c.Type, c.HTTP = HTTP, &HTTPConfig{Body: body}
		c.Targets = []Target{{URL: "http://10.0.0.1/"}}
		return c
	}
	for _, c := range []struct {
		name     string
		from, to Config
		keep     []bool // by target of to
	}{
		{name: "thresholds", from: ping("a", 1), to: func() Config { c := ping("a", 1); c.Rise, c.Fall = 5, 7; return c }(), keep: []bool{true}},
		{name: "interval", from: ping("a", 1), to: func() Config { c := ping("a", 1); c.Interval *= 2; return c }(), keep: []bool{true}},
		{name: "timeout", from: ping("a", 1), to: func() Config { c := ping("a", 1); c.AttemptTimeout /= 2; return c }(), keep: []bool{true}},
		{name: "require", from: ping("a", 1), to: func() Config { c := ping("a", 1); c.Require = All; return c }(), keep: []bool{true}},
		{name: "more targets", from: ping("a", 1), to: ping("a", 2, 1), keep: []bool{false, true}},
		{name: "other order", from: ping("a", 1, 2), to: ping("a", 2, 1), keep: []bool{true, true}},
		{name: "device", from: ping("a", 1), to: func() Config { c := ping("a", 1); c.Device = "blue"; return c }(), keep: []bool{false}},
		{name: "source", from: ping("a", 1), to: func() Config { c := ping("a", 1); c.Source = netip.MustParseAddr("10.0.0.9"); return c }(), keep: []bool{false}},
		{name: "http body", from: http("a", "x"), to: http("a", "y"), keep: []bool{false}},
		{name: "spelled out defaults", from: http("a", "x"), to: func() Config { c := http("a", "x"); c.HTTP.Method = "GET"; return c }(), keep: []bool{true}},
		{name: "name", from: ping("a", 1), to: ping("b", 1), keep: []bool{false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				p := testProber(quiet(), nil, w.attempts)
				defer p.Close()
				mustSet(t, p, c.from)
				time.Sleep(5 * time.Second)
				if s := one(t, p); s.Verdict != Up {
					t.Fatalf("%+v", s)
				}
				mustSet(t, p, c.to)
				s := one(t, p)
				for i, keep := range c.keep {
					if got := s.Targets[i].Verdict == Up && s.Targets[i].Attempts > 10; got != keep {
						t.Errorf("target %d kept: %v, want %v: %+v", i, got, keep, s.Targets[i])
					}
				}
				time.Sleep(5 * time.Second)
				for _, ts := range one(t, p).Targets {
					if ts.Verdict != Up || ts.Failures != 0 {
						t.Errorf("later: %+v", ts)
					}
				}
				w.noOverlaps(t)
			})
		})
	}
}

func TestVerdictChangedBySetNotifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.down["a 10.0.0.2"] = true
		var notified atomic.Int32
		p := testProber(quiet(), func() { notified.Add(1) }, w.attempts)
		defer p.Close()
		mustSet(t, p, ping("a", 1, 2))
		time.Sleep(5 * time.Second)
		calls := notified.Load()
		mustSet(t, p, ping("a", 2)) // the one that is up goes
		synctest.Wait()
		if s := one(t, p); s.Verdict != Down || notified.Load() != calls+1 {
			t.Errorf("%+v, notified %d times", s, notified.Load()-calls)
		}
	})
}

func TestRemovedProbeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := testProber(quiet(), nil, w.attempts)
		defer p.Close()
		mustSet(t, p, ping("a", 1), ping("b", 1))
		time.Sleep(5 * time.Second)
		mustSet(t, p, ping("b", 1))
		n := w.count("a 10.0.0.1")
		time.Sleep(5 * time.Second)
		if w.count("a 10.0.0.1") != n {
			t.Error("the removed probe still makes attempts")
		}
		if s := one(t, p); s.Name != "b" || s.Targets[0].Attempts < 30 {
			t.Errorf("%+v", s)
		}
	})
}

func TestStateIsSortedAndOwned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testProber(quiet(), nil, newWorld().attempts)
		defer p.Close()
		c := ping("b", 1)
		mustSet(t, p, c, ping("c", 1), ping("a", 1))
		c.Targets[0].Address = netip.MustParseAddr("10.9.9.9") // the caller's own
		s := p.State()
		if got := []string{s[0].Name, s[1].Name, s[2].Name}; !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("order %v", got)
		}
		s[0].Targets[0].Target = "changed"
		if got := p.State()[0].Targets[0].Target; got != "10.0.0.1" {
			t.Errorf("state shares memory: %q", got)
		}
		mustSet(t, p, ping("a", 1), ping("b", 1), ping("c", 1))
		if got := p.State()[1].Targets[0].Target; got != "10.0.0.1" {
			t.Errorf("set kept the caller's slice: %q", got)
		}
	})
}

func TestWrongConfigsDoNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testProber(quiet(), nil, newWorld().attempts)
		defer p.Close()
		bad, ok := ping("bad", 1), ping("ok", 1)
		mustSet(t, p, bad, ok)
		time.Sleep(5 * time.Second)
		bad.Rise = 0
		twice := ping("ok", 7)
		err := p.Set([]Config{bad, ok, twice})
		want := "run probe \"bad\" (probes[0]): rise: 0 is not within 1 and 1000\n" +
			"run probe \"ok\" (probes[2]): name: used by another probe"
		if err == nil || err.Error() != want {
			t.Errorf("error %v", err)
		}
		if s := one(t, p); s.Name != "ok" || s.Verdict != Up || s.Targets[0].Target != "10.0.0.1" {
			t.Errorf("%+v", s)
		}
	})
}
