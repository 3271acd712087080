package egress

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/flows"
)

// Bounds of sweeping conntrack.
const (
	// sweepEvery is the period of sweeps while a path is draining, and of those
	// that measure how far pools are used.
	sweepEvery = 10 * time.Second
	// drainEvery is the period while somebody waits for a network's flows to end.
	drainEvery = time.Second
	// sweepShare bounds what sweeping costs: a twentieth of one processor.
	sweepShare = 20
	// sweepTimeout bounds one sweep: conntrack is read at 200,000 flows a second.
	sweepTimeout = time.Minute
	// maxTargets bounds what is counted of a pool address's destinations.
	maxTargets = 1 << 16
)

// sweepOrder asks for a sweep of conntrack. A later one replaces it.
type sweepOrder struct {
	// round is the round that gave the order.
	round uint64
	judge *judge
	// draining are the paths whose flows are to be counted: they took no new ones
	// when the order was given.
	draining map[uint16]bool
	// stages are those of the networks that are drained.
	stages map[string]drain.Stage
}

// period is the time between two sweeps.
func (o *sweepOrder) period() time.Duration {
	if o != nil {
		for _, s := range o.stages {
			if s != drain.Withdrawn {
				return drainEvery
			}
		}
	}
	return sweepEvery
}

// sweepResult is what a sweep found.
type sweepResult struct {
	round   uint64
	counts  map[uint16]int // flows by path number
	open    map[string]int // flows by network, without closed connections
	drained map[uint16]bool
	cut     int
	usage   []flows.AddressUsage
	stats   flows.Stats
	at      time.Time
}

// flowWatch sweeps conntrack beside the loop, which only leaves orders and
// looks at results: a sweep of a million flows takes seconds.
type flowWatch struct {
	log    *slog.Logger
	flows  Flows
	notify func()
	wake   chan struct{} // capacity 1

	mu     sync.Mutex
	order  *sweepOrder
	result *sweepResult
}

func newFlowWatch(log *slog.Logger, f Flows, notify func()) *flowWatch {
	return &flowWatch{log: log, flows: f, notify: notify, wake: make(chan struct{}, 1)}
}

// set leaves an order; with now it is carried out at once.
func (w *flowWatch) set(o *sweepOrder, now bool) {
	w.mu.Lock()
	w.order = o
	w.mu.Unlock()
	if now {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// current is the order in force, nil before the first.
func (w *flowWatch) current() *sweepOrder {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.order
}

// latest is the last result, nil before the first.
func (w *flowWatch) latest() *sweepResult {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.result
}

// run sweeps when woken and periodically, until ctx ends.
func (w *flowWatch) run(ctx context.Context) {
	next := time.NewTimer(sweepEvery)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-next.C:
		}
		begin := time.Now()
		w.mu.Lock()
		order := w.order
		w.mu.Unlock()
		if order != nil {
			w.sweep(ctx, order)
		}
		next.Reset(max(order.period(), sweepShare*time.Since(begin)))
	}
}

// sweep carries out an order. The loop is told when it has something to do with
// the result.
func (w *flowWatch) sweep(ctx context.Context, o *sweepOrder) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	usage := flows.NewUsage(maxTargets)
	open := map[string]int{}
	res, err := w.flows.Sweep(ctx, uint32(markEgress), uint32(markEgress), func(f flows.Flow) bool {
		if o.judge.ends(f) {
			return true
		}
		usage.Add(f)
		if !f.Closed {
			open[o.judge.network(f.Mark)]++
		}
		return false
	})
	if err == nil && o.judge.cutting {
		var strays flows.Result
		strays, err = w.flows.Sweep(ctx, 0, uint32(markEgress), o.judge.strays)
		res.Cut += strays.Cut
	}
	stats, statsErr := w.flows.Stats(ctx)
	if err = errors.Join(err, statsErr); err != nil {
		if ctx.Err() == nil {
			w.log.Warn("sweep of conntrack failed", "err", err)
		}
		return
	}
	out := &sweepResult{round: o.round, counts: map[uint16]int{}, open: open, drained: map[uint16]bool{}, cut: res.Cut, usage: usage.Addresses(), stats: stats, at: time.Now()}
	for mark, n := range res.ByMark {
		number, _ := markParts(mark)
		out.counts[number] += n
	}
	if res.Unlisted == 0 {
		for number := range o.draining {
			out.drained[number] = out.counts[number] == 0
		}
		maps.DeleteFunc(out.drained, func(_ uint16, empty bool) bool { return !empty })
	}
	if res.Cut > 0 {
		w.log.Info("ended flows", "cut", res.Cut, "seen", res.Seen)
	}
	w.mu.Lock()
	w.result = out
	w.mu.Unlock()
	if len(out.drained) > 0 || o.period() == drainEvery {
		w.notify()
	}
}
