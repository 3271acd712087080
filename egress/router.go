package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// Bounds of the loop.
const (
	// roundTimeout bounds one round, whatever hangs.
	roundTimeout = time.Minute
	// retryFirst and retryMax bound the pause before a failed round is tried
	// again; it doubles from one to the other.
	retryFirst = 250 * time.Millisecond
	retryMax   = 30 * time.Second
)

// Router is the one loop that owns mutable state. SetSpec, Reject, Drain, Undrain,
// Status and Observed may be called from any goroutine, Run from one.
type Router struct {
	log     *slog.Logger
	edges   Edges
	trigger Trigger
	version string
	started time.Time

	mu      sync.Mutex
	pending *Spec
	// latest is the last one that was set.
	latest *Spec
	// rejected is why the last reload was not taken; "" after one that was.
	rejected  string
	rejectedN uint64
	loadedAt  time.Time
	// ended is closed at the end of the next round.
	ended chan struct{}

	status    atomic.Pointer[published]
	observed  atomic.Pointer[State]
	inspected atomic.Pointer[inspection]

	// eventAt is when the oldest kernel or filter event not yet handled came, in
	// nanoseconds since the epoch; 0 is none.
	eventAt     atomic.Int64
	kernelDirty atomic.Bool
	filterDirty atomic.Bool

	flows  *flowWatch
	events *eventLog
	drains *drainKeeper

	// What follows belongs to the loop.
	spec     *Spec
	sessions sessionWatch
	// compiled is of spec; changed says that no round has succeeded with it yet.
	compiled *compiled
	changed  bool
	have     vrf.Snapshot
	filter   nat.Ruleset
	// renderer renders what of the packet filter changed since the last round.
	renderer *nat.Renderer
	// awaiting are the networks whose learned routes are kept from before our
	// restart, until their speaker is in sync.
	awaiting   map[string]bool
	advertised map[string]map[netip.Prefix]bool
	// learnedBefore are the learned routes of the round before.
	learnedBefore map[string][]bgp.Route
	history       map[string]phaseRecord
	counters      counters
	first         bool
	// prev is what the round before wanted, clean whether it had no error.
	prev  *Desired
	clean bool
	tell  *narrator
	// draining says since which round a path takes no new flows.
	draining map[uint16]uint64
	// refusing says since which round a network takes no new flows.
	refusing map[string]uint64
	// flowtables says that the kernel can offload flows.
	flowtables bool
}

// NewRouter makes a Router. The trigger is the one that the edges' notify
// functions fire.
func NewRouter(log *slog.Logger, edges Edges, trigger Trigger, version string) *Router {
	r := &Router{log: log, edges: edges, trigger: trigger, version: version, started: time.Now(),
		awaiting: map[string]bool{}, learnedBefore: map[string][]bgp.Route{}, history: map[string]phaseRecord{}, draining: map[uint16]uint64{}, refusing: map[string]uint64{}, renderer: nat.NewRenderer(), first: true}
	r.sessions.timer.fire = trigger.Fire
	r.ended = make(chan struct{})
	r.events = newEventLog()
	r.tell = newNarrator(r.events, log)
	r.flows = newFlowWatch(log, edges.Flows, trigger.Fire)
	r.drains = newDrainKeeper(log, edges.Drains, r.events, trigger.Fire)
	r.kernelDirty.Store(true)
	r.filterDirty.Store(true)
	return r
}

// SetSpec makes s what is wanted from the next round on.
func (r *Router) SetSpec(s *Spec) {
	r.mu.Lock()
	r.pending, r.latest, r.rejected, r.loadedAt = s, s, "", time.Now()
	r.mu.Unlock()
	r.trigger.Fire()
}

// Reject records that a reload was refused; the running Spec stays.
func (r *Router) Reject(err error) {
	r.mu.Lock()
	r.rejected = err.Error()
	r.rejectedN++
	r.mu.Unlock()
	r.events.add(Event{Kind: EventConfig, State: "refused", Cause: err.Error()})
	r.trigger.Fire()
}

// Observed is the State of the last round; nil before the first one. It must
// not be changed.
func (r *Router) Observed() *State { return r.observed.Load() }

// Run runs rounds until ctx ends: on every trigger, after failures with
// backoff, and at least once per resync period. It leaves the data plane as it
// is. Nothing is touched before the first Spec.
func (r *Router) Run(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchers.Go(func() { r.watch(ctx, "kernel", r.edges.Kernel.Watch, &r.kernelDirty) })
	watchers.Go(func() { r.flows.run(ctx) })
	watchers.Go(func() { r.watch(ctx, "nftables", r.edges.Filter.Watch, &r.filterDirty) })

	resync := time.NewTimer(time.Hour)
	defer resync.Stop()
	defer r.sessions.timer.arm(0)
	defer r.drains.timer.arm(0)
	var retry <-chan time.Time
	pause := retryFirst
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.trigger:
		case <-retry:
			r.kernelDirty.Store(true)
			r.filterDirty.Store(true)
		case <-resync.C:
			r.kernelDirty.Store(true)
			r.filterDirty.Store(true)
		}
		r.take()
		if r.spec == nil {
			continue
		}
		resync.Reset(r.spec.Settings.Resync)
		retry = nil
		if err := r.round(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("round failed", "err", err, "retry", pause)
			retry = time.After(pause)
			pause = min(2*pause, retryMax)
		} else {
			pause = retryFirst
		}
	}
}

// take makes a pending Spec the current one.
func (r *Router) take() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending != nil {
		r.spec, r.pending = r.pending, nil
		r.events.add(Event{Kind: EventConfig, State: "taken", Subject: fmt.Sprintf("%d networks, %d policies", len(r.spec.Networks), len(r.spec.Policies))})
		r.compiled, r.changed = compile(r.spec), true
	}
}

// watch keeps one watcher running; it fires the trigger for each event.
func (r *Router) watch(ctx context.Context, what string, run func(context.Context, func()) error, dirty *atomic.Bool) {
	notify := func() {
		r.eventAt.CompareAndSwap(0, time.Now().UnixNano())
		dirty.Store(true)
		r.trigger.Fire()
	}
	for ctx.Err() == nil {
		err := run(ctx, notify)
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("watch ended", "of", what, "err", err)
		notify()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// round brings the world from what it is to what is wanted. Its order is that
// of ARCHITECTURE.md, "A round".
func (r *Router) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	begin := time.Now()
	event := r.eventAt.Swap(0)
	r.hear()
	r.losePeers(ctx)
	r.loseHops(ctx)
	st, err := r.gather(ctx)
	if err != nil {
		return r.failed(begin, err)
	}
	r.hear()
	r.loseGone(ctx, &st)
	want := r.compiled.resolve(st)
	rep := report{begin: begin, event: event, spec: r.spec, want: &want, failed: map[string]error{}}

	rep.add("withdraw", r.withdraw(ctx, &want))
	rules := r.renderer.Render(want.NAT)
	if err := r.guards(ctx, rules); err != nil {
		// Without guards nothing may be opened: stop here, fail closed.
		rep.add("guards", err)
		return r.finish(&rep, &st)
	}
	rep.add("sysctls", r.setSysctls(ctx, &want, &rep))
	r.applyKernel(ctx, &want, &rep)
	rep.add("nftables", r.applyFilter(ctx, rules, &rep))
	rep.add("advertise", r.advertise(ctx, &want, &rep))
	rep.add("probes", r.edges.Prober.Set(want.Probes))
	rep.add("bfd", r.edges.BFD.Set(want.BFD))
	r.orderSweep(&want, &rep)
	r.first = false
	return r.finish(&rep, &st)
}

// gather observes: the kernel's state where events or the resync say that it
// may have changed, and what the speaker and the prober know.
func (r *Router) gather(ctx context.Context) (State, error) {
	if r.kernelDirty.Swap(false) {
		have, err := r.edges.Kernel.Snapshot(ctx)
		if err != nil {
			r.kernelDirty.Store(true)
			return State{}, err
		}
		r.have = have
	}
	if r.filterDirty.Swap(false) {
		have, err := r.edges.Filter.Snapshot(ctx)
		if err != nil {
			r.filterDirty.Store(true)
			return State{}, err
		}
		r.filter = have
	}
	if r.first {
		var err error
		if r.flowtables, err = r.edges.Filter.HasFlowtable(ctx); err != nil {
			return State{}, err
		}
	}
	st := Observe(r.have, r.spec.Settings.Ownership)
	st.Flowtables, st.Drained = r.flowtables, r.drained()
	if r.first {
		for name := range st.Kept {
			r.awaiting[name] = true
		}
	}
	speakers := r.edges.Speaker.State()
	r.tell.peersOf(speakers)
	for _, s := range speakers {
		if s.Synced {
			delete(r.awaiting, s.Network)
		}
		if !r.awaiting[s.Network] {
			st.Learned[s.Network] = s.Routes
		}
	}
	st.Verdicts = r.verdicts()
	st.Broken = brokenSessions(r.edges.BFD.State())
	st.Drains = r.drains.advance(time.Now(), r.spec, r.flowCounts())
	return st, nil
}

// report is what one round did.
type report struct {
	begin  time.Time
	event  int64
	spec   *Spec
	want   *Desired
	failed map[string]error // network -> why its data plane is not in place
	filter error            // why the packet filter is not in place
	errs   []error
	plan   string // operations carried out, for the log
	ops    int
}

func (rep *report) add(step string, err error) {
	if err != nil {
		rep.errs = append(rep.errs, &StepError{step, err})
	}
}

// StepError is the failure of one step of a round.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

func (rep *report) err() error { return errors.Join(rep.errs...) }
