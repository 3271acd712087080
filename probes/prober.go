package probes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// closeWait bounds how long Close waits for attempts to notice that they ended.
const closeWait = 2 * time.Second

// ErrClosed is Set's answer after Close.
var ErrClosed = errors.New("prober is closed")

// Prober runs probes: one goroutine per target, and one that calls notify. All
// methods may be called concurrently, and none waits for a target.
type Prober struct {
	log    *slog.Logger
	notify func()
	// attempts makes what tries a target; tests inject their own.
	attempts func(Config, Target) attempt

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// changed holds at most one pending call of notify.
	changed chan struct{}

	mu sync.Mutex
	// probes is sorted by name.
	probes []*probe
	closed bool
}

// probe is a running probe. It is guarded by Prober.mu.
type probe struct {
	config  Config
	verdict Verdict
	since   time.Time
	// targets are in the order of config.Targets.
	targets []*target
}

// target is one target of a running probe. It is guarded by Prober.mu.
type target struct {
	what    Target
	try     attempt
	tracker tracker
	turn    chan struct{} // see runner
	runner  *runner
}

// New makes a Prober that runs nothing yet. notify is called after the verdict
// of a probe or of a target changed: from a goroutine of its own, never twice
// at a time, once for changes that come together, and never while a lock is
// held. A notify that blocks delays only the next one. It may be nil.
func New(log *slog.Logger, notify func()) *Prober {
	return newProber(log, notify, realAttempt)
}

func newProber(log *slog.Logger, notify func(), attempts func(Config, Target) attempt) *Prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Prober{log: log, notify: notify, attempts: attempts, ctx: ctx, cancel: cancel, changed: make(chan struct{}, 1)}
	if notify != nil {
		p.running.Go(p.notifier)
	}
	return p
}

// realAttempt is how a target of a valid Config is tried.
func realAttempt(c Config, t Target) attempt {
	if c.Type == HTTP {
		return newHTTPAttempt(c, t).try
	}
	return newICMPAttempt(c, t).try
}

// Set makes exactly want run. A probe that did not change goes on undisturbed.
// Of a changed one the targets keep their verdicts and counters as long as they
// are asked the same question (type, device, source and HTTP are unchanged): new
// thresholds apply to the next attempt, a new interval restarts only the clock.
// Everything else starts as Unknown. What is not in want is stopped and
// forgotten.
//
// Set is total: a Config that is not valid, or the second of a name, is reported
// and does not run, not even as it was before; all others do. It does not wait
// for attempts and does not keep want.
func (p *Prober) Set(want []Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("set probes: %w", ErrClosed)
	}
	valid, err := runnable(want)
	old := make(map[string]*probe, len(p.probes))
	for _, b := range p.probes {
		old[b.config.Name] = b
	}
	now := time.Now()
	next := make([]*probe, 0, len(valid))
	for _, c := range valid {
		b := old[c.Name]
		delete(old, c.Name)
		if b == nil {
			b = &probe{since: now}
		}
		if !equal(b.config, c) {
			p.change(b, clone(c), now)
		}
		next = append(next, b)
	}
	for _, b := range old {
		for _, t := range b.targets {
			t.runner.cancel()
			t.runner = nil
		}
	}
	slices.SortFunc(next, func(a, b *probe) int { return cmp.Compare(a.config.Name, b.config.Name) })
	p.probes = next
	return err
}

// runnable is want without what is not valid and second uses of a name.
func runnable(want []Config) ([]Config, error) {
	var valid []Config
	var errs []error
	seen := make(map[string]bool, len(want))
	for i, c := range want {
		err := c.Validate()
		if err == nil && seen[c.Name] {
			err = errors.New("name: used by another probe")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("run probe %q (probes[%d]): %w", c.Name, i, err))
			continue
		}
		seen[c.Name] = true
		valid = append(valid, c)
	}
	return valid, errors.Join(errs...)
}

// change makes b run c. p.mu is held.
func (p *Prober) change(b *probe, c Config, now time.Time) {
	was := b.config
	keep := make(map[Target]*target, len(b.targets))
	if sameQuestion(was, c) {
		for _, t := range b.targets {
			keep[t.what] = t
		}
	}
	clocked := was.Interval == c.Interval && was.AttemptTimeout == c.AttemptTimeout
	before := b.targets
	b.config, b.targets = c, nil
	for _, what := range c.Targets {
		t := keep[what]
		if t == nil {
			t = &target{what: what, try: p.attempts(c, what), tracker: newTracker(what.String(), now), turn: make(chan struct{}, 1)}
		}
		b.targets = append(b.targets, t)
		if t.runner == nil || !clocked {
			p.start(b, t)
		}
	}
	for _, t := range before {
		if !slices.Contains(b.targets, t) {
			t.runner.cancel()
			t.runner = nil
		}
	}
	if p.judge(b, now) {
		p.wake()
	}
}

// start gives t a new runner in place of the one it may have. p.mu is held.
func (p *Prober) start(b *probe, t *target) {
	ctx, cancel := context.WithCancel(p.ctx)
	r := &runner{
		try:      t.try,
		schedule: newSchedule(b.config.Name+" "+t.what.String(), b.config.Interval),
		timeout:  b.config.AttemptTimeout,
		turn:     t.turn,
		cancel:   cancel,
	}
	if t.runner != nil {
		t.runner.cancel()
	}
	r.report = func(o outcome) { p.observe(b, t, r, o) }
	t.runner = r
	p.running.Go(func() { r.run(ctx) })
}

// observe takes in an attempt that runner r made at t.
func (p *Prober) observe(b *probe, t *target, r *runner, o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.runner != r {
		return // stopped or replaced while it was reporting
	}
	if !t.tracker.observe(o, b.config.Rise, b.config.Fall) {
		return
	}
	s := t.tracker.state
	p.log.Debug("probe target changed", "probe", b.config.Name, "network", b.config.Network,
		"target", s.Target, "verdict", s.Verdict.String(), "err", s.LastError)
	if p.judge(b, o.at) {
		p.log.Info("probe changed", "probe", b.config.Name, "network", b.config.Network,
			"verdict", b.verdict.String(), "target", s.Target, "err", s.LastError)
	}
	p.wake()
}

// judge combines the targets' verdicts and reports whether b's changed. p.mu is held.
func (p *Prober) judge(b *probe, now time.Time) bool {
	verdicts := make([]Verdict, len(b.targets))
	for i, t := range b.targets {
		verdicts[i] = t.tracker.state.Verdict
	}
	v := combine(b.config.Require, verdicts)
	if v == b.verdict {
		return false
	}
	b.verdict, b.since = v, now
	return true
}

// wake asks for a call of notify.
func (p *Prober) wake() {
	select {
	case p.changed <- struct{}{}:
	default: // one is pending, and it will see this change too
	}
}

func (p *Prober) notifier() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.changed:
			if p.ctx.Err() == nil {
				p.notify()
			}
		}
	}
}

// State is what is known now, sorted by name. The caller owns it.
func (p *Prober) State() []State {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]State, len(p.probes))
	for i, b := range p.probes {
		out[i] = State{Name: b.config.Name, Verdict: b.verdict, Since: b.since, Targets: make([]TargetState, len(b.targets))}
		for j, t := range b.targets {
			out[i].Targets[j] = t.tracker.state
		}
	}
	return out
}

// Close ends all attempts and waits for them, at most two seconds. State keeps
// the last answer. A second Close does nothing more.
func (p *Prober) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	ended := make(chan struct{})
	go func() {
		p.running.Wait()
		close(ended)
	}()
	limit := time.NewTimer(closeWait)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
		p.log.Warn("probes did not end in time", "waited", closeWait)
	}
}
