package egress

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/nat/nattest"
)

// TestInspect shows what the packet filter counted and who is in the way.
func TestInspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := bring(t, w, twoNetworks())
		w.filter.SetCounters(map[string]nat.Counter{"b": {Reason: nat.ReasonUplink, Network: "red", Packets: 2, Bytes: 120}, "a": {Reason: nat.ReasonInvalid, Packets: 1, Bytes: 60}})
		w.filter.SetProblems("chain ip filter FORWARD has policy drop in forward")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Inspect(ctx, w.filter) }()
		synctest.Wait()
		s := r.Status()
		if len(s.Drops) != 2 || s.Drops[0].Reason != nat.ReasonInvalid || s.Drops[1].Packets != 2 || len(s.Problems) != 1 {
			t.Errorf("drops %+v, problems %q", s.Drops, s.Problems)
		}
		w.filter.Fail(nattest.Counters, 1, nil)
		<-time.After(inspectEvery) // time of the bubble
		synctest.Wait()
		if s := r.Status(); len(s.Drops) != 2 || len(s.Problems) != 2 {
			t.Errorf("after a failed look: drops %+v, problems %q", s.Drops, s.Problems)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
