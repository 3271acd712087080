package probes

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// closeWait bounds how long Close waits for attempts to notice that they ended.
const closeWait = 2 * time.Second

// ErrClosed is Set's answer after Close.
var ErrClosed = errors.New("prober is closed")

// Prober runs probes: one goroutine that begins the attempts, one that calls
// notify, and one for each attempt of a type that needs it while it is under
// way. All methods may be called concurrently, and none waits for a target.
type Prober struct {
	log    *slog.Logger
	notify func()
	// triers makes what tries a target; tests inject their own.
	triers  func(Config, Target) trier
	clock   *clock
	pinger  *pinger
	started time.Time

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// changed holds at most one pending call of notify.
	changed chan struct{}

	mu sync.Mutex
	// probes is sorted by name.
	probes  []*probe
	history history
	closed  bool
}

// probe is a running probe. It is guarded by Prober.mu.
type probe struct {
	config  Config
	verdict Verdict
	since   time.Time
	changes uint64
	// targets are in the order of config.Targets.
	targets []*target
	// verdicts is room for those of the targets.
	verdicts []Verdict
}

// target is one target of a running probe. It is guarded by Prober.mu.
type target struct {
	what    Target
	trier   trier
	tracker tracker
	// runner is nil when the target is gone.
	runner *runner
	// busy is true while an attempt is under way, waiting while the runner waits
	// for its end.
	busy, waiting bool
}

// New makes a Prober that runs nothing yet. notify is called after the verdict
// of a probe or of a target changed: from a goroutine of its own, never twice
// at a time, once for changes that come together, and never while a lock is
// held. A notify that blocks delays only the next one. It may be nil.
func New(log *slog.Logger, notify func()) *Prober {
	p := newProber(log, notify)
	p.triers = p.realTrier
	return p
}

// newProber has no triers yet.
func newProber(log *slog.Logger, notify func()) *Prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Prober{log: log, notify: notify, clock: newClock(), started: time.Now(), ctx: ctx, cancel: cancel, changed: make(chan struct{}, 1)}
	p.pinger = newPinger(p.clock)
	p.running.Go(func() {
		defer p.pinger.close()
		p.clock.run(ctx)
	})
	if notify != nil {
		p.running.Go(p.notifier)
	}
	return p
}

// realTrier is how a target of a valid Config is tried.
func (p *Prober) realTrier(c Config, t Target) trier {
	switch c.Type {
	case HTTP:
		return &called{prober: p, try: within(newHTTPAttempt(c, t).try)}
	case TCP:
		return &called{prober: p, try: newTCPAttempt(c, t).try}
	case DNS:
		return &called{prober: p, try: newDNSAttempt(c, t).try}
	}
	return p.pinger.newFlight(c, t)
}

// observe takes in an attempt at t. p.mu is held.
func (p *Prober) observe(b *probe, t *target, o outcome) {
	s := &t.tracker.state
	change := Change{At: o.at, Probe: b.config.Name, Network: b.config.Network, Target: s.Target}
	if !t.tracker.tell(o, &b.config, &change) {
		return
	}
	p.history.add(change)
	p.log.Debug("probe target changed", "probe", b.config.Name, "network", b.config.Network,
		"target", s.Target, "verdict", s.Verdict.String(), "err", s.LastError, "suppressed", s.Suppressed)
	if p.judge(b, o.at, change) {
		p.log.Info("probe changed", "probe", b.config.Name, "network", b.config.Network, "verdict", b.verdict.String(),
			"target", s.Target, "err", s.LastError, "attempts", change.Attempts, "detection", change.Detection,
			"suppressed", s.Suppressed)
	}
	p.wake()
}

// judge combines the targets' verdicts and reports whether b's changed, which
// because made it. p.mu is held.
func (p *Prober) judge(b *probe, now time.Time, because Change) bool {
	b.verdicts = b.verdicts[:0]
	for _, t := range b.targets {
		b.verdicts = append(b.verdicts, t.tracker.state.Verdict)
	}
	v := combine(b.config.Require, b.verdicts)
	if v == b.verdict {
		return false
	}
	change := because
	change.At, change.Probe, change.Network = now, b.config.Name, b.config.Network
	change.Whole, change.From, change.To = true, b.verdict, v
	p.history.add(change)
	b.verdict, b.since = v, now
	b.changes++
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
	total := 0
	for _, b := range p.probes {
		total += len(b.targets)
	}
	all := make([]TargetState, 0, total)
	out := make([]State, len(p.probes))
	for i, b := range p.probes {
		first := len(all)
		for _, t := range b.targets {
			all = append(all, t.tracker.state)
		}
		out[i] = State{Name: b.config.Name, Network: b.config.Network, Verdict: b.verdict, Since: b.since, Changes: b.changes,
			PacketsPerSecond: b.config.PacketsPerSecond(), Targets: all[first:len(all):len(all)]}
	}
	return out
}

// Changes are the changes of verdicts after the one with the given Seq, oldest
// first; 0 gives all that are known. The last 1024 are kept: a first Seq that
// does not follow tells of a gap. The caller owns them.
func (p *Prober) Changes(after uint64) []Change {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.history.since(after)
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
