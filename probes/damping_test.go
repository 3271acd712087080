package probes

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// life is a tracker whose target is healthy or not as time says.
type life struct {
	t       tracker
	c       Config
	now     time.Time
	healthy func(now time.Duration) bool
	// changes are when the verdict changed, and to what.
	changes []Change
}

func newLife(c Config, healthy func(now time.Duration) bool) *life {
	return &life{t: newTracker("x", epoch), c: c, now: epoch, healthy: healthy}
}

// run makes attempts every 300 ms, of which failures take the whole time.
func (l *life) run(d time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		o := outcome{start: l.now, at: l.now.Add(time.Millisecond), rtt: time.Millisecond}
		if !l.healthy(l.now.Sub(epoch)) {
			o.at, o.rtt, o.err = l.now.Add(300*time.Millisecond), 0, errTest
		}
		change := Change{At: o.at}
		if l.t.tell(o, &l.c, &change) {
			l.changes = append(l.changes, change)
		}
		l.now = l.now.Add(300 * time.Millisecond)
	}
}

func (l *life) since(c Change) time.Duration { return c.At.Sub(epoch) }

// flapping is one second up and one second down until the given time.
func flapping(period, until time.Duration) func(time.Duration) bool {
	return func(now time.Duration) bool { return now >= until || now%period < period/2 }
}

// TestFlapsSettle: a target that flaps every second, fast enough for its
// thresholds to follow, is soon kept down, stays down while it goes on, and is
// up again within MaxSuppress of the end.
func TestFlapsSettle(t *testing.T) {
	damping := DefaultDamping()
	for _, period := range []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second} {
		c := Config{Rise: 2, Fall: 2, Damping: &damping}
		l := newLife(c, flapping(period, 10*time.Minute))
		l.run(10 * time.Minute)
		last := l.changes[len(l.changes)-1]
		if last.To != Down || !last.Suppressed || l.since(last) > 45*time.Second || len(l.changes) > 20 {
			t.Fatalf("period %v: %d changes, the last after %v: %+v", period, len(l.changes), l.since(last), last)
		}
		before := len(l.changes)
		t.Logf("period %v: settled after %v and %d changes, penalty %.0f", period, l.since(last), before, l.t.state.Penalty)
		if s := l.t.state; !s.Suppressed || s.Penalty < 1000 || s.Penalty > damping.Ceiling() {
			t.Errorf("period %v: state %+v", period, s)
		}
		l.run(2 * time.Minute)
		if len(l.changes) != before+1 {
			t.Fatalf("period %v: %d changes after the end, want one", period, len(l.changes)-before)
		}
		if up := l.since(l.changes[before]) - 10*time.Minute; up > damping.MaxSuppress+time.Second || up < 5*time.Second {
			t.Errorf("period %v: up %v after the last flap", period, up)
		}
		if s := l.t.state; s.Verdict != Up || s.Suppressed || !s.HeldUntil.IsZero() {
			t.Errorf("period %v: at the end %+v", period, s)
		}
		for i, change := range l.changes {
			if change.Suppressed != (i == before-1) || change.Released != (i == before) {
				t.Errorf("period %v: change %d of %d: %+v", period, i, before, change)
			}
		}
	}
	// Without damping it would follow every flap.
	l := newLife(Config{Rise: 2, Fall: 2}, flapping(2*time.Second, time.Hour))
	l.run(time.Minute)
	if len(l.changes) < 50 {
		t.Errorf("%d changes without damping: the test shows nothing", len(l.changes))
	}
}

// TestOutagesAreNotFlaps: a long outage, and one every ten seconds, are followed
// without delay.
func TestOutagesAreNotFlaps(t *testing.T) {
	damping := DefaultDamping()
	c := Config{Rise: 3, Fall: 2, Damping: &damping}
	for name, healthy := range map[string]func(time.Duration) bool{
		"long":  func(now time.Duration) bool { return now < time.Minute || now > time.Hour },
		"often": flapping(10*time.Second, time.Hour),
	} {
		damped, plain := newLife(c, healthy), newLife(Config{Rise: 3, Fall: 2}, healthy)
		damped.run(70 * time.Minute)
		plain.run(70 * time.Minute)
		if len(damped.changes) != len(plain.changes) || len(plain.changes) < 3 {
			t.Fatalf("%s: %d changes, %d without damping", name, len(damped.changes), len(plain.changes))
		}
		for i := range plain.changes {
			if damped.changes[i].At != plain.changes[i].At {
				t.Errorf("%s: change %d at %v, without damping at %v", name, i, damped.changes[i].At, plain.changes[i].At)
			}
		}
	}
}

func TestHoldDown(t *testing.T) {
	c := Config{Rise: 3, Fall: 2, HoldDown: 10 * time.Second}
	// Healthy, down at 5 s, healthy at 10 s but for one failed attempt at 15 s.
	l := newLife(c, func(now time.Duration) bool {
		return now < 5*time.Second || now > 10*time.Second && (now < 15*time.Second || now > 15300*time.Millisecond)
	})
	l.run(20 * time.Second)
	if len(l.changes) != 2 || l.changes[0].To != Up || l.changes[1].To != Down {
		t.Fatalf("%+v", l.changes)
	}
	if up := l.since(l.changes[0]); up > time.Second {
		t.Errorf("the first Up was held: %v", up)
	}
	if down := l.since(l.changes[1]); down > 6*time.Second {
		t.Errorf("Down was held: %v", down)
	}
	if held := l.t.state.HeldUntil.Sub(epoch); held < 25*time.Second || held > 26*time.Second {
		t.Errorf("held until %v", held)
	}
	l.run(20 * time.Second)
	if len(l.changes) != 3 || l.since(l.changes[2]) < 25*time.Second || l.since(l.changes[2]) > 26*time.Second {
		t.Errorf("%+v", l.changes)
	}
	if !l.t.state.HeldUntil.IsZero() {
		t.Errorf("held while up: %+v", l.t.state)
	}
}

// TestDetectionTime counts from the start of the first failed attempt.
func TestDetectionTime(t *testing.T) {
	l := newLife(Config{Rise: 1, Fall: 3}, func(now time.Duration) bool { return now < 3*time.Second })
	l.run(10 * time.Second)
	if got := l.t.state.Detection; got != 900*time.Millisecond {
		t.Errorf("detection %v, want 3 attempts of 300ms", got)
	}
}

// TestDampingOff: without damping nothing is remembered; turning it off
// releases.
func TestDampingOff(t *testing.T) {
	damping := DefaultDamping()
	l := newLife(Config{Rise: 2, Fall: 2, Damping: &damping}, flapping(2*time.Second, 30*time.Second))
	l.run(31 * time.Second)
	if !l.t.state.Suppressed {
		t.Fatalf("%+v", l.t.state)
	}
	l.c.Damping = nil
	l.run(time.Second)
	if s := l.t.state; s.Suppressed || s.Penalty != 0 || s.Verdict != Up {
		t.Errorf("%+v", s)
	}
}

// TestMeritProperty: whatever happens, the figure is between 0 and the ceiling,
// what is suppressed is at least at Reuse, and what is left alone is released at
// the time that release said, which is at most MaxSuppress away.
func TestMeritProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		d := &Damping{Penalty: 1 + random.IntN(5000), Reuse: 1 + random.IntN(2000), HalfLife: time.Second + time.Duration(random.Int64N(int64(time.Minute)))}
		d.Suppress = d.Reuse + 1 + random.IntN(5000)
		d.MaxSuppress = time.Duration(math.Log2(float64(d.Suppress)/float64(d.Reuse))*float64(d.HalfLife)) + time.Second
		var m merit
		now := epoch
		for range 200 {
			now = now.Add(time.Duration(random.Int64N(int64(d.HalfLife) / 2)))
			m.decay(d, now)
			if random.IntN(3) == 0 {
				m.flap(d)
			}
			if m.figure < 0 || m.figure > d.Ceiling()+1e-6 || m.suppressed && m.figure < float64(d.Reuse) {
				t.Fatalf("%+v: %+v", d, m)
			}
		}
		if !m.suppressed {
			continue
		}
		at := m.release(d)
		if wait := at.Sub(now); wait > d.MaxSuppress+time.Millisecond {
			t.Fatalf("%+v: released after %v", d, wait)
		}
		early, late := m, m
		early.decay(d, at.Add(-10*time.Millisecond))
		late.decay(d, at.Add(10*time.Millisecond))
		if !early.suppressed && at.Sub(now) > 10*time.Millisecond || late.suppressed {
			t.Fatalf("%+v: not released at the time said: %+v %+v", d, early, late)
		}
	}
}
