package probes

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// clock rings alarms, from one goroutine and one after the other. What may ring
// a little early rings together with what is due, so that a wakeup serves
// several; nothing is ever held back for that.
type clock struct {
	mu     sync.Mutex
	alarms alarms
	// ringing says that run looks at the alarms again before it sleeps.
	ringing bool
	// woken holds at most one request to look at the alarms again.
	woken chan struct{}
	// spent is the processor time of what rang, in nanoseconds.
	spent atomic.Int64
}

// alarm is one thing to do, again and again at other times. Its fields are the
// clock's once it was set.
type alarm struct {
	// ring is called with the time when the round began. It must not wait.
	ring func(now time.Time)
	// slack is how much too early it may ring.
	slack time.Duration
	at    time.Time
	// place in the heap, from 1 on; 0 is not set.
	place int
}

const (
	// idleWait is how long a clock without alarms sleeps.
	idleWait = time.Hour
	// maxShared is how many alarms ring together when not all are due: without a
	// bound those that share a wakeup would draw in more each time, until all
	// targets are tried in one burst.
	maxShared = 32
)

func newClock() *clock { return &clock{woken: make(chan struct{}, 1)} }

// set makes a ring at the given time, instead of the time it may be set to.
func (c *clock) set(a *alarm, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.at = at
	if a.place == 0 {
		heap.Push(&c.alarms, a)
	} else {
		heap.Fix(&c.alarms, a.place-1)
	}
	if a.place == 1 && !c.ringing {
		select {
		case c.woken <- struct{}{}:
		default:
		}
	}
}

// sooner is set, unless a is set to an earlier time already.
func (c *clock) sooner(a *alarm, at time.Time) {
	c.mu.Lock()
	earlier := a.place != 0 && !at.Before(a.at)
	c.mu.Unlock()
	if !earlier {
		c.set(a, at)
	}
}

// clear makes a not ring, unless it is just about to.
func (c *clock) clear(a *alarm) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.place != 0 {
		heap.Remove(&c.alarms, a.place-1)
	}
}

// run rings until ctx ends.
func (c *clock) run(ctx context.Context) {
	timer := time.NewTimer(idleWait)
	defer timer.Stop()
	var due []*alarm
	wakeups := 0
	for ctx.Err() == nil {
		var wait time.Duration
		if due, wait = c.due(due[:0], time.Now()); len(due) == 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
			case <-c.woken:
			case <-timer.C:
			}
			continue
		}
		now := time.Now()
		ring := func() {
			for _, a := range due {
				a.ring(now)
			}
		}
		if wakeups++; wakeups%meterEvery == 0 {
			c.spent.Add(meterEvery * metered(ring))
		} else {
			ring()
		}
	}
}

// due takes out the alarms that ring now, and says how long to wait if there
// are none.
func (c *clock) due(buf []*alarm, now time.Time) ([]*alarm, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The first must be due; what follows it may be early.
	for len(c.alarms) > 0 {
		a := c.alarms[0]
		if wait := a.at.Sub(now); wait > 0 && (len(buf) == 0 || len(buf) >= maxShared || wait > a.slack) {
			break
		}
		buf = append(buf, heap.Pop(&c.alarms).(*alarm))
	}
	c.ringing = len(buf) > 0
	switch {
	case c.ringing:
		return buf, 0
	case len(c.alarms) == 0:
		return buf, idleWait
	}
	return buf, c.alarms[0].at.Sub(now)
}

// alarms is a heap by time, for container/heap.
type alarms []*alarm

func (h alarms) Len() int           { return len(h) }
func (h alarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarms) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}

// Push is for container/heap.
func (h *alarms) Push(x any) {
	a := x.(*alarm)
	*h = append(*h, a)
	a.place = len(*h)
}

// Pop is for container/heap.
func (h *alarms) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	a.place = 0
	return a
}
