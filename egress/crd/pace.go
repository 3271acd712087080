package crd

import "time"

const (
	// quiet is how long the Source waits for more after a change: objects that are
	// written together come together.
	quiet = 2 * time.Millisecond
	// gap is the time from one View to the next at least, when changes keep coming: a
	// rollout of many pods is not a View for each. share is the part of the time
	// that Views may take then, as one in so many.
	gap   = 50 * time.Millisecond
	share = 4
	// atOnce is how many Views may follow each other without a gap: a change that
	// comes alone, or a few after another, do not wait.
	atOnce = 8
)

// pace says when the next View is due. It is the generic cell rate algorithm (ITU-T
// I.371): each View moves the time at which it would have come at the even rate, and
// may be ahead of it by so much.
type pace struct{ even time.Time }

// wait is how long to wait for a View now.
func (p *pace) wait(now time.Time) time.Duration {
	if p.even.Before(now) { // the first one by far
		return quiet
	}
	return max(quiet, p.even.Sub(now)-(atOnce-1)*gap)
}

// took notes a View, with the time that it took.
func (p *pace) took(ended time.Time, d time.Duration) {
	if begin := ended.Add(-d); p.even.Before(begin) {
		p.even = begin
	}
	p.even = p.even.Add(max(gap, share*d))
}
