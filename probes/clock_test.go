package probes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestClock: every alarm rings once for each time it is set to, never late,
// never more than its slack early; what was cleared does not ring.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newClock()
		go c.run(ctx)
		random := rand.New(rand.NewPCG(5, 6))
		const n = 200
		var all [n]*alarm
		var due [n]time.Time
		var rang [n]int
		wakeups, last := 0, time.Time{}
		for i := range all {
			a := &alarm{slack: time.Duration(random.Int64N(int64(10 * time.Millisecond)))}
			a.ring = func(now time.Time) {
				rang[i]++
				if early := time.Until(due[i]); early < 0 || early > a.slack {
					t.Errorf("alarm %d with slack %v rang %v early", i, a.slack, early)
				}
				if !now.Equal(last) {
					wakeups, last = wakeups+1, now
				}
				if rang[i] < 20 {
					due[i] = due[i].Add(time.Duration(1+random.Int64N(300)) * time.Millisecond)
					if due[i].Before(now) {
						due[i] = now
					}
					c.set(a, due[i])
				}
			}
			all[i] = a
			due[i] = time.Now().Add(time.Duration(random.Int64N(int64(time.Second))))
			c.set(a, due[i])
		}
		cleared := &alarm{ring: func(time.Time) { t.Error("a cleared alarm rang") }}
		c.set(cleared, time.Now().Add(time.Second))
		c.clear(cleared)
		c.clear(cleared)
		time.Sleep(time.Minute)
		cancel()
		synctest.Wait()
		for i, k := range rang {
			if k != 20 {
				t.Errorf("alarm %d rang %d times", i, k)
			}
		}
		if wakeups == 0 || wakeups > 20*n/2 {
			t.Errorf("%d wakeups for %d alarms: slack shares none", wakeups, 20*n)
		}
	})
}

// TestClockIsWokenBySooner: an earlier alarm set from outside is not missed.
func TestClockIsWokenBySooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := newClock()
		go c.run(ctx)
		synctest.Wait()
		var rang []time.Duration
		start := time.Now()
		a := &alarm{ring: func(time.Time) { rang = append(rang, time.Since(start)) }}
		c.set(a, start.Add(time.Minute))
		c.sooner(a, start.Add(2*time.Minute))
		synctest.Wait()
		c.sooner(a, start.Add(time.Second))
		time.Sleep(time.Hour)
		if len(rang) != 1 || rang[0] != time.Second {
			t.Errorf("rang at %v", rang)
		}
	})
}

// TestSharedWakeups: 500 targets every 300 ms wake the processor rarely, and all
// the same never send in one burst, at the start and for as long as one looks:
// those that ring together part again.
func TestSharedWakeups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newClock()
		const targets, interval, length = 500, 300 * time.Millisecond, 5 * time.Minute
		start := time.Now()
		together, attempts := map[time.Duration]int{}, 0
		for i := range targets {
			s := newSchedule(fmt.Sprintf("net%d/icmp 10.0.0.1", i), interval)
			a := &alarm{slack: s.slack()}
			a.ring = func(now time.Time) {
				together[now.Sub(start)]++
				attempts++
				c.set(a, now.Add(s.gap()))
			}
			c.set(a, start.Add(s.phase()))
		}
		go c.run(ctx)
		time.Sleep(length)
		cancel()
		synctest.Wait()
		worst := 0
		for _, n := range together {
			worst = max(worst, n)
		}
		perSecond := float64(len(together)) / length.Seconds()
		t.Logf("%d attempts in %d wakeups (%.0f in a second), at most %d in one", attempts, len(together), perSecond, worst)
		if worst > maxShared || perSecond > 100 {
			t.Errorf("%.0f wakeups in a second, of up to %d attempts", perSecond, worst)
		}
	})
}
