package bfd

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestPollSequence: 6.5 and 6.8.3. What makes us slower to send or quicker to
// judge waits for the peer's Final; the rest holds at once.
func TestPollSequence(t *testing.T) {
	for _, c := range []struct {
		name             string
		tx, rx           time.Duration
		txNow, rxNow     time.Duration
		txThen, rxThen   time.Duration
		changedMeanwhile bool
	}{
		{name: "slower", tx: 200 * ms, rx: 200 * ms, txNow: 50 * ms, rxNow: 200 * ms, txThen: 200 * ms, rxThen: 200 * ms},
		{name: "faster", tx: 20 * ms, rx: 20 * ms, txNow: 20 * ms, rxNow: 50 * ms, txThen: 20 * ms, rxThen: 20 * ms},
		{name: "again", tx: 200 * ms, rx: 20 * ms, txNow: 50 * ms, rxNow: 50 * ms, txThen: 200 * ms, rxThen: 20 * ms, changedMeanwhile: true},
	} {
		m := machineIn(t, Up)
		final := from(Up)
		final.final, final.requiredMinRx, final.desiredMinTx = true, 10*ms, 10*ms
		m.receive(start, start, final) // of the Poll Sequence that coming up began
		if m.timing.polling {
			t.Fatal("the first Poll Sequence did not end")
		}
		p := quick()
		if c.changedMeanwhile {
			p.desiredMinTx = 100 * ms
			m.configure(start, p)
		}
		p.desiredMinTx, p.requiredMinRx = c.tx, c.rx
		m.configure(start, p)
		m.wantSoon = true
		sent := collect(m, start)
		if len(sent) != 1 || !sent[0].poll || sent[0].desiredMinTx != c.tx || sent[0].requiredMinRx != c.rx || m.status != Up {
			t.Errorf("%s: sent %+v", c.name, sent)
		}
		if c.changedMeanwhile {
			m.receive(start, start, final) // may answer the first change
			if !m.timing.polling || m.timing.minTx != c.txNow {
				t.Errorf("%s: ended too early: %+v", c.name, m.timing)
			}
		}
		if m.interval() != c.txNow || m.detection() != 3*c.rxNow {
			t.Errorf("%s: before the Final: %v, %v", c.name, m.interval(), m.detection())
		}
		m.receive(start, start, final)
		if m.interval() != c.txThen || m.detection() != 3*c.rxThen || m.timing.polling {
			t.Errorf("%s: after the Final: %v, %v", c.name, m.interval(), m.detection())
		}
		m.wantSoon = true
		if sent := collect(m, start); sent[0].poll {
			t.Errorf("%s: still polls", c.name)
		}
	}
}

// TestPollIsAnswered at once, apart from the periodic packets, and never with P.
func TestPollIsAnswered(t *testing.T) {
	m := machineIn(t, Up) // whose own Poll Sequence is not confirmed
	p := from(Up)
	p.poll = true
	m.receive(start, start, p)
	if sent := collect(m, start); len(sent) != 1 || !sent[0].final || sent[0].poll {
		t.Errorf("sent %+v", sent)
	}
	if sent := collect(m, start); len(sent) != 0 {
		t.Errorf("answered twice: %+v", sent)
	}
}

// TestJitter: 75 to 100 % of the interval, 90 % with multiplier 1, evenly, and
// also when turns come early because others are due.
func TestJitter(t *testing.T) {
	for _, c := range []struct {
		mult      uint8
		low, high float64
	}{{3, 0.75, 1}, {1, 0.75, 0.9}} {
		random := rand.New(rand.NewPCG(1, 2))
		m := machineIn(t, Up)
		m.random, m.params.mult = random.Float64, c.mult
		now, last := start.Add(time.Second), time.Time{}
		least, most, sum, n := 2.0, 0.0, 0.0, 0
		for range 20000 {
			if len(collect(m, now)) > 0 {
				if !last.IsZero() {
					share := float64(now.Sub(last)) / float64(50*ms)
					least, most, sum, n = min(least, share), max(most, share), sum+share, n+1
				}
				last = now
			}
			// Turns of others, at random, but never later than our own.
			if other := now.Add(time.Duration(random.Float64() * float64(5*ms))); other.Before(m.nextTx) {
				now = other
			} else {
				now = m.nextTx
			}
		}
		if least < c.low || least > c.low+0.02 || most > c.high || most < c.high-0.02 {
			t.Errorf("multiplier %d: %.3f to %.3f", c.mult, least, most)
		}
		if mean, want := sum/float64(n), (c.low+c.high)/2; mean < want-0.03 || mean > want+0.01 {
			t.Errorf("multiplier %d: mean %.3f", c.mult, mean)
		}
	}
}

// TestTwoMachines: two sessions over a wire that delays, loses and repeats, with
// any intervals, come up when it gets better, and agree.
func TestTwoMachines(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		draw := func() params {
			d := func() time.Duration { return time.Duration(10+random.IntN(400)) * ms }
			return params{desiredMinTx: d(), requiredMinRx: d(), mult: uint8(1 + random.IntN(5))}
		}
		w := &wire{random: random, now: start, loss: 0.4}
		w.ends[0] = newMachine(start, draw(), 1, random.Float64)
		w.ends[1] = newMachine(start, draw(), 2, random.Float64)
		w.ends[1].params.passive = seed%2 == 0
		w.run(20 * time.Second)
		w.loss = 0
		for _, m := range w.ends {
			p := draw()
			p.passive = m.params.passive
			m.configure(w.now, p)
		}
		w.run(20 * time.Second)
		a, b := w.ends[0], w.ends[1]
		before := a.downs + b.downs
		w.run(20 * time.Second)
		if a.status != Up || b.status != Up || a.timing.polling || b.timing.polling {
			t.Fatalf("seed %d: %s and %s", seed, a.status, b.status)
		}
		if a.downs+b.downs != before {
			t.Fatalf("seed %d: went down over a good wire", seed)
		}
		if want := max(a.params.desiredMinTx, b.params.requiredMinRx); a.interval() != want || b.detection() != time.Duration(a.params.mult)*want {
			t.Fatalf("seed %d: %v, %v, want %v x %d", seed, a.interval(), b.detection(), want, a.params.mult)
		}
		// Cut: each notices within its detection time of the last packet.
		w.loss = 1
		cut := w.now
		bound := max(a.detection(), b.detection()) + time.Millisecond
		w.run(10 * time.Second)
		for _, m := range w.ends {
			if m.status != Down || m.diag != DetectionTimeExpired || m.since.Sub(cut) > bound {
				t.Fatalf("seed %d: %s (%s) %v after the cut, bound %v", seed, m.status, m.diag, m.since.Sub(cut), bound)
			}
		}
	}
}

// wire carries packets between two machines, within a millisecond.
type wire struct {
	random *rand.Rand
	now    time.Time
	loss   float64
	ends   [2]*machine
	under  []flight
}

type flight struct {
	at time.Time
	to *machine
	p  packet
}

func (w *wire) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.nextEvent()
		for i, f := range w.under {
			if !f.at.After(w.now) {
				w.under = append(w.under[:i], w.under[i+1:]...)
				f.to.receive(w.now, w.now, f.p)
				break
			}
		}
		for i, m := range w.ends {
			m.expire(w.now)
			m.flush(w.now, func(p packet) {
				if w.random.Float64() >= w.loss {
					w.under = append(w.under, flight{w.now.Add(time.Duration(w.random.IntN(1000)) * time.Microsecond), w.ends[1-i], p})
				}
			})
		}
	}
}

func (w *wire) nextEvent() time.Time {
	next := w.ends[0].next()
	if other := w.ends[1].next(); other.Before(next) {
		next = other
	}
	for _, f := range w.under {
		if f.at.Before(next) {
			next = f.at
		}
	}
	if !next.After(w.now) {
		next = w.now.Add(time.Microsecond)
	}
	return next
}
