//go:build bench

package clusterbench

import (
	"fmt"
	"slices"
	"time"
)

// latency is of one kind of event: from before the request, and from after it was answered,
// to the kernel's notification.
type latency struct {
	name          string
	began, answer []time.Duration
}

func (l *latency) add(began, answered, programmed time.Time) {
	l.began = append(l.began, programmed.Sub(began))
	l.answer = append(l.answer, programmed.Sub(answered))
}

func (l *latency) String() string {
	return fmt.Sprintf("%-34s N=%d  from the request p50 %5.1f ms  p99 %5.1f  max %5.1f  from its answer p50 %5.1f  p99 %5.1f", l.name, len(l.began),
		at(l.began, 50), at(l.began, 99), at(l.began, 100), at(l.answer, 50), at(l.answer, 99))
}

// at is a percentile, in milliseconds.
func at(list []time.Duration, percent int) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return float64(sorted[(len(sorted)-1)*percent/100].Microseconds()) / 1000
}
