package steer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/vrf"
)

// Bounds of the loop.
const (
	roundTimeout = time.Minute
	retryFirst   = 250 * time.Millisecond
	retryMax     = 30 * time.Second
	// resync is how often everything is read again although no event came.
	resync = 5 * time.Minute
	// sweepEvery is how often conntrack is asked for the flows of old sets.
	sweepEvery = 10 * time.Second
)

// Kernel is vrf.Kernel.
type Kernel interface {
	Snapshot(ctx context.Context) (vrf.Snapshot, error)
	Apply(ctx context.Context, plan vrf.Plan) vrf.Result
	Watch(ctx context.Context, notify func()) error
}

// Filter is a nat.Table of TableName.
type Filter interface {
	Snapshot(ctx context.Context) (nat.Ruleset, error)
	Apply(ctx context.Context, p nat.Plan) error
	Watch(ctx context.Context, notify func()) error
	Counters(ctx context.Context) (map[string]nat.Counter, error)
}

// Sysctls is sysctl.Store.
type Sysctls interface {
	Set(ctx context.Context, want []sysctl.Setting) ([]sysctl.Change, error)
}

// Flows is flows.Table.
type Flows interface {
	Sweep(ctx context.Context, mark, mask uint32, judge func(flows.Flow) bool) (flows.Result, error)
}

// Edges are what the agent works on.
type Edges struct {
	Kernel  Kernel
	Filter  Filter
	Sysctls Sysctls
	Flows   Flows
}

// Agent is the one loop that keeps a node's data plane. SetConfig, SetHealth and
// Status may be called from any goroutine, Run from one.
type Agent struct {
	log     *slog.Logger
	edges   Edges
	trigger chan struct{} // capacity 1

	mu     sync.Mutex
	cfg    *Config
	health map[string]Health
	swept  sweep

	orders      atomic.Pointer[order]
	status      atomic.Pointer[Status]
	kernelDirty atomic.Bool
	filterDirty atomic.Bool
	foreign     atomic.Bool // an event of somebody else came since the last round

	// What follows belongs to the loop.
	have     vrf.Snapshot
	sets     []KernelSet  // of have
	inPlace  *madeRouting // from which have does not differ, if that is known
	rules    nat.Ruleset
	memo     Memo
	prev     *Desired
	prevCfg  *Config
	retired  map[uint16]uint64 // since which round a set takes no new flows
	rounds   uint64
	ops      uint64
	repairs  uint64
	lastErr  string
	errCount uint64

	drops     map[string]nat.Counter
	countedAt time.Time
}

// New makes an Agent.
func New(log *slog.Logger, edges Edges) *Agent {
	a := &Agent{log: log, edges: edges, trigger: make(chan struct{}, 1), health: map[string]Health{}, retired: map[uint16]uint64{}}
	a.kernelDirty.Store(true)
	a.filterDirty.Store(true)
	return a
}

func (a *Agent) fire() {
	select {
	case a.trigger <- struct{}{}:
	default:
	}
}

// SetConfig makes cfg what is wanted from the next round on. The caller does not
// change it afterwards.
func (a *Agent) SetConfig(cfg Config) {
	a.mu.Lock()
	a.cfg = &cfg
	a.mu.Unlock()
	a.fire()
}

// SetHealth says what is known of gateways, by ID. It replaces what was said before;
// gateways that are not in it are Unknown.
func (a *Agent) SetHealth(health map[string]Health) {
	own := make(map[string]Health, len(health))
	for id, h := range health {
		own[id] = h
	}
	a.mu.Lock()
	same := reflect.DeepEqual(a.health, own)
	a.health = own
	a.mu.Unlock()
	if !same {
		a.fire()
	}
}

// Run runs rounds until ctx ends, and leaves the data plane as it is. Nothing is
// touched before the first Config.
func (a *Agent) Run(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	beside.Go(func() { a.watch(ctx, "kernel", a.edges.Kernel.Watch, &a.kernelDirty) })
	beside.Go(func() { a.watch(ctx, "nftables", a.edges.Filter.Watch, &a.filterDirty) })
	beside.Go(func() { a.sweeps(ctx) })
	again := time.NewTicker(resync)
	defer again.Stop()
	var retry <-chan time.Time
	pause := retryFirst
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.trigger:
		case <-retry:
			a.dirty()
		case <-again.C:
			a.dirty()
		}
		retry = nil
		if err := a.Round(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("round failed", "err", err, "retry", pause)
			retry = time.After(pause)
			pause = min(2*pause, retryMax)
			continue
		}
		pause = retryFirst
	}
}

func (a *Agent) dirty() {
	a.kernelDirty.Store(true)
	a.filterDirty.Store(true)
}

func (a *Agent) watch(ctx context.Context, what string, run func(context.Context, func()) error, dirty *atomic.Bool) {
	notify := func() {
		a.foreign.Store(true)
		dirty.Store(true)
		a.fire()
	}
	for ctx.Err() == nil {
		err := run(ctx, notify)
		if ctx.Err() != nil {
			return
		}
		a.log.Warn("watch ended", "of", what, "err", err)
		notify()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// Round brings the node from what it is to what is wanted, once. Run calls it; it is
// there by itself for whoever has no use for a loop.
//
//	lost gateways leave their groups, one message each
//	read the kernel and the packet filter, if they may have changed
//	decide
//	routing; the packet filter before it where there was none (fail closed), else behind
//	sets that are gone leave the kernel last
func (a *Agent) Round(ctx context.Context) error {
	a.mu.Lock()
	cfg, health := a.cfg, a.health
	a.mu.Unlock()
	if cfg == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	begin, foreign := time.Now(), a.foreign.Swap(false)
	a.loseGateways(ctx, health)
	err := a.gather(ctx)
	if err == nil {
		m, _ := marksFor(cfg.MarkMask) // what is wrong, Decide says
		want := a.memo.Decide(*cfg, Observed{Links: a.have.Links, Health: health, Sets: a.sets, Empty: a.empty(), Former: a.former(m), Choices: Choices(a.rules)})
		err = a.apply(ctx, &want, foreign && a.prevCfg == cfg)
		a.note(cfg, &want, err == nil)
		a.prev, a.prevCfg = &want, cfg
	}
	a.rounds++
	if a.lastErr = ""; err != nil {
		a.errCount++
		a.lastErr = err.Error()
	}
	a.publish(ctx, begin)
	return err
}

// gather reads what may have changed.
func (a *Agent) gather(ctx context.Context) (err error) {
	if a.kernelDirty.Swap(false) {
		have, err := a.edges.Kernel.Snapshot(ctx)
		if err != nil {
			a.kernelDirty.Store(true)
			return fmt.Errorf("observe: %w", err)
		}
		a.saw(have)
	}
	if a.filterDirty.Swap(false) {
		if a.rules, err = a.edges.Filter.Snapshot(ctx); err != nil {
			a.filterDirty.Store(true)
			return fmt.Errorf("observe: %w", err)
		}
	}
	return nil
}

// saw takes what the kernel has.
func (a *Agent) saw(have vrf.Snapshot) { a.have, a.sets, a.inPlace = have, Sets(have), nil }

// apply carries out what differs. A set must stand in the routing before the packet
// filter sends anything to it, and must have left the packet filter before it goes;
// and before anything at all is there, the filter comes first, with what it blocks.
func (a *Agent) apply(ctx context.Context, want *Desired, repair bool) error {
	_, sysctlErr := a.edges.Sysctls.Set(ctx, want.Sysctls)
	errs := []error{sysctlErr}
	var plan vrf.Plan
	if want.routing != a.inPlace {
		plan = vrf.Diff(a.have, want.Kernel)
		if plan.Empty() && len(plan.Errors) == 0 {
			a.inPlace = want.routing
		}
	}
	filter := nat.Diff(a.rules, want.Filter)
	if plan.Empty() && filter.Empty() {
		for _, e := range plan.Errors {
			errs = append(errs, e)
		}
		return errors.Join(errs...)
	}
	first := !a.rules.Exists
	if first {
		if err := a.filter(ctx, filter, want.Filter); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	if !plan.Empty() && !filter.Empty() {
		// First without removals: a plan for both states together. What of the old
		// one cannot be any more is told by nobody, it goes in any case.
		errs = append(errs, a.routing(ctx, union(a.have.Config, want.Kernel), false))
	}
	if !first {
		if err := a.filter(ctx, filter, want.Filter); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	if want.routing != a.inPlace {
		errs = append(errs, a.routing(ctx, want.Kernel, true))
	}
	err := errors.Join(errs...)
	switch {
	case err != nil:
	case repair:
		a.repairs++
		a.log.Warn("repaired drift", "plan", textOf(plan, filter))
	default:
		a.log.Info("applied", "operations", len(plan.Ops)+len(filter.Ops))
		if a.log.Enabled(ctx, slog.LevelDebug) {
			a.log.Debug("applied plan", "plan", textOf(plan, filter))
		}
	}
	return err
}

const maxPlanText = 8 << 10

func textOf(plan vrf.Plan, filter nat.Plan) string {
	text := plan.String() + filter.String()
	if len(text) > maxPlanText {
		return text[:maxPlanText] + " ..."
	}
	return text
}

// routing brings the kernel to want. What want cannot have is an error if all is told.
func (a *Agent) routing(ctx context.Context, want vrf.Config, all bool) error {
	plan := vrf.Diff(a.have, want)
	var errs []error
	for _, e := range plan.Errors {
		if all {
			errs = append(errs, e)
		}
	}
	if !plan.Empty() {
		res := a.edges.Kernel.Apply(ctx, plan)
		a.ops += uint64(res.Applied)
		errs = append(errs, res.Err())
		have, ok := plan.ApplyTo(a.have)
		if len(res.Errors) > 0 || !ok {
			var err error
			if have, err = a.edges.Kernel.Snapshot(ctx); err != nil {
				a.kernelDirty.Store(true)
				return errors.Join(append(errs, err)...)
			}
		}
		a.saw(have)
	}
	return errors.Join(errs...)
}

// filter carries out the plan that makes the packet filter want.
func (a *Agent) filter(ctx context.Context, plan nat.Plan, want nat.Ruleset) error {
	if plan.Empty() {
		return nil
	}
	if err := a.edges.Filter.Apply(ctx, plan); err != nil {
		a.filterDirty.Store(true)
		return err
	}
	a.ops++
	a.rules = want
	return nil
}

// Teardown takes away everything that is ours, the packet filter last. Kernel
// settings are the caller's to put back.
func Teardown(ctx context.Context, edges Edges) error {
	have, err := edges.Kernel.Snapshot(ctx)
	if err != nil {
		return err
	}
	res := edges.Kernel.Apply(ctx, vrf.Teardown(have))
	rules, err := edges.Filter.Snapshot(ctx)
	if err == nil {
		err = edges.Filter.Apply(ctx, nat.Diff(rules, nat.Ruleset{}))
	}
	return errors.Join(res.Err(), err)
}
