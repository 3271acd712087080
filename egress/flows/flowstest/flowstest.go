// Package flowstest has conntrack's flows in memory, for tests of what stands
// above package flows. It fails when told to.
package flowstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/egret-router/egret/egress/flows"
)

// Method names one of the Fake's methods that can be made to fail.
type Method string

// The methods that can fail.
const (
	Sweep Method = "Sweep"
	Stats Method = "Stats"
)

// ErrInjected is the error of an injected failure that named none.
var ErrInjected = errors.New("injected failure")

// Fake has the methods of flows.Table. They may be called at the same time, and
// judge may call Add.
type Fake struct {
	sweeping sync.Mutex // as in the kernel, sweeps wait for each other

	mu       sync.Mutex
	flows    []flows.Flow
	stats    flows.Stats
	failures map[Method]map[int]failure
	calls    map[Method]int
	closed   bool
}

type failure struct {
	err  error
	seen int // entries seen before it happens
}

// New returns a fake with these flows.
func New(list ...flows.Flow) *Fake {
	return &Fake{flows: slices.Clone(list), failures: map[Method]map[int]failure{}, calls: map[Method]int{}}
}

// Fail makes the n-th call of a method from now (1 is the next one) fail with
// err, or ErrInjected if it is nil, and do nothing.
func (f *Fake) Fail(m Method, n int, err error) { f.inject(m, n, failure{err: err}) }

// FailAfter is Fail for a sweep that sees this many entries, and ends those that are
// to end, before it fails.
func (f *Fake) FailAfter(n, seen int, err error) { f.inject(Sweep, n, failure{err: err, seen: seen}) }

func (f *Fake) inject(m Method, n int, fail failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fail.err == nil {
		fail.err = ErrInjected
	}
	if f.failures[m] == nil {
		f.failures[m] = map[int]failure{}
	}
	f.failures[m][f.calls[m]+n] = fail
}

// call counts a call and gives the failure that waits for it.
func (f *Fake) call(m Method) failure {
	f.calls[m]++
	fail := f.failures[m][f.calls[m]]
	if f.closed {
		fail = failure{err: os.ErrClosed}
	}
	return fail
}

// Calls is how often a method was called.
func (f *Fake) Calls(m Method) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[m]
}

// Add lets flows begin.
func (f *Fake) Add(list ...flows.Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows = append(f.flows, list...)
}

// Remove lets the flows end for which end says true.
func (f *Fake) Remove(end func(flows.Flow) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows = slices.DeleteFunc(f.flows, end)
}

// Flows returns the flows there are, in the order in which they began.
func (f *Fake) Flows() []flows.Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.flows)
}

// SetStats sets what Stats returns. Count is always the number of flows.
func (f *Fake) SetStats(s flows.Stats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats = s
}

// Sweep is flows.Table.Sweep.
func (f *Fake) Sweep(ctx context.Context, mark, mask uint32, judge func(flows.Flow) bool) (flows.Result, error) {
	f.sweeping.Lock()
	defer f.sweeping.Unlock()
	f.mu.Lock()
	fail, list := f.call(Sweep), slices.Clone(f.flows)
	f.mu.Unlock()
	var r flows.Result
	if err := flows.CheckFilter(mark, mask); err != nil {
		return r, fmt.Errorf("sweep flows: %w", err)
	}
	for _, flow := range list {
		if ctx.Err() != nil || fail.err != nil && r.Seen >= fail.seen {
			break
		}
		if flow.Mark&mask != mark {
			continue
		}
		r.Count(flow.Mark)
		if judge != nil && judge(flow) && f.cut(flow) {
			r.Cut++
		}
	}
	if err := errors.Join(fail.err, ctx.Err()); err != nil {
		return r, fmt.Errorf("sweep flows: %w", err)
	}
	return r, nil
}

func (f *Fake) cut(flow flows.Flow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.flows, flow)
	if i >= 0 {
		f.flows = slices.Delete(f.flows, i, i+1)
	}
	return i >= 0
}

// Stats is flows.Table.Stats.
func (f *Fake) Stats(ctx context.Context) (flows.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.call(Stats).err, ctx.Err()); err != nil {
		return flows.Stats{}, fmt.Errorf("read conntrack counters: %w", err)
	}
	s := f.stats
	s.Count = uint64(len(f.flows))
	return s, nil
}

// Close makes what is called later fail.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}
