// Package nattest has an nftables table in memory, for tests of what stands
// above package nat: it takes plans as strictly as the kernel, fails when told
// to, and lets the test play the administrator who edits by hand.
package nattest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/egret-router/egret/egress/nat"
)

// Method names one of the Fake's methods that can be made to fail.
type Method string

// The methods that can fail.
const (
	Snapshot Method = "Snapshot"
	Apply    Method = "Apply"
	Check    Method = "Check"
	Delete   Method = "Delete"
	Counters Method = "Counters"

	HasFlowtable Method = "HasFlowtable"
)

// ErrInjected is the error of an injected failure that named none.
var ErrInjected = errors.New("injected failure")

// Fake has the methods of nat.Table. They may be called at the same time.
type Fake struct {
	mu       sync.Mutex
	rules    nat.Ruleset
	plans    []nat.Plan
	failures map[Method]map[int]failure
	calls    map[Method]int
	counters map[string]nat.Counter
	problems []string
	flows    bool
	watchers map[int]func()
	lastID   int
}

type failure struct {
	err   error
	after bool
}

// New returns a fake without a table.
func New() *Fake {
	return &Fake{failures: map[Method]map[int]failure{}, calls: map[Method]int{}, watchers: map[int]func(){}}
}

// Fail makes the n-th call of a method from now (1 is the next one) fail with
// err, or ErrInjected if it is nil. The table stays as it is.
func (f *Fake) Fail(m Method, n int, err error) { f.inject(m, n, failure{err: err}) }

// FailAfter is Fail for a change that is made and then reported as failed, as
// when nft is killed between the two.
func (f *Fake) FailAfter(m Method, n int, err error) {
	f.inject(m, n, failure{err: err, after: true})
}

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
	return f.failures[m][f.calls[m]]
}

// Calls is how often a method was called.
func (f *Fake) Calls(m Method) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[m]
}

// Snapshot returns the table.
func (f *Fake) Snapshot(ctx context.Context) (nat.Ruleset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.call(Snapshot).err, ctx.Err()); err != nil {
		return nat.Ruleset{}, fmt.Errorf("read table: %w", err)
	}
	if !f.rules.Exists {
		return nat.Ruleset{}, nil
	}
	return f.rules.Clone(), nil
}

// Apply carries out all of the plan or, with an error, nothing. An operation
// that the kernel would refuse fails.
func (f *Fake) Apply(ctx context.Context, p nat.Plan) error {
	if p.Empty() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fail := f.call(Apply)
	if fail.err != nil && !fail.after || ctx.Err() != nil {
		return fmt.Errorf("change table: %w", errors.Join(fail.err, ctx.Err()))
	}
	rules, err := p.ApplyTo(f.rules)
	if err != nil {
		return fmt.Errorf("change table: %w", err)
	}
	f.rules = rules
	f.plans = append(f.plans, p)
	if fail.err != nil {
		return fmt.Errorf("change table: %w", fail.err)
	}
	return nil
}

// Check says whether Apply would take the plan.
func (f *Fake) Check(ctx context.Context, p nat.Plan) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := p.ApplyTo(f.rules)
	if err = errors.Join(f.call(Check).err, ctx.Err(), err); err != nil {
		return fmt.Errorf("check change of table: %w", err)
	}
	return nil
}

// Delete takes the table away.
func (f *Fake) Delete(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fail := f.call(Delete)
	if fail.err != nil && !fail.after || ctx.Err() != nil {
		return fmt.Errorf("delete table: %w", errors.Join(fail.err, ctx.Err()))
	}
	f.rules = nat.Ruleset{}
	return fail.err
}

// Counters returns what SetCounters set.
func (f *Fake) Counters(ctx context.Context) (map[string]nat.Counter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.call(Counters).err, ctx.Err()); err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	out := map[string]nat.Counter{}
	for name, c := range f.counters {
		out[name] = c
	}
	return out, nil
}

// SetCounters sets what Counters returns.
func (f *Fake) SetCounters(counters map[string]nat.Counter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counters = counters
}

// Problems returns what SetProblems set.
func (f *Fake) Problems(context.Context) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.problems...)
}

// SetProblems sets what Problems returns.
func (f *Fake) SetProblems(problems ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = problems
}

// HasFlowtable returns what SetFlowtable set, and false before.
func (f *Fake) HasFlowtable(ctx context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.call(HasFlowtable).err, ctx.Err()); err != nil {
		return false, fmt.Errorf("look for flowtables: %w", err)
	}
	return f.flows, nil
}

// SetFlowtable sets what HasFlowtable returns.
func (f *Fake) SetFlowtable(has bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flows = has
}

// Watch calls notify after each Edit until ctx ends. Apply and Delete are our
// own and go unnoticed.
func (f *Fake) Watch(ctx context.Context, notify func()) error {
	f.mu.Lock()
	f.lastID++
	id := f.lastID
	f.watchers[id] = notify
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, id)
	return nil
}

// Watching says how many calls of Watch are under way.
func (f *Fake) Watching() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers)
}

// Edit changes the table as somebody else would, and tells those who watch.
func (f *Fake) Edit(change func(*nat.Ruleset)) {
	f.mu.Lock()
	rules := f.rules.Clone()
	change(&rules)
	f.rules = rules
	var notify []func()
	for _, w := range f.watchers {
		notify = append(notify, w)
	}
	f.mu.Unlock()
	for _, n := range notify {
		n()
	}
}

// Plans are the plans that were carried out, in order.
func (f *Fake) Plans() []nat.Plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]nat.Plan(nil), f.plans...)
}

// Ruleset is the table as it is, without counting as a call.
func (f *Fake) Ruleset() nat.Ruleset {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.rules.Exists {
		return nat.Ruleset{}
	}
	return f.rules.Clone()
}
