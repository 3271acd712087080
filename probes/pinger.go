package probes

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLazy is how long answers may lie in a socket: the kernel notes when they
	// came, so that reading them can wait until there are several. Short timeouts
	// make it shorter.
	maxLazy = 20 * time.Millisecond
	// wireIdle is how long a wire without attempts stays open.
	wireIdle = 2 * time.Minute
)

// pinger makes the attempts that are one packet and its answer. The flights of
// one kind, device and source share a wire.
//
// Nothing waits in it: attempts begin and end, and the sockets are read, when
// its clock rings. Each reading takes in all that has come before it looks at
// who waited in vain, and goes by the kernel's time of arrival. So an answer
// that came in time counts, however late we get a processor to read it.
type pinger struct {
	clock *clock
	alarm alarm
	// sweep closes idle wires.
	sweep alarm

	mu    sync.Mutex
	wires map[wireKey]*wire
	// active are the wires with flights, also those that are retired: these take no
	// new ones, and are closed when their last has ended.
	active []*wire
	// ended are flights whose end is still to be told, told is room for the next.
	ended, told []ending
	random      *rand.ChaCha8
	attempts    atomic.Uint64
	closed      bool
}

// ending is the end of a flight.
type ending struct {
	done    func(outcome)
	outcome outcome
}

func newPinger(c *clock) *pinger {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails
	p := &pinger{clock: c, wires: map[wireKey]*wire{}, random: rand.NewChaCha8(seed)}
	p.alarm = alarm{ring: p.ring, slack: maxSlack}
	p.sweep = alarm{ring: p.closeIdle, slack: time.Second}
	return p
}

// flight is a target of a pinger. At most one attempt is under way. It is
// guarded by pinger.mu.
type flight struct {
	pinger *pinger
	key    wireKey
	target netip.Addr
	// id stays the same for a target, so that firewalls on the way see one flow.
	echo echo
	// neighbour is what the ARP and ND wires note, to where echo requests go.
	neighbour neighbour
	to        address

	// wire is nil while no attempt is under way.
	wire                  *wire
	timeout               time.Duration
	start, sent, deadline time.Time
	done                  func(outcome)
	// why is the last unreachable message for this attempt, earlier the last since
	// a success: routers limit their rate, so that most failed attempts get none.
	why, earlier error
}

// newFlight is for a valid Config of type ICMP or ARPND.
func (p *pinger) newFlight(c Config, t Target) *flight {
	f := &flight{pinger: p, target: t.Address, key: wireKey{wireOf(c.Type, t.Address), c.Device, c.source(t)}}
	sum := fnv.New32a()
	fmt.Fprintf(sum, "%d %s %s", os.Getpid(), c.Name, t)
	f.echo.id = uint16(sum.Sum32() ^ sum.Sum32()>>16)
	return f
}

// begin sends.
func (f *flight) begin(timeout time.Duration, done func(outcome)) {
	p := f.pinger
	p.mu.Lock()
	defer p.mu.Unlock()
	f.timeout, f.done, f.why, f.start = timeout, done, nil, time.Now()
	p.attempts.Add(1)
	w, err := p.wire(f.key, f.start)
	if err == nil {
		err = f.launch(w)
	}
	if err != nil {
		p.end(f, 0, err, time.Now())
		p.clock.sooner(&p.alarm, f.start)
		return
	}
	// The time runs from after the system call: we may have been kept from the
	// processor before it.
	sent := time.Now()
	f.deadline = sent.Add(timeout)
	p.clock.sooner(&p.alarm, sent.Add(f.lazy()))
}

func (f *flight) lazy() time.Duration { return min(maxLazy, f.timeout/4) }

// launch puts the request on the wire.
func (f *flight) launch(w *wire) error {
	f.echo.seq++
	copy(f.echo.token[:], w.cookie[:])
	binary.NativeEndian.PutUint64(f.echo.token[len(w.cookie):], f.pinger.random.Uint64())
	binary.NativeEndian.PutUint32(f.echo.token[len(w.cookie)+8:], uint32(f.pinger.random.Uint64()))
	f.wire = w
	if !w.active {
		w.active = true
		f.pinger.active = append(f.pinger.active, w)
	}
	w.flights[f.echo.token] = f
	w.used, f.sent = f.start, time.Now()
	err := w.line.send(f)
	if err != nil && !transient(err) {
		f.pinger.retire(w)
	}
	return err
}

// stop forgets the attempt.
func (f *flight) stop() bool {
	f.pinger.mu.Lock()
	defer f.pinger.mu.Unlock()
	if f.wire == nil {
		return false // it has ended, and that is being told
	}
	f.leave()
	return true
}

// leave takes f off its wire.
func (f *flight) leave() {
	if f.wire != nil {
		delete(f.wire.flights, f.echo.token)
		f.wire = nil
	}
}

// answered takes in an answer that came at the given time; when too late, f goes
// on to wait for its end.
func (f *flight) answered(came time.Time) {
	now := time.Now()
	if came.Before(f.sent) { // somebody set the system's clock meanwhile
		came = now
	} else if came.After(f.deadline) {
		return
	}
	f.earlier = nil
	f.pinger.end(f, max(1, came.Sub(f.sent)), nil, now)
}

// silence is the error when no answer came in time, with the reason if the
// network ever told one.
func (f *flight) silence() error {
	what := f.key.kind.answer()
	switch {
	case f.why != nil:
		f.earlier = f.why
		return noAnswer(f.timeout, fmt.Errorf("%s: %w", what, f.why))
	case f.earlier != nil:
		return noAnswer(f.timeout, fmt.Errorf("%s (earlier: %w)", what, f.earlier))
	}
	return noAnswer(f.timeout, fmt.Errorf("%s", what))
}

// end notes how f ended.
func (p *pinger) end(f *flight, rtt time.Duration, err error, now time.Time) {
	f.leave()
	if err != nil {
		f.neighbour.forget()
	}
	p.ended = append(p.ended, ending{f.done, outcome{start: f.start, at: now, rtt: rtt, err: err}})
}

// ring reads all active wires, ends what ended, and tells it.
func (p *pinger) ring(now time.Time) {
	p.mu.Lock()
	next := time.Time{}
	kept := p.active[:0]
	for _, w := range p.active {
		next = soonest(next, p.read(w, now))
		switch {
		case len(w.flights) > 0:
			kept = append(kept, w)
		case w.retired:
			w.line.close()
		}
		w.active = len(w.flights) > 0
	}
	clear(p.active[len(kept):])
	p.active = kept
	ended := p.ended
	p.ended, p.told = p.told[:0], ended
	p.mu.Unlock()
	if !next.IsZero() {
		p.clock.sooner(&p.alarm, next)
	}
	for i, e := range ended {
		e.done(e.outcome)
		ended[i] = ending{}
	}
}

// read takes in what has come on w, then ends the flights whose time was up
// before it began. It returns when to look again.
func (p *pinger) read(w *wire, began time.Time) time.Time {
	more := w.line.receive(w)
	now := time.Now()
	if more {
		return now // before anybody is given up
	}
	next := time.Time{}
	for _, f := range w.flights {
		if f.deadline.After(began) {
			next = soonest(next, f.deadline)
			next = soonest(next, now.Add(f.lazy()))
			continue
		}
		p.end(f, 0, f.silence(), now)
	}
	return next
}

// soonest is the earlier of two times, where zero is never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// close ends all flights without telling.
func (p *pinger) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.wires {
		w.line.close()
	}
	for _, w := range p.active {
		if w.retired {
			w.line.close()
		}
	}
	p.wires, p.active = nil, nil
}
