package bfd

import (
	"container/heap"
	"time"
)

// schedule is the sessions by the time of their next turn, the soonest first.
// A turn may come too early, never too late: packets that merely postpone a
// detection time do not touch it.
type schedule []*session

func (q schedule) Len() int           { return len(q) }
func (q schedule) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q schedule) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push is for heap only.
func (q *schedule) Push(x any) {
	s := x.(*session)
	s.place = len(*q)
	*q = append(*q, s)
}

// Pop is for heap only.
func (q *schedule) Pop() any {
	old := *q
	last := len(old) - 1
	s := old[last]
	old[last] = nil
	*q = old[:last]
	s.place = -1
	return s
}

func (q *schedule) add(s *session) {
	s.at = s.m.next()
	heap.Push(q, s)
}

// sooner moves the turn of s forward if it has become sooner, and reports
// whether it is now the first of all.
func (q *schedule) sooner(s *session) bool {
	if s.place < 0 {
		return false
	}
	at := s.m.next()
	if s.m.wantSoon || s.m.wantFinal {
		at = time.Time{}
	}
	if !at.Before(s.at) {
		return false
	}
	s.at = at
	heap.Fix(q, s.place)
	return s.place == 0
}

func (q *schedule) remove(s *session) {
	if s.place >= 0 {
		heap.Remove(q, s.place)
	}
}

// take removes the sessions whose turn comes until then.
func (q *schedule) take(until time.Time, into []*session) []*session {
	for len(*q) > 0 && !(*q)[0].at.After(until) {
		into = append(into, heap.Pop(q).(*session))
	}
	return into
}
