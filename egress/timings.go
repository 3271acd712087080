package egress

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Timing is a histogram of how long one stage of a failover took in a network.
type Timing struct {
	Network string `json:"network"`
	// Stage is detection, kernel or withdraw, as in Event.
	Stage string `json:"stage"`
	// Counts are by TimingBounds, those above all bounds last; not cumulative.
	Counts []uint64      `json:"counts"`
	Sum    time.Duration `json:"sumNanoseconds"`
}

// The stages of a failover.
const (
	stageDetection = "detection"
	stageKernel    = "kernel"
	stageWithdraw  = "withdraw"
)

// TimingBounds are the upper bounds of a Timing's buckets: from what one netlink
// message takes to what slow probes take.
func TimingBounds() []time.Duration {
	return []time.Duration{time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond,
		500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute}
}

type timingKey struct{ network, stage string }

// timings are the histograms of all networks. It belongs to the loop.
type timings map[timingKey]*Timing

func (t timings) add(network, stage string, d time.Duration) {
	bounds := TimingBounds()
	key := timingKey{network, stage}
	if t[key] == nil {
		t[key] = &Timing{Network: network, Stage: stage, Counts: make([]uint64, len(bounds)+1)}
	}
	i, _ := slices.BinarySearch(bounds, d)
	t[key].Counts[i]++
	t[key].Sum += d
}

// of gives the histograms of the networks that exist, sorted, and forgets the
// others.
func (t timings) of(exists func(network string) bool) []Timing {
	maps.DeleteFunc(t, func(k timingKey, _ *Timing) bool { return !exists(k.network) })
	out := make([]Timing, 0, len(t))
	for _, one := range t {
		copied := *one
		copied.Counts = slices.Clone(one.Counts)
		out = append(out, copied)
	}
	slices.SortFunc(out, func(a, b Timing) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Stage, b.Stage))
	})
	return out
}
