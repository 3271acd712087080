package egress

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/egret-router/egret/egress/nat"
)

// inspectEvery is the period between two looks at counters and neighbours.
const inspectEvery = 15 * time.Second

// Inspector tells what the packet filter discarded and what others in the
// kernel could do to our traffic; *nat.Table is the real one.
type Inspector interface {
	Counters(ctx context.Context) (map[string]nat.Counter, error)
	Problems(ctx context.Context) []string
}

// DropStatus counts packets the packet filter discarded for one reason.
type DropStatus struct {
	// Reason is one of nat's Reason constants; Network is set where it belongs to
	// one.
	Reason  string `json:"reason"`
	Network string `json:"network,omitempty"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// inspection is what the last look found.
type inspection struct {
	drops    []DropStatus
	problems []string
}

// Inspect looks at counters and neighbours until ctx ends. It is apart from
// the loop, because nothing is decided by what it sees. What is in the way is
// logged when it changes.
func (r *Router) Inspect(ctx context.Context, in Inspector) error {
	tick := time.NewTicker(inspectEvery)
	defer tick.Stop()
	for {
		r.inspect(ctx, in)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Router) inspect(ctx context.Context, in Inspector) {
	ctx, cancel := context.WithTimeout(ctx, inspectEvery)
	defer cancel()
	now := &inspection{problems: in.Problems(ctx)}
	before := r.inspected.Load()
	counters, err := in.Counters(ctx)
	if err != nil {
		if before != nil {
			now.drops = before.drops
		}
		now.problems = append(now.problems, err.Error())
	}
	for _, c := range counters {
		now.drops = append(now.drops, DropStatus{Reason: c.Reason, Network: c.Network, Packets: c.Packets, Bytes: c.Bytes})
	}
	slices.SortFunc(now.drops, func(a, b DropStatus) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Network, b.Network))
	})
	if ctx.Err() != nil {
		return // the daemon ends, or nft hangs: half a look is none
	}
	for _, p := range now.problems {
		if before == nil || !slices.Contains(before.problems, p) {
			r.log.Warn("something else in this kernel is in the way", "problem", p)
		}
	}
	r.inspected.Store(now)
}
