// Package bgptest has a BGP speaker that only remembers, for tests of what
// drives one.
package bgptest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/egret-router/egret/bgp"
)

// Speaker has the methods of bgp.Speaker. It may be used from any goroutine.
// As the real one it refuses invalid configurations, keeps what a network had
// before then, and returns states sorted by name.
type Speaker struct {
	mu       sync.Mutex
	configs  map[string]bgp.Config
	history  [][]bgp.Config
	states   map[string]bgp.State
	fail     func(want []bgp.Config) error
	closed   bool
	graceful bool
}

// New returns a speaker without networks.
func New() *Speaker {
	return &Speaker{configs: map[string]bgp.Config{}, states: map[string]bgp.State{}}
}

// Set records want. Every call is in the history, also one that fails; only one
// that does not fail by FailSet changes the configurations.
func (s *Speaker) Set(ctx context.Context, want []bgp.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return bgp.ErrClosed
	}
	want = clone(want)
	s.history = append(s.history, want)
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.fail != nil {
		if err := s.fail(clone(want)); err != nil {
			return err
		}
	}
	count := map[string]int{}
	for _, c := range want {
		count[c.Network]++
	}
	maps.DeleteFunc(s.configs, func(name string, _ bgp.Config) bool { return count[name] == 0 })
	var errs []error
	for _, c := range want {
		problems := c.Validate()
		if count[c.Network] > 1 {
			problems = append(problems, errors.New("configured twice"))
		}
		if len(problems) > 0 {
			errs = append(errs, fmt.Errorf("network %q: %w", c.Network, errors.Join(problems...)))
			continue
		}
		s.configs[c.Network] = c
	}
	return errors.Join(errs...)
}

// State returns what PutState put in for the networks that are set.
func (s *Speaker) State() []bgp.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]bgp.State, 0, len(s.configs))
	for name := range s.configs {
		st := s.states[name]
		st.Network = name
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b bgp.State) int { return strings.Compare(a.Network, b.Network) })
	return out
}

// PutState replaces the states of the networks named in them. They show once
// the network is set, and as long as it is.
func (s *Speaker) PutState(states ...bgp.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range states {
		s.states[st.Network] = st
	}
}

// FailSet makes Set return what f returns, nil for success. A nil f ends that.
func (s *Speaker) FailSet(f func(want []bgp.Config) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Config returns a network's configuration in force.
func (s *Speaker) Config(network string) (bgp.Config, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.configs[network]
	if !ok {
		return bgp.Config{}, false
	}
	return clone([]bgp.Config{c})[0], true
}

// History returns what every call of Set wanted.
func (s *Speaker) History() [][]bgp.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]bgp.Config, len(s.history))
	for i, want := range s.history {
		out[i] = clone(want)
	}
	return out
}

// Close forgets the configurations; Set fails from now on.
func (s *Speaker) Close(graceful bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed, s.graceful = true, graceful
		clear(s.configs)
	}
}

// Closed tells whether Close was called, and how the first time.
func (s *Speaker) Closed() (closed, graceful bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed, s.graceful
}

// clone copies deep enough that neither side's later changes show at the other.
func clone(configs []bgp.Config) []bgp.Config {
	out := slices.Clone(configs)
	for i := range out {
		c := &out[i]
		c.Peers = slices.Clone(c.Peers)
		for j := range c.Peers {
			c.Peers[j].Import = slices.Clone(c.Peers[j].Import)
			for k := range c.Peers[j].Import {
				c.Peers[j].Import[k] = c.Peers[j].Import[k].Clone()
			}
			c.Peers[j].Export = c.Peers[j].Export.Clone()
		}
		c.Advertise = slices.Clone(c.Advertise)
		for j := range c.Advertise {
			c.Advertise[j].Attributes = c.Advertise[j].Clone()
		}
		c.Reject = slices.Clone(c.Reject)
		if c.GracefulRestart != nil {
			gr := *c.GracefulRestart
			c.GracefulRestart = &gr
		}
	}
	return out
}
