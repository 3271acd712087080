package probes

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Set makes exactly want run. A probe that did not change goes on undisturbed.
// Of a changed one the targets keep their verdicts and counters as long as they
// are asked the same question (type, device, source, HTTP and DNS are
// unchanged): new thresholds, hold-down and damping apply to the next attempt, a
// new interval restarts only the clock. Everything else starts as Unknown. What
// is not in want is stopped and forgotten.
//
// Set is total: a Config that is not valid, or the second of a name, is reported
// and does not run, not even as it was before; all others do. It does not wait
// for attempts and does not keep want. What did not change is compared and not
// copied, so that a Set of hundreds of small Configs costs less than one round
// of their attempts.
func (p *Prober) Set(want []Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("set probes: %w", ErrClosed)
	}
	old := make(map[string]*probe, len(p.probes))
	for _, b := range p.probes {
		old[b.config.Name] = b
	}
	now := time.Now()
	next := make([]*probe, 0, len(want))
	var errs []error
	seen := make(map[string]bool, len(want))
	for i := range want {
		c := &want[i]
		b := old[c.Name]
		unchanged := b != nil && equal(b.config, *c) // then it is valid, too
		if err := check(c, unchanged, seen); err != nil {
			errs = append(errs, fmt.Errorf("run probe %q (probes[%d]): %w", c.Name, i, err))
			continue
		}
		seen[c.Name] = true
		delete(old, c.Name)
		if b == nil {
			b = &probe{since: now}
		}
		if !unchanged {
			p.change(b, clone(*c), now)
		}
		next = append(next, b)
	}
	for _, b := range old {
		for _, t := range b.targets {
			p.stop(t)
		}
	}
	slices.SortFunc(next, func(a, b *probe) int { return cmp.Compare(a.config.Name, b.config.Name) })
	p.probes = next
	return errors.Join(errs...)
}

// check says why c does not run.
func check(c *Config, unchanged bool, seen map[string]bool) error {
	if !unchanged {
		if err := c.Validate(); err != nil {
			return err
		}
	}
	if seen[c.Name] {
		return errors.New("name: used by another probe")
	}
	return nil
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
		delete(keep, what)
		if t == nil {
			t = &target{what: what, trier: p.triers(c, what), tracker: newTracker(what.String(), now)}
		}
		b.targets = append(b.targets, t)
		if t.runner == nil || !clocked {
			p.start(b, t)
		}
	}
	for _, t := range before {
		if !slices.Contains(b.targets, t) {
			p.stop(t)
		}
	}
	if p.judge(b, now, Change{}) {
		p.wake()
	}
}
