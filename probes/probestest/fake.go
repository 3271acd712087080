// Package probestest stands in for the prober in tests of those who use it: it
// sends nothing and says what the test put in.
package probestest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/egret-router/egret/probes"
)

// Fake has the methods of *probes.Prober. Its methods may be called concurrently.
type Fake struct {
	mu       sync.Mutex
	notify   func()
	configs  []probes.Config
	states   map[string]probes.State
	pending  map[string]probes.Verdict
	sets     int
	failures []error
	changes  []probes.Change
	closed   bool
}

// New makes a Fake without probes.
func New() *Fake {
	return &Fake{states: map[string]probes.State{}, pending: map[string]probes.Verdict{}}
}

// Notify makes the Fake call f after each change of a verdict, from the
// goroutine of the call that changed it and with no lock held.
func (f *Fake) Notify(notify func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notify = notify
}

// Set records want. As with the real one, a probe that is not valid, or the
// second of a name, is reported and does not run; a new probe is Unknown,
// unless Put said something of it before; one that stays keeps its verdict.
func (f *Fake) Set(want []probes.Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("set probes: %w", probes.ErrClosed)
	}
	f.sets++
	if len(f.failures) > 0 {
		err := f.failures[0]
		f.failures = f.failures[1:]
		if err != nil {
			return err
		}
	}
	var errs []error
	states := make(map[string]probes.State, len(want))
	f.configs = nil
	for _, c := range want {
		err := c.Validate()
		if _, twice := states[c.Name]; twice && err == nil {
			err = errors.New("name: used by another probe")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("run probe %q: %w", c.Name, err))
			continue
		}
		f.configs = append(f.configs, c)
		s, runs := f.states[c.Name]
		if !runs {
			s = probes.State{Name: c.Name, Network: c.Network, Verdict: f.pending[c.Name], Since: time.Now()}
			delete(f.pending, c.Name)
		}
		states[c.Name] = withTargets(s, c)
	}
	f.states = states
	return errors.Join(errs...)
}

// withTargets gives every target of c the verdict of s.
func withTargets(s probes.State, c probes.Config) probes.State {
	s.Targets = nil
	for _, t := range c.Targets {
		ts := probes.TargetState{Target: t.String(), Verdict: s.Verdict, Since: s.Since, Attempts: 1}
		switch s.Verdict {
		case probes.Up:
			ts.LastRTT = time.Millisecond
		case probes.Down:
			ts.Failures, ts.LastError = 1, "put down by the test"
		}
		s.Targets = append(s.Targets, ts)
	}
	return s
}

// Put sets the verdict of a probe and of its targets. A verdict of a probe that
// does not run is kept for when it is set.
func (f *Fake) Put(name string, v probes.Verdict) {
	f.mu.Lock()
	s, runs := f.states[name]
	if !runs {
		f.pending[name] = v
		f.mu.Unlock()
		return
	}
	notify := f.notify
	if s.Verdict == v {
		notify = nil
	} else {
		i := slices.IndexFunc(f.configs, func(c probes.Config) bool { return c.Name == name })
		f.changes = append(f.changes, probes.Change{Seq: uint64(len(f.changes)) + 1, At: time.Now(), Probe: name, Network: s.Network,
			Whole: true, From: s.Verdict, To: v})
		s.Verdict, s.Since = v, time.Now()
		f.states[name] = withTargets(s, f.configs[i])
	}
	f.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// FailSets makes the next calls of Set do nothing and return these errors, one
// each; nil lets a call through.
func (f *Fake) FailSets(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, errs...)
}

// Configs is what runs: the valid ones of the last Set, in its order.
func (f *Fake) Configs() []probes.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.configs)
}

// Sets is how often Set was called.
func (f *Fake) Sets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sets
}

// State is sorted by name.
func (f *Fake) State() []probes.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]probes.State, 0, len(f.states))
	for _, s := range f.states {
		s.Targets = slices.Clone(s.Targets)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b probes.State) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Changes are those that Put made after the one with the given Seq.
func (f *Fake) Changes(after uint64) []probes.Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.changes[min(after, uint64(len(f.changes))):])
}

// Cost is always the same.
func (f *Fake) Cost() probes.Cost {
	return probes.Cost{Since: time.Unix(1000, 0), CPU: 20 * time.Millisecond, Attempts: 1000}
}

// Close refuses later Sets.
func (f *Fake) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
