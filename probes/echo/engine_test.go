package echo

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// network is a number of nodes, time included. Packets take a while each way.
type network struct {
	t      *testing.T
	engine *engine
	now    time.Time
	random *rand.Rand
	delay  time.Duration
	// lost says which questions have no answer.
	lost func(to netip.AddrPort) bool
	// refusing says that nobody listens at the nodes, which their kernels say once a second.
	refusing bool
	refused  time.Time
	states   map[key]State
	flying   []flying
	asked    []time.Time
}

// flying is an answer and when the client's kernel gets it.
type flying struct {
	from   netip.AddrPort
	packet []byte
	at     time.Time
}

func newNetwork(t *testing.T, o Options) *network {
	t.Helper()
	o, err := o.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	return &network{t: t, engine: newEngine(o, random), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), random: random,
		delay: time.Millisecond, lost: func(netip.AddrPort) bool { return false }, states: map[key]State{}}
}

// run lets time pass. The client looks at everything at once.
func (n *network) run(d time.Duration) {
	for end := n.now.Add(d); ; {
		at := n.engine.next()
		for _, f := range n.flying {
			if at.IsZero() || f.at.Before(at) {
				at = f.at
			}
		}
		if at.IsZero() || at.After(end) {
			n.now = end
			return
		}
		if at.After(n.now) {
			n.now = at
		}
		n.round()
	}
}

// round is what a client does when it runs.
func (n *network) round() {
	n.flying = slices.DeleteFunc(n.flying, func(f flying) bool {
		if f.at.After(n.now) {
			return false
		}
		n.engine.answer(f.from, f.packet, f.at)
		return true
	})
	n.engine.due(n.now, func(to netip.AddrPort, nonce uint64, keys []key) (began, left time.Time) {
		n.asked = append(n.asked, n.now)
		switch {
		case n.refusing && n.now.Sub(n.refused) >= time.Second:
			n.refused = n.now
			n.engine.refusal(to, n.now)
		case !n.refusing && !n.lost(to):
			var states []State
			for _, k := range keys {
				states = append(states, n.states[k])
			}
			n.flying = append(n.flying, flying{to, appendAnswer(nil, nonce, states), n.now.Add(2 * n.delay)})
		}
		return n.now, n.now
	})
}

// starve lets time pass without the client.
func (n *network) starve(d time.Duration) {
	n.now = n.now.Add(d)
	n.round()
}

func (n *network) verdict(to netip.AddrPort) Verdict {
	for _, s := range n.engine.status() {
		if s.Endpoint == to {
			return s.Verdict
		}
	}
	n.t.Fatalf("%s is no target", to)
	return ""
}

func endpoint(i int) netip.AddrPort {
	if i%2 == 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), DefaultPort)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fd00::%x", i)), DefaultPort)
}

func TestVerdicts(t *testing.T) {
	for _, o := range []Options{{}, {Interval: 50 * time.Millisecond}, {Interval: time.Second, Timeout: time.Second, Fall: 1, Rise: 5}} {
		n := newNetwork(t, o)
		o = n.engine.options
		a, b := endpoint(1), endpoint(2)
		n.engine.set([]Target{{Endpoint: a}, {Endpoint: b}}, n.now)
		if n.verdict(a) != Unknown {
			t.Error("known from the beginning")
		}
		n.run(o.Interval)
		if n.verdict(a) != Up || n.verdict(b) != Up {
			t.Errorf("%+v: not up after the first answer", o)
		}
		n.run(20 * o.Interval)
		n.lost = func(to netip.AddrPort) bool { return to == a }
		failed := n.now
		bound := o.Interval + time.Duration(o.Fall)*o.Timeout
		n.run(bound)
		if n.verdict(a) != Down || n.verdict(b) != Up {
			t.Errorf("%+v: %v after %v, the other node %v", o, n.verdict(a), bound, n.verdict(b))
		}
		for _, s := range n.engine.status() {
			if took := s.Since.Sub(failed); s.Endpoint == a && (took <= 0 || took > bound) {
				t.Errorf("%+v: down after %v", o, took)
			}
		}
		n.lost = func(netip.AddrPort) bool { return false }
		n.run(time.Duration(o.Rise-1) * o.Interval * 8 / 10)
		if o.Rise > 1 && n.verdict(a) != Down {
			t.Errorf("%+v: up after too few answers", o)
		}
		n.run(2*o.Interval + time.Duration(o.Rise)*o.Interval)
		if n.verdict(a) != Up {
			t.Errorf("%+v: not up again", o)
		}
	}
}

// TestNeverUp: a node that never answers is down, not unknown for ever.
func TestNeverUp(t *testing.T) {
	n := newNetwork(t, Options{})
	n.lost = func(netip.AddrPort) bool { return true }
	n.engine.set([]Target{{Endpoint: endpoint(1)}}, n.now)
	n.run(2 * time.Second)
	if n.verdict(endpoint(1)) != Down {
		t.Error(n.verdict(endpoint(1)))
	}
	before := len(n.asked)
	n.run(30 * time.Second)
	if asked := len(n.asked) - before; asked < 99 || asked > 113 {
		t.Errorf("%d questions in 100 intervals to a node that is down", asked)
	}
}

// TestLoss: two answers of three lost change nothing, since never three are lost in
// a row; half of them at random do, and that heals.
func TestLoss(t *testing.T) {
	n := newNetwork(t, Options{})
	var targets []Target
	for i := range 50 {
		targets = append(targets, Target{Endpoint: endpoint(i + 1)})
	}
	n.engine.set(targets, n.now)
	n.run(time.Second)
	n.engine.changed = false
	count := map[netip.AddrPort]int{}
	n.lost = func(to netip.AddrPort) bool { count[to]++; return count[to]%3 != 0 }
	n.run(time.Minute)
	if n.engine.changed {
		t.Error("a verdict changed although never three were lost in a row")
	}
	n.lost = func(netip.AddrPort) bool { return n.random.IntN(2) == 0 }
	n.run(time.Minute)
	if !n.engine.changed {
		t.Error("half of all answers lost, and nothing changed")
	}
	n.lost = func(netip.AddrPort) bool { return false }
	n.run(3 * time.Second)
	for _, s := range n.engine.status() {
		if s.Verdict != Up {
			t.Errorf("%+v", s)
		}
	}
}

// TestStarved: a client that does not get to run blames nobody, whatever the time.
func TestStarved(t *testing.T) {
	n := newNetwork(t, Options{Interval: 50 * time.Millisecond})
	n.engine.set([]Target{{Endpoint: endpoint(1)}, {Endpoint: endpoint(2)}}, n.now)
	n.run(time.Second)
	n.engine.changed = false
	for range 100 {
		n.starve(time.Duration(n.random.IntN(3000)) * time.Millisecond)
		n.run(time.Duration(n.random.IntN(60)) * time.Millisecond)
	}
	if n.engine.changed {
		t.Errorf("%+v", n.engine.status())
	}
	// It does not hide a node that is gone.
	n.lost = func(to netip.AddrPort) bool { return to == endpoint(1) }
	for range 8 {
		n.starve(time.Second)
	}
	if n.verdict(endpoint(1)) != Down || n.verdict(endpoint(2)) != Up {
		t.Errorf("%+v", n.engine.status())
	}
}

// TestForeign: only the answer to what was asked, from who was asked, in time.
func TestForeign(t *testing.T) {
	n := newNetwork(t, Options{})
	a := endpoint(2)
	n.engine.set([]Target{{Endpoint: a, Instances: []string{"x"}}}, n.now)
	n.lost = func(netip.AddrPort) bool { return true }
	n.run(100 * time.Millisecond)
	x := n.engine.targets[a]
	if !x.asked {
		t.Fatal("not asked")
	}
	good := appendAnswer(nil, x.nonce, []State{Ready})
	for name, try := range map[string]func(){
		"another port":    func() { n.engine.answer(netip.AddrPortFrom(a.Addr(), 1), good, n.now) },
		"another address": func() { n.engine.answer(netip.AddrPortFrom(a.Addr().Next(), a.Port()), good, n.now) },
		"another nonce":   func() { n.engine.answer(a, appendAnswer(nil, x.nonce+1, []State{Ready}), n.now) },
		"too few":         func() { n.engine.answer(a, appendAnswer(nil, x.nonce, nil), n.now) },
		"too many":        func() { n.engine.answer(a, appendAnswer(nil, x.nonce, []State{Ready, Ready}), n.now) },
		"cut":             func() { n.engine.answer(a, good[:len(good)-1], n.now) },
		"a request":       func() { n.engine.answer(a, appendRequest(nil, x.nonce, []key{{}}), n.now) },
		"late":            func() { n.engine.answer(a, good, x.deadline.Add(1)) },
	} {
		if try(); n.verdict(a) != Unknown || !x.asked {
			t.Fatalf("%s: taken for an answer", name)
		}
	}
	n.engine.answer(netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()), good, x.deadline)
	if n.verdict(a) != Up || n.engine.status()[0].Instances["x"] != Ready {
		t.Error("the answer was not taken")
	}
	n.engine.answer(a, good, x.deadline) // again
	if s := n.engine.status()[0]; s.Answered != 1 {
		t.Errorf("%+v", s)
	}
}

func TestInstances(t *testing.T) {
	n := newNetwork(t, Options{})
	a := endpoint(1)
	state := func(id string) State { return n.engine.status()[0].Instances[id] }
	n.engine.set([]Target{{Endpoint: a, Instances: []string{"y", "x", "x"}}}, n.now)
	n.states[keyOf("x")] = Ready
	n.run(time.Second)
	if state("x") != Ready || state("y") != Absent {
		t.Error(n.engine.status())
	}
	n.engine.changed = false
	n.run(time.Second)
	if n.engine.changed {
		t.Error("changed without a change")
	}
	n.states[keyOf("x")], n.states[keyOf("y")] = Draining, Failed
	n.run(300 * time.Millisecond)
	if state("x") != Draining || state("y") != Failed || !n.engine.changed {
		t.Error(n.engine.status())
	}
	// An edit while a question is under way: its answer is of the old list.
	for !n.engine.targets[a].asked {
		n.run(time.Millisecond)
	}
	n.states[keyOf("a")] = Ready
	n.engine.set([]Target{{Endpoint: a, Instances: []string{"a", "y"}}}, n.now)
	if state("y") != Failed || state("a") != Absent {
		t.Error(n.engine.status())
	}
	n.run(5 * time.Millisecond)
	if state("a") != Ready || state("y") != Failed || len(n.engine.status()[0].Instances) != 2 {
		t.Error(n.engine.status())
	}
	many := Target{Endpoint: a}
	for i := range MaxInstances + 10 {
		many.Instances = append(many.Instances, fmt.Sprint(i))
	}
	n.engine.set([]Target{many, many, {}}, n.now)
	n.run(time.Second)
	if n.verdict(a) != Up || len(n.engine.status()) != 1 {
		t.Error(n.engine.status())
	}
	n.engine.set(nil, n.now)
	if len(n.engine.status()) != 0 || !n.engine.next().IsZero() {
		t.Error("still there")
	}
}

// TestSpread: questions to many nodes do not come together, nor more often than
// the interval says.
func TestSpread(t *testing.T) {
	n := newNetwork(t, Options{})
	var targets []Target
	for i := range 1000 {
		targets = append(targets, Target{Endpoint: endpoint(i + 1)})
	}
	n.engine.set(targets, n.now)
	n.run(10 * time.Second)
	n.asked = nil
	n.run(3 * time.Second)
	if asked := len(n.asked); asked < 9_500 || asked > 11_500 {
		t.Errorf("%d questions in 10 intervals to 1000 nodes", asked)
	}
	most, in := 0, map[int64]int{}
	for _, at := range n.asked {
		in[at.UnixMilli()/10]++
		most = max(most, in[at.UnixMilli()/10])
	}
	if most > 150 {
		t.Errorf("%d questions within 10 ms, 35 would be even", most)
	}
}

// TestHold: a node that refuses is what it was, until the hold ends; one that
// stops to refuse is down soon after; and one that was never up does not come up.
func TestHold(t *testing.T) {
	to := endpoint(0)
	begin := func() *network {
		n := newNetwork(t, Options{})
		n.engine.set([]Target{{Endpoint: to}}, n.now)
		n.run(time.Second)
		n.refusing = true
		return n
	}
	n := begin()
	n.run(29 * time.Second)
	if v := n.verdict(to); v != Up {
		t.Errorf("it is %s while it refuses", v)
	}
	n.run(5 * time.Second)
	if v := n.verdict(to); v != Down {
		t.Errorf("it is %s after the hold", v)
	}
	n.refusing = false
	n.run(2 * time.Second)
	if v := n.verdict(to); v != Up {
		t.Errorf("it is %s when it answers again", v)
	}
	n.refusing, n.refused = true, time.Time{}
	n.run(10 * time.Second)
	if v := n.verdict(to); v != Up {
		t.Errorf("it is %s in a new hold", v)
	}

	n = begin()
	n.run(10 * time.Second)
	n.refusing, n.lost = false, func(netip.AddrPort) bool { return true }
	n.run(4 * time.Second)
	if v := n.verdict(to); v != Down {
		t.Errorf("it is %s although it says nothing any more", v)
	}

	n = newNetwork(t, Options{})
	n.refusing = true
	n.engine.set([]Target{{Endpoint: to}}, n.now)
	n.run(20 * time.Second)
	if v := n.verdict(to); v != Unknown {
		t.Errorf("it is %s, and has never answered", v)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Interval: time.Millisecond}, {Interval: time.Hour}, {Timeout: time.Second}, {Timeout: -1}, {Fall: -1}, {Rise: 1001}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v is allowed", o)
		}
	}
	o, err := Options{}.withDefaults()
	if err != nil || o != (Options{300 * time.Millisecond, 150 * time.Millisecond, 3, 2, 30 * time.Second}) {
		t.Errorf("%+v %v", o, err)
	}
}
