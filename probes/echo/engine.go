package echo

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Verdict says whether a node answers.
type Verdict string

// The verdicts. Unknown is neither: nothing was heard yet, and not for long.
const (
	Unknown Verdict = "unknown"
	Up      Verdict = "up"
	Down    Verdict = "down"
)

// Options are the times of a Client. The zero value of each is its default.
type Options struct {
	// Interval is from one question to the next, 300 ms; each gap is up to a tenth
	// shorter. 10 ms to a minute.
	Interval time.Duration
	// Timeout is how long an answer may take, half the interval; at most the
	// interval. A question without an answer is followed by the next at once, until
	// the node is down: that is so after at most Interval + Fall * Timeout.
	Timeout time.Duration
	// Fall answers that do not come make a node Down, 3. Rise answers in a row make
	// it Up again, 2; the first ever makes it Up at once.
	Fall, Rise int
	// Hold is for how long a node that refuses questions is taken for one whose
	// process restarts: its kernel answers (port unreachable, RFC 1122 3.2.2.1 and
	// RFC 4443 3.1), so it lives and forwards what it did. 30 s, as BGP's graceful
	// restart; negative is never. What was known of it stays meanwhile.
	Hold time.Duration
}

// The defaults and bounds of Options.
const (
	DefaultInterval = 300 * time.Millisecond
	DefaultFall     = 3
	DefaultRise     = 2
	DefaultHold     = 30 * time.Second

	// refusalLasts is for how long a refusal says that the node lives: Linux sends at
	// most one a second to each of those it refuses (net.ipv4.icmp_ratelimit), and
	// one may be lost.
	refusalLasts = 2500 * time.Millisecond

	minInterval = 10 * time.Millisecond
	maxInterval = time.Minute
	maxCount    = 1000
)

func (o Options) withDefaults() (Options, error) {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Timeout == 0 {
		o.Timeout = o.Interval / 2
	}
	if o.Fall == 0 {
		o.Fall = DefaultFall
	}
	if o.Rise == 0 {
		o.Rise = DefaultRise
	}
	if o.Hold == 0 {
		o.Hold = DefaultHold
	}
	switch {
	case o.Interval < minInterval || o.Interval > maxInterval:
		return o, fmt.Errorf("interval %v is out of range: %v to %v are allowed", o.Interval, minInterval, maxInterval)
	case o.Timeout < time.Millisecond || o.Timeout > o.Interval:
		return o, fmt.Errorf("timeout %v is out of range: 1ms to the interval (%v) are allowed", o.Timeout, o.Interval)
	case o.Fall < 1 || o.Fall > maxCount || o.Rise < 1 || o.Rise > maxCount:
		return o, fmt.Errorf("fall %d and rise %d: 1 to %d are allowed", o.Fall, o.Rise, maxCount)
	}
	return o, nil
}

// Target is a node to ask, and the gateways on it to ask about. What is beyond
// MaxInstances is never known: it stays Absent.
type Target struct {
	Endpoint  netip.AddrPort
	Instances []string
}

// Status is what is known of a Target.
type Status struct {
	Endpoint netip.AddrPort
	Verdict  Verdict
	// Since is when the verdict changed last, or the target was set.
	Since time.Time
	// Instances are the states that were answered last, by ID. They mean nothing
	// while the verdict is Down.
	Instances map[string]State
	// RTT is that of the last answer.
	RTT            time.Duration
	Sent, Answered uint64
}

// engine decides what to ask when, and what follows from answers. It has no
// clock and no socket. Times of a target come from the caller: an answer counts
// by when it came, however late it is looked at, so that a process that does not
// get to run blames nobody; and what was not asked is not missed.
type engine struct {
	options Options
	random  *rand.Rand
	targets map[netip.AddrPort]*target
	queue   queue
	changed bool
}

// target is a node that is asked.
type target struct {
	endpoint netip.AddrPort
	ids      []string
	keys     []key
	states   []State
	verdict  Verdict
	since    time.Time
	row      int // of equal results that are not the verdict
	rtt      time.Duration

	sentCount, answered uint64

	// refused is when the node's kernel said last that nobody listens there, and
	// refusing since when it has been so without an answer between.
	refused, refusing time.Time

	// asked says that a question is under way: its nonce, when it was sent, and by
	// when the answer has to come. edited says that the list was changed since: the
	// answer says that the node lives, and nothing of its gateways.
	asked    bool
	nonce    uint64
	sent     time.Time
	deadline time.Time
	edited   bool

	// at is when something is to be done: ask, or give up.
	at    time.Time
	place int
}

func newEngine(o Options, random *rand.Rand) *engine {
	return &engine{options: o, random: random, targets: map[netip.AddrPort]*target{}}
}

// set replaces the targets; those that stay keep what is known.
func (e *engine) set(want []Target, now time.Time) {
	keep := map[netip.AddrPort]bool{}
	for _, w := range want {
		to := netip.AddrPortFrom(w.Endpoint.Addr().Unmap(), w.Endpoint.Port())
		if !to.IsValid() || to.Port() == 0 || keep[to] {
			continue
		}
		keep[to] = true
		t := e.targets[to]
		if t == nil {
			t = &target{endpoint: to, verdict: Unknown, since: now, at: now.Add(e.within(e.options.Interval / 4))}
			e.targets[to] = t
			heap.Push(&e.queue, t)
			e.changed = true
		}
		e.instances(t, w.Instances, now)
	}
	for to, t := range e.targets {
		if !keep[to] {
			heap.Remove(&e.queue, t.place)
			delete(e.targets, to)
			e.changed = true
		}
	}
}

// instances sets what a target is asked about. New ones are asked for soon.
func (e *engine) instances(t *target, ids []string, now time.Time) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	ids = ids[:min(len(ids), MaxInstances)]
	if slices.Equal(ids, t.ids) {
		return
	}
	keys, states := make([]key, len(ids)), make([]State, len(ids))
	more := false
	for i, id := range ids {
		keys[i] = keyOf(id)
		if old, known := slices.BinarySearch(t.ids, id); known {
			states[i] = t.states[old]
		} else {
			more = true
		}
	}
	t.ids, t.keys, t.states, t.edited = ids, keys, states, t.asked
	if more && !t.asked {
		e.schedule(t, earliest(t.at, now.Add(e.within(e.options.Interval/4))))
	}
	e.changed = true
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// within is a random time in [0, d).
func (e *engine) within(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(e.random.Int64N(int64(d)))
}

func (e *engine) schedule(t *target, at time.Time) {
	t.at = at
	heap.Fix(&e.queue, t.place)
}

// next is when something is to be done; zero if never.
func (e *engine) next() time.Time {
	if len(e.queue) == 0 {
		return time.Time{}
	}
	return e.queue[0].at
}

// due does what is to be done by now, and asks by calling send, whose results are
// when the question was about to leave and when it had left. Whoever calls has taken in every answer that came
// before now.
func (e *engine) due(now time.Time, send func(to netip.AddrPort, nonce uint64, keys []key) (began, left time.Time)) {
	// Each at most once: whatever follows from it is due at another time.
	for range len(e.queue) {
		t := e.queue[0]
		if t.at.After(now) {
			return
		}
		if t.asked {
			t.asked = false
			held := e.held(t, now)
			if !held {
				e.observe(t, false, now)
			}
			if held || t.verdict == Down {
				e.schedule(t, earliestAfter(t.sent.Add(e.gap()), now))
				continue
			}
		}
		t.nonce, t.asked, t.edited = e.random.Uint64(), true, false
		t.sentCount++
		var left time.Time
		t.sent, left = send(t.endpoint, t.nonce, t.keys)
		t.deadline = left.Add(e.options.Timeout)
		e.schedule(t, t.deadline)
	}
}

func earliestAfter(at, now time.Time) time.Time {
	if at.Before(now) {
		return now
	}
	return at
}

// gap is from one question to the next: as in BFD (RFC 5880, 6.8.7) shortened by
// up to a tenth, so that questions to many nodes do not stay together.
func (e *engine) gap() time.Duration {
	return e.options.Interval - e.within(e.options.Interval/10)
}

// answer takes in a packet that came from a node.
func (e *engine) answer(from netip.AddrPort, packet []byte, came time.Time) {
	t := e.targets[netip.AddrPortFrom(from.Addr().Unmap(), from.Port())]
	if t == nil || !t.asked {
		return
	}
	var room [MaxInstances]State
	nonce, states, err := parseAnswer(packet, room[:0])
	if err != nil || nonce != t.nonce || came.After(t.deadline) || !t.edited && len(states) != len(t.ids) {
		return
	}
	t.asked = false
	t.refused, t.refusing = time.Time{}, time.Time{}
	t.answered++
	t.rtt = max(0, came.Sub(t.sent))
	if !t.edited && !slices.Equal(t.states, states) {
		copy(t.states, states)
		e.changed = true
	}
	e.observe(t, true, came)
	at := t.sent.Add(e.gap())
	if t.edited {
		at = t.sent
	}
	e.schedule(t, at)
}

// refusal takes in that a node's kernel has nobody who answers there.
func (e *engine) refusal(from netip.AddrPort, came time.Time) {
	t := e.targets[netip.AddrPortFrom(from.Addr().Unmap(), from.Port())]
	if t == nil {
		return
	}
	if t.refusing.IsZero() {
		t.refusing = came
	}
	t.refused = came
}

// held says that a missing answer is no sign of a dead node: its process restarts.
func (e *engine) held(t *target, now time.Time) bool {
	return !t.refused.IsZero() && t.verdict != Down && now.Sub(t.refused) < refusalLasts && now.Sub(t.refusing) < e.options.Hold
}

// observe counts a result towards the verdict.
func (e *engine) observe(t *target, ok bool, at time.Time) {
	verdict, need := Down, e.options.Fall
	if ok {
		verdict, need = Up, e.options.Rise
		if t.verdict == Unknown {
			need = 1
		}
	}
	if t.verdict == verdict {
		t.row = 0
		return
	}
	if t.row++; t.row >= need {
		t.verdict, t.since, t.row = verdict, at, 0
		e.changed = true
	}
}

// status is what is known, sorted by endpoint.
func (e *engine) status() []Status {
	list := make([]Status, 0, len(e.targets))
	for _, t := range e.targets {
		s := Status{Endpoint: t.endpoint, Verdict: t.verdict, Since: t.since, RTT: t.rtt, Sent: t.sentCount, Answered: t.answered,
			Instances: make(map[string]State, len(t.ids))}
		for i, id := range t.ids {
			s.Instances[id] = t.states[i]
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Status) int { return a.Endpoint.Compare(b.Endpoint) })
	return list
}

// queue is a heap by time, for container/heap.
type queue []*target

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push is for container/heap.
func (q *queue) Push(x any) {
	t := x.(*target)
	t.place = len(*q)
	*q = append(*q, t)
}

// Pop is for container/heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return t
}
