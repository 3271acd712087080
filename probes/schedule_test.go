package probes

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestScheduleIsDeterministicAndBounded(t *testing.T) {
	const interval = 300 * time.Millisecond
	a, b := newSchedule("red/icmp 10.0.0.1", interval), newSchedule("red/icmp 10.0.0.1", interval)
	other := newSchedule("red/icmp 10.0.0.2", interval)
	pa, pb := a.phase(), b.phase()
	if pa != pb || pa == other.phase() {
		t.Errorf("phases %v and %v of the same name", pa, pb)
	}
	if pa < 0 || pa >= interval {
		t.Errorf("phase %v", pa)
	}
	seen := map[time.Duration]bool{}
	for range 1000 {
		ga := a.gap()
		if ga != b.gap() {
			t.Fatal("the same name has different gaps")
		}
		if ga < interval*9/10 || ga > interval {
			t.Fatalf("gap %v", ga)
		}
		seen[ga] = true
	}
	if len(seen) < 500 {
		t.Errorf("only %d different gaps", len(seen))
	}
}

// TestNoStorm: 300 targets that start together stay spread over the interval,
// at the start and for as long as one looks.
func TestNoStorm(t *testing.T) {
	const targets, interval, window = 300, time.Second, 10 * time.Millisecond
	var starts []time.Duration
	for i := range targets {
		s := newSchedule(fmt.Sprintf("net%d/icmp 10.0.0.1", i), interval)
		at := s.phase()
		for range 60 {
			starts = append(starts, at)
			at += s.gap()
		}
	}
	slices.Sort(starts)
	// Three fall into a window on average. At random, more than 18 in any of the
	// some thousand windows are less likely than one in ten thousand.
	worst, first := 0, 0
	for i, at := range starts {
		for at-starts[first] > window {
			first++
		}
		worst = max(worst, i-first+1)
	}
	t.Logf("at most %d of %d targets start within %v of each other", worst, targets, window)
	if worst > 18 {
		t.Errorf("%d of %d targets start within %v of each other", worst, targets, window)
	}
}
