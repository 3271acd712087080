package steer

import (
	"context"
	"time"

	"github.com/egret-router/egret/egress/nat"
)

// countEvery is how old the counters in a Status may be for the next one.
const countEvery = 5 * time.Second

// Status is what the agent does, after its last round.
type Status struct {
	At       time.Time
	Gateways []GatewayStatus
	Sets     []SetStatus
	// Clients counts the addresses with a policy, those without, and the blocked.
	Clients, Unsteered, Blocked int
	// Drops counts packets that were discarded, by reason: drop_unknown (a source
	// that the agent does not know yet), drop_blocked, drop_no_gateway, drop_lost (a
	// flow of a set that is gone, to where no rule leads any more), drop_leak (marked,
	// but not on its way into the tunnel), drop_inbound (out of the tunnel to a pod
	// that had not asked).
	// They may be some seconds older than the rest.
	Drops    map[string]nat.Counter
	MTU      int
	Problems []string
	Round    RoundStatus
}

// RoundStatus is about the loop itself.
type RoundStatus struct {
	Rounds, Operations, Repairs, Errors uint64
	LastError                           string
	Took                                time.Duration
}

// GatewayStatus is one gateway as the agent sees it.
type GatewayStatus struct {
	ID               string
	Health           string
	Usable, Carrying bool
	Reason           string
	// Clients counts the pods that bounded rules have given it, once for each choice.
	Clients int
}

// SetStatus is one set of gateways. Flows is -1 while nobody has counted.
type SetStatus struct {
	Number        uint16
	Mark          uint32
	Members, Live []string
	Active, Lost  bool
	Flows         int
}

// Status is that of the last round, nil before the first. It must not be changed.
func (a *Agent) Status() *Status { return a.status.Load() }

func (a *Agent) publish(ctx context.Context, begin time.Time) {
	s := &Status{At: time.Now(), Round: RoundStatus{Rounds: a.rounds, Operations: a.ops, Repairs: a.repairs,
		Errors: a.errCount, LastError: a.lastErr, Took: time.Since(begin)}}
	if time.Since(a.countedAt) > countEvery { // it is a process to run, and rounds may follow each other closely
		if drops, err := a.edges.Filter.Counters(ctx); err == nil {
			a.drops, a.countedAt = drops, time.Now()
		}
	}
	s.Drops = a.drops
	if a.prev != nil {
		s.MTU, s.Problems = a.prev.MTU, a.prev.Problems
		for _, g := range a.prev.Gateways {
			s.Gateways = append(s.Gateways, GatewayStatus{g.ID, g.Health.String(), g.Usable, g.Carrying, g.Reason, g.Clients})
		}
		a.mu.Lock()
		swept := a.swept
		a.mu.Unlock()
		for _, set := range a.prev.Sets {
			n := -1
			if swept.counts != nil {
				n = swept.counts[set.Number]
			}
			s.Sets = append(s.Sets, SetStatus{set.Number, set.Mark, set.Members, set.Live, set.Active, set.Lost, n})
		}
	}
	if a.prevCfg != nil {
		for _, c := range a.prevCfg.Clients {
			switch {
			case c.Blocked:
				s.Blocked++
			case c.Policy == "":
				s.Unsteered++
			default:
				s.Clients++
			}
		}
	}
	a.status.Store(s)
}
