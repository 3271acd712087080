package probes

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A trier makes attempts at one target, one after the other.
type trier interface {
	// begin starts an attempt that takes timeout at most, or little more, and does
	// not wait for it. done is called once, but not from within begin.
	begin(timeout time.Duration, done func(outcome))
	// stop ends the attempt that is under way, and reports whether its done will
	// never be called; else it will be, soon or already.
	stop() bool
}

// attempt tries a target once. It returns soon after ctx ends, or timeout after
// it has asked, and may be called again, but not twice at a time. The duration
// counts only when err is nil.
type attempt func(ctx context.Context, timeout time.Duration) (rtt time.Duration, err error)

// within is an attempt whose time begins with the call.
func within(try func(ctx context.Context) (time.Duration, error)) attempt {
	return func(ctx context.Context, timeout time.Duration) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		rtt, err := try(ctx)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = noAnswer(timeout, err)
		}
		return rtt, err
	}
}

// called makes attempts by calling a function, each from a goroutine of its own.
type called struct {
	prober *Prober
	try    attempt
	cancel context.CancelFunc
}

func (c *called) begin(timeout time.Duration, done func(outcome)) {
	start := time.Now()
	ctx, cancel := context.WithCancel(c.prober.ctx)
	c.cancel = cancel
	c.prober.running.Go(func() {
		defer cancel()
		rtt, err := c.try(ctx, timeout)
		if errors.Is(err, errNothing) || errors.Is(err, errLate) {
			err = noAnswer(timeout, err)
		}
		done(outcome{start: start, at: time.Now(), rtt: rtt, err: err})
	})
}

func (c *called) stop() bool {
	c.cancel()
	return false
}

func noAnswer(timeout time.Duration, err error) error {
	return fmt.Errorf("no answer within %v: %w", timeout, err)
}

// runner makes attempts at a target at the times of a schedule. Whatever takes
// longer than its gap is followed at once, never caught up: there are no bursts.
// It is guarded by Prober.mu.
type runner struct {
	schedule schedule
	timeout  time.Duration
	alarm    alarm
	// began is when the last attempt began.
	began time.Time
}

// start gives t a new runner in place of the one it may have. p.mu is held.
func (p *Prober) start(b *probe, t *target) {
	p.stop(t)
	r := &runner{schedule: newSchedule(b.config.Name+" "+t.what.String(), b.config.Interval), timeout: b.config.AttemptTimeout}
	r.alarm.slack = r.schedule.slack()
	done := func(o outcome) { p.finish(b, t, r, o) }
	r.alarm.ring = func(now time.Time) { p.ring(t, r, now, done) }
	t.runner = r
	p.clock.set(&r.alarm, time.Now().Add(r.schedule.phase()))
}

// stop ends the runner of t, if any. p.mu is held.
func (p *Prober) stop(t *target) {
	if t.runner == nil {
		return
	}
	p.clock.clear(&t.runner.alarm)
	t.runner, t.waiting = nil, false
	if t.busy && t.trier.stop() {
		t.busy = false
	}
}

// ring begins an attempt, or waits for the one before, which an earlier runner
// of the target may have left: they never overlap.
func (p *Prober) ring(t *target, r *runner, now time.Time, done func(outcome)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.runner != r || p.closed {
		return // replaced while it was about to ring
	}
	if t.busy {
		t.waiting = true
		return
	}
	t.busy, t.waiting, r.began = true, false, now
	t.trier.begin(r.timeout, done)
}

// finish takes in an attempt that runner r began at t.
func (p *Prober) finish(b *probe, t *target, r *runner, o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.busy = false
	if p.closed {
		return
	}
	if t.waiting {
		t.waiting = false
		p.clock.set(&t.runner.alarm, o.at)
	}
	if t.runner != r {
		return // stopped or replaced meanwhile
	}
	p.observe(b, t, o)
	next := r.began.Add(r.schedule.gap())
	if next.Before(o.at) {
		next = o.at
	}
	p.clock.set(&r.alarm, next)
}
