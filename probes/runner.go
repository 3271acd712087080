package probes

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// attempt tries a target once. It returns soon after ctx ends and may be called
// again, but not twice at a time. The duration counts only when err is nil.
type attempt func(ctx context.Context) (rtt time.Duration, err error)

// runner makes the attempts at one target, one after the other.
type runner struct {
	try      attempt
	schedule schedule
	timeout  time.Duration
	// turn has room for one: who puts something in may make an attempt. It is
	// the target's, so that a new runner waits for an attempt of the one before.
	turn chan struct{}
	// report takes in a finished attempt. It must not wait for the runner.
	report func(outcome)
	cancel context.CancelFunc
}

// run makes attempts until ctx ends. Whatever takes longer than its gap is
// followed at once, never caught up: there are no bursts.
func (r *runner) run(ctx context.Context) {
	timer := time.NewTimer(r.schedule.phase())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case r.turn <- struct{}{}:
		}
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, r.timeout)
		rtt, err := r.try(limited)
		if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v: %w", r.timeout, err)
		}
		cancel()
		<-r.turn
		if ctx.Err() != nil {
			return
		}
		r.report(outcome{at: time.Now(), rtt: rtt, err: err})
		timer.Reset(max(0, r.schedule.gap()-time.Since(start)))
	}
}
