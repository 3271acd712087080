// Package drain is how a network is taken out of use without breaking what uses
// it: the record of one drain, how it goes on (pure), and the file in which it
// survives a restart.
//
// A drain goes through the stages in their order, one at a time, and never back;
// undraining is deleting the record.
package drain

import (
	"errors"
	"fmt"
	"time"
)

// Stage is how far a drain is.
type Stage string

// The stages.
const (
	// None is that of a network that is not drained.
	None Stage = ""
	// Lowered: routers were asked to prefer other ways (RFC 8326), new flows are
	// still taken, so that none is refused that they still send.
	Lowered Stage = "lowered"
	// Refusing: new flows are refused, those that are established go on.
	Refusing Stage = "refusing"
	// Withdrawn: the pools are withdrawn; new flows are refused.
	Withdrawn Stage = "withdrawn"
)

// Bounds of what may be asked.
const (
	MaxDelay    = time.Hour
	MaxDeadline = 7 * 24 * time.Hour
)

// Order is what somebody asks for.
type Order struct {
	// Delay is the time between Lowered and Refusing, Deadline the time from the
	// order to Withdrawn at the latest. A deadline before the delay's end is
	// that end.
	Delay    time.Duration `json:"delayNanoseconds"`
	Deadline time.Duration `json:"deadlineNanoseconds"`
	// Cut ends the flows that are left at the deadline; else they stay as long as
	// their packets find a way.
	Cut bool `json:"cut,omitempty"`
}

// ErrBadOrder is an order out of bounds.
var ErrBadOrder = errors.New("not possible")

// Check says what is wrong with an order: it matches ErrBadOrder.
func (o Order) Check() error {
	switch {
	case o.Delay < 0 || o.Delay > MaxDelay:
		return fmt.Errorf("delay %s is %w: 0s to %s are", o.Delay, ErrBadOrder, MaxDelay)
	case o.Deadline < 0 || o.Deadline > MaxDeadline:
		return fmt.Errorf("deadline %s is %w: 0s to %s are", o.Deadline, ErrBadOrder, MaxDeadline)
	}
	return nil
}

// Record is the drain of one network.
type Record struct {
	Stage Stage     `json:"stage"`
	Since time.Time `json:"since"`
	// RefuseAt and Deadline are when the next stages begin, the last one perhaps
	// before.
	RefuseAt time.Time `json:"refuseAt"`
	Deadline time.Time `json:"deadline"`
	Cut      bool      `json:"cut,omitempty"`
	// Counted says that flows have been counted since new ones are refused: Begun
	// is what the first count said, Left the last one before or at Withdrawn.
	Counted bool `json:"counted,omitempty"`
	Begun   int  `json:"begun,omitempty"`
	Left    int  `json:"left,omitempty"`
	// Ended is when the stage became Withdrawn.
	Ended time.Time `json:"ended,omitzero"`
}

// Begin is the record of an order given now.
func (o Order) Begin(now time.Time) Record {
	// Without the monotonic clock, which means nothing to the next process.
	now = now.Round(0)
	r := Record{Stage: Lowered, Since: now, RefuseAt: now.Add(o.Delay), Cut: o.Cut}
	r.Deadline = latest(now.Add(o.Deadline), r.RefuseAt)
	return r
}

// Amend is the record after another order for the same network: its deadline
// counts from now, what has been done stays.
func (r Record) Amend(o Order, now time.Time) Record {
	r.Deadline, r.Cut = latest(now.Round(0).Add(o.Deadline), r.RefuseAt), o.Cut
	return r
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// Count is the number of flows of a network, if it is known: counted after new
// ones were refused.
type Count struct {
	Known bool
	Flows int
}

// Next is the record at a time, at most one stage further: what one stage asks
// for is carried out before the next.
func (r Record) Next(now time.Time, c Count) Record {
	switch r.Stage {
	case Lowered:
		if !now.Before(r.RefuseAt) {
			r.Stage = Refusing
		}
	case Refusing:
		if c.Known {
			if !r.Counted {
				r.Begun = c.Flows
			}
			r.Counted, r.Left = true, c.Flows
		}
		if c.Known && c.Flows == 0 || !now.Before(r.Deadline) {
			r.Stage, r.Ended = Withdrawn, now.Round(0)
		}
	}
	return r
}

// Wake is when Next says something else without any count; zero is never.
func (r Record) Wake() time.Time {
	switch r.Stage {
	case Lowered:
		return r.RefuseAt
	case Refusing:
		return r.Deadline
	}
	return time.Time{}
}

// Refuses says that new flows are refused.
func (r Record) Refuses() bool { return r.Stage == Refusing || r.Stage == Withdrawn }

// Waits says that flows have to be counted soon.
func (r Record) Waits() bool { return r.Stage == Lowered || r.Stage == Refusing }

// Gone is how many flows ended by themselves since new ones are refused, those
// that were left aside.
func (r Record) Gone() int { return max(0, r.Begun-r.Left) }
