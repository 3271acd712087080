package echo

import (
	"container/heap"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

const patience = time.Minute

// world is a client's node and a gateway's, with 50 addresses of each family.
type world struct {
	t           *testing.T
	agent, gate *lab.NS
	addresses   []netip.AddrPort
}

func newWorld(t *testing.T) *world {
	t.Helper()
	lab.Require(t, lab.Root)
	l := lab.New(t)
	w := &world{t: t, agent: l.MustNamespace("agent"), gate: l.MustNamespace("gate")}
	l.MustLink(w.agent, "a0", w.gate, "g0")
	w.agent.MustIP("addr add 10.0.0.1/16 dev a0", "addr add fd00::1/64 dev a0 nodad")
	for i := 2; i < 52; i++ {
		four, six := fmt.Sprintf("10.0.1.%d", i), fmt.Sprintf("fd00::%x", i)
		w.gate.MustIP("addr add "+four+"/16 dev g0", "addr add "+six+"/64 dev g0 nodad")
		for _, a := range []string{four, six} {
			w.addresses = append(w.addresses, netip.AddrPortFrom(netip.MustParseAddr(a), DefaultPort))
		}
	}
	return w
}

func (w *world) client(o Options) *Client {
	w.t.Helper()
	var c *Client
	if err := w.agent.Do(func() (err error) { c, err = NewClient(slog.New(slog.DiscardHandler), o); return err }); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func (w *world) server(addresses ...netip.AddrPort) *Server {
	w.t.Helper()
	var s *Server
	if err := w.gate.Do(func() (err error) { s, err = NewServer(slog.New(slog.DiscardHandler), addresses, nil); return err }); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}

// await waits until every target is as it should be, and counts messages of
// change on the way.
func await(t *testing.T, c *Client, what string, as func(Status) bool) {
	t.Helper()
	lab.Eventually(t, patience, what, func() error {
		for _, s := range c.Status() {
			if !as(s) {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
}

func up(s Status) bool   { return s.Verdict == Up }
func down(s Status) bool { return s.Verdict == Down }

// TestHundredEndpoints: over both families; the state of each gateway arrives, an
// address that is gone is down, and the others do not notice.
func TestHundredEndpoints(t *testing.T) {
	w := newWorld(t)
	s, c := w.server(w.addresses...), w.client(Options{})
	var targets []Target
	for i, a := range w.addresses {
		targets = append(targets, Target{a, []string{fmt.Sprintf("ns/gw%d@n", i), "ns/other@n"}})
	}
	states := map[string]State{}
	for i := range w.addresses {
		states[fmt.Sprintf("ns/gw%d@n", i)] = State(i % 4)
	}
	s.Set(states)
	c.Set(targets)
	index := func(s Status) int {
		for i, a := range w.addresses {
			if a == s.Endpoint {
				return i
			}
		}
		return -1
	}
	await(t, c, "all up", func(s Status) bool {
		i := index(s)
		return s.Verdict == Up && s.Instances[fmt.Sprintf("ns/gw%d@n", i)] == State(i%4) && s.Instances["ns/other@n"] == Absent && s.RTT > 0
	})
	s.Set(map[string]State{"ns/other@n": Draining})
	await(t, c, "the other states", func(s Status) bool {
		return s.Verdict == Up && s.Instances[fmt.Sprintf("ns/gw%d@n", index(s))] == Absent && s.Instances["ns/other@n"] == Draining
	})
	w.gate.MustIP("addr del 10.0.1.9/16 dev g0", "addr del fd00::9/64 dev g0")
	gone := map[netip.Addr]bool{netip.MustParseAddr("10.0.1.9"): true, netip.MustParseAddr("fd00::9"): true}
	await(t, c, "two down", func(s Status) bool { return (s.Verdict == Down) == gone[s.Endpoint.Addr()] })
	w.gate.MustIP("addr add 10.0.1.9/16 dev g0", "addr add fd00::9/64 dev g0 nodad")
	await(t, c, "all up again", up)
	if got := c.Status(); len(got) != 100 {
		t.Errorf("%d targets", len(got))
	}
}

// TestServerRestarts: the client follows a server that ends and comes back, and
// tells of each change.
func TestServerRestarts(t *testing.T) {
	w := newWorld(t)
	two := w.addresses[:2]
	c := w.client(Options{Interval: 50 * time.Millisecond, Hold: -1})
	c.Set([]Target{{Endpoint: two[0]}, {Endpoint: two[1]}})
	for range 3 {
		await(t, c, "nobody there", down)
		s := w.server(two...)
		await(t, c, "the server", up)
		for len(c.Changes()) > 0 {
			<-c.Changes()
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.Changes():
		case <-time.After(patience):
			t.Fatal("nobody told of the change")
		}
	}
	c.Set(nil)
	if len(c.Status()) != 0 {
		t.Error(c.Status())
	}
}

// TestProcessRestarts: a node whose server is away, but whose kernel says so, stays
// what it was, for as long as it is held; one that says nothing is down.
func TestProcessRestarts(t *testing.T) {
	w := newWorld(t)
	two := w.addresses[:2] // one of each family
	held := w.client(Options{Interval: 50 * time.Millisecond})
	state := map[string]State{"ns/gw@n": Ready}
	targets := []Target{{two[0], []string{"ns/gw@n"}}, {two[1], []string{"ns/gw@n"}}}
	held.Set(targets)
	s := w.server(two...)
	s.Set(state)
	ready := func(s Status) bool { return s.Verdict == Up && s.Instances["ns/gw@n"] == Ready }
	await(t, held, "the state", ready)
	for len(held.Changes()) > 0 {
		<-held.Changes()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sent := held.Status()[0].Sent
	await(t, held, "questions that are refused", func(s Status) bool { return s.Sent > sent+40 })
	await(t, held, "the state as it was", ready)
	s = w.server(two...)
	s.Set(state)
	answered := held.Status()[0].Answered
	await(t, held, "answers", func(s Status) bool { return s.Answered > answered+3 && ready(s) })
	select {
	case <-held.Changes():
		t.Error("a change was told")
	default:
	}
	held.Close() // the kernel refuses few of all that come from one address
	short := w.client(Options{Interval: 50 * time.Millisecond, Hold: time.Second})
	short.Set(targets)
	await(t, short, "the state", ready)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, short, "the end of the hold", down)
	s = w.server(two...)
	s.Set(state)
	await(t, short, "the state again", ready)
	if err := w.gate.SetLink("g0", false); err != nil {
		t.Fatal(err)
	}
	await(t, short, "a node that says nothing", down)
}

// TestStarvedClient: a client that cannot run for many intervals while the nodes
// answer blames none of them, although one answer missed would be enough.
func TestStarvedClient(t *testing.T) {
	w := newWorld(t)
	w.server(w.addresses...)
	c := w.client(Options{Interval: 2 * time.Second, Timeout: 2 * time.Second, Fall: 1})
	var targets []Target
	for _, a := range w.addresses[:20] {
		targets = append(targets, Target{Endpoint: a})
	}
	c.Set(targets)
	await(t, c, "all up", up)
	for range 2 {
		since := map[netip.AddrPort]time.Time{}
		before := map[netip.AddrPort]uint64{}
		// As if the process were stopped: its goroutine is, and the kernel goes on.
		c.mu.Lock()
		for _, t := range c.engine.targets {
			since[t.endpoint], before[t.endpoint] = t.since, t.answered
			if !t.asked { // under way, and its answer comes while nobody looks
				t.at = time.Time{}
			}
		}
		heap.Init(&c.engine.queue)
		c.engine.due(time.Now(), c.send)
		lab.Eventually(t, patience, "the deadlines to pass", func() error {
			for _, t := range c.engine.targets {
				if time.Since(t.deadline) < time.Second {
					return fmt.Errorf("%v", time.Since(t.deadline))
				}
			}
			return nil
		})
		c.mu.Unlock()
		await(t, c, "the answers", func(s Status) bool { return s.Answered > before[s.Endpoint] })
		for _, s := range c.Status() {
			if s.Verdict != Up || s.Since != since[s.Endpoint] {
				t.Errorf("%+v, up since %v before", s, since[s.Endpoint])
			}
		}
	}
}

// TestServerIgnores what is no request, and answers from the address asked.
func TestServerIgnores(t *testing.T) {
	w := newWorld(t)
	s := w.server(w.addresses[0])
	if got := s.Addresses(); len(got) != 1 || got[0] != w.addresses[0] {
		t.Fatal(got)
	}
	err := w.agent.Do(func() error {
		conn, err := net.Dial("udp", w.addresses[0].String())
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, b := range [][]byte{{}, []byte("hello"), appendAnswer(nil, 1, nil), appendHeader(nil, request, 9, 1), appendHeader(nil, request, 60000, 1), make([]byte, 9000),
			appendRequest(nil, 77, []key{keyOf("x")})} {
			if _, err := conn.Write(b); err != nil {
				return err
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		b := make([]byte, maxPacket)
		n, err := conn.Read(b)
		if err != nil {
			return err
		}
		if nonce, states, err := parseAnswer(b[:n], nil); err != nil || nonce != 77 || len(states) != 1 || states[0] != Absent {
			return fmt.Errorf("%x: %v %v %w", b[:n], nonce, states, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
