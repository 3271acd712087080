package probes_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

// pair is a gateway and the far side of its uplink g0.
type pair struct {
	lab     *lab.Lab
	gw, far *lab.NS
}

func newPair(t testing.TB) pair {
	t.Helper()
	lab.Require(t, lab.Root)
	l := lab.New(t)
	p := pair{lab: l, gw: l.MustNamespace("gw"), far: l.MustNamespace("far")}
	l.MustLink(p.gw, "g0", p.far, "f0")
	p.gw.MustIP("addr add 10.0.0.1/24 dev g0", "addr add 10.0.0.2/24 dev g0", "addr add fd00::1/64 dev g0",
		"route add 10.9.0.0/24 via 10.0.0.5", "route add fd09::/64 via fd00::5")
	p.far.MustIP("addr add 10.0.0.5/24 dev f0", "addr add 10.0.0.6/24 dev f0", "addr add fd00::5/64 dev f0",
		"route add unreachable 10.9.0.0/24", "route add unreachable fd09::/64")
	// Else the far side loses fd00::5 when its device goes down.
	if err := p.far.Sysctl("net.ipv6.conf.f0.keep_addr_on_down", "1"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := p.far.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestPingFollowsTheLink(t *testing.T) {
	n := newPair(t)
	p := startProber(t, n.gw)
	fast := icmpProbe("fast", "g0", "10.0.0.5")
	fast.Interval, fast.AttemptTimeout, fast.Rise, fast.Fall = 300*time.Millisecond, 300*time.Millisecond, 3, 2
	p.set(icmpProbe("four", "g0", "10.0.0.5"), icmpProbe("six", "g0", "fd00::5"), icmpProbe("both", "g0", "10.0.0.5", "fd00::5"), fast)
	names := []string{"four", "six", "both", "fast"}
	for _, name := range names {
		p.verdict(name, probes.Up)
	}
	for _, ts := range p.state("both").Targets {
		if ts.LastRTT <= 0 || ts.LastRTT > time.Second || ts.LastError != "" || ts.Attempts == 0 {
			t.Errorf("up, but %+v", ts)
		}
	}
	lab.Eventually(t, time.Minute, "the cost of these attempts", func() error {
		r := p.report()
		if tried, _ := totals(r); r.Cost.CPU <= 0 || r.Cost.CPU > r.User+r.System || r.Cost.Attempts < tried || r.Cost.Attempts > tried+5 {
			return fmt.Errorf("%+v for %d attempts, of %v and %v", r.Cost, tried, r.User, r.System)
		}
		return nil
	})
	cut := time.Now()
	if err := n.far.SetLink("f0", false); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		p.verdict(name, probes.Down)
	}
	t.Logf("300 ms interval and timeout, fall 2: down %v after the cut", p.state("fast").Since.Sub(cut).Round(time.Millisecond))
	for _, name := range []string{"four", "six"} {
		if ts := p.state(name).Targets[0]; ts.LastError == "" || ts.Failures < 3 {
			t.Errorf("down, but %+v", ts)
		}
	}
	if err := n.far.SetLink("f0", true); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		p.verdict(name, probes.Up)
	}
}

func TestPingTellsWhyNot(t *testing.T) {
	n := newPair(t)
	p := startProber(t, n.gw)
	source := icmpProbe("source", "g0", "10.0.0.5")
	source.Source = netip.MustParseAddr("10.0.0.77")
	p.set(icmpProbe("unreachable", "g0", "10.9.0.1"), icmpProbe("unreachable6", "g0", "fd09::1"),
		icmpProbe("device", "g7", "10.0.0.5"), icmpProbe("absent", "g0", "10.0.0.99"), source)
	// The far side answers only the first requests with an unreachable message.
	p.verdict("unreachable", probes.Down, "no answer within 300ms: no echo reply", "no route to host")
	p.verdict("unreachable6", probes.Down, "no answer within 300ms: no echo reply", "network is unreachable")
	p.verdict("device", probes.Down, `bind to device "g7": no such device`)
	p.verdict("absent", probes.Down, "no answer within 300ms: no echo reply")
	p.verdict("source", probes.Down, "cannot assign requested address")
}

// TestPingSource: the request carries the configured source, which the far side
// alone knows how to answer.
func TestPingSource(t *testing.T) {
	n := newPair(t)
	// The far side answers 10.0.0.2 only.
	n.far.MustIP("route add blackhole 10.0.0.1/32")
	p := startProber(t, n.gw)
	second := icmpProbe("second", "g0", "10.0.0.5")
	second.Source = netip.MustParseAddr("10.0.0.2")
	p.set(icmpProbe("first", "g0", "10.0.0.5"), second)
	p.verdict("second", probes.Up)
	p.verdict("first", probes.Down)
}

// TestPingAcceptsOnlyItsOwnReply has a far side that answers almost right.
func TestPingAcceptsOnlyItsOwnReply(t *testing.T) {
	n := newPair(t)
	if err := n.far.Sysctl("net.ipv4.icmp_echo_ignore_all", "1"); err != nil {
		t.Fatal(err)
	}
	r := newResponder(t, n.far)
	p := startProber(t, n.gw)
	for _, wrong := range []struct {
		name   string
		mangle func(m []byte)
		from   int
	}{
		{"id", func(m []byte) { m[4] ^= 1 }, 0},
		{"seq", func(m []byte) { m[7] ^= 1 }, 0},
		{"token", func(m []byte) { m[len(m)-1] ^= 1 }, 0},
		{"source", func([]byte) {}, 1},
		{"type", func(m []byte) { m[0] = 14 }, 0},
		{"code", func(m []byte) { m[1] = 1 }, 0},
	} {
		r.answer.Store(&answer{mangle: wrong.mangle, from: wrong.from})
		sent := r.sent.Load()
		p.set(icmpProbe(wrong.name, "g0", "10.0.0.5"))
		p.attempts(wrong.name, 4)
		if s := p.state(wrong.name); s.Verdict != probes.Down || s.Targets[0].Failures != s.Targets[0].Attempts {
			t.Errorf("a reply with a wrong %s was accepted: %+v", wrong.name, s)
		}
		if r.sent.Load() < sent+3 {
			t.Errorf("wrong %s: the far side sent nothing", wrong.name)
		}
	}
	// The same far side, answering right, is up: so it was that difference.
	r.answer.Store(&answer{mangle: func([]byte) {}})
	p.set(icmpProbe("right", "g0", "10.0.0.5"))
	p.verdict("right", probes.Up)
}

// TestPingOfAStarvedProcess: a process that gets no processor while the reply
// comes, until after the deadline, does not blame the target.
func TestPingOfAStarvedProcess(t *testing.T) {
	const timeout, delay, pause, pauses = 2 * time.Second, 300 * time.Millisecond, 2500 * time.Millisecond, 2
	n := newPair(t)
	if err := n.far.Sysctl("net.ipv4.icmp_echo_ignore_all", "1"); err != nil {
		t.Fatal(err)
	}
	r := newResponder(t, n.far)
	r.answer.Store(&answer{mangle: func([]byte) {}, delay: delay})
	p := startProber(t, n.gw)
	c := icmpProbe("starved", "g0", "10.0.0.5")
	c.Interval, c.AttemptTimeout = probes.MinInterval, timeout // an attempt is nearly always under way
	p.set(c)
	p.verdict("starved", probes.Up)
	before := p.state("starved").Targets[0].Failures
	for range pauses {
		if err := p.proc.Pause(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		lab.Eventually(t, time.Minute, "the end of the pause", func() error {
			if since := time.Since(began); since < pause {
				return fmt.Errorf("%v", since)
			}
			return nil
		})
		if err := p.proc.Resume(); err != nil {
			t.Fatal(err)
		}
		p.attempts("starved", 2)
	}
	// One may have been stopped before it sent.
	if failures := p.state("starved").Targets[0].Failures - before; failures > 1 {
		t.Errorf("%d attempts failed in %d pauses", failures, pauses)
	}
}

// responder answers echo requests in place of a kernel.
type responder struct {
	sockets []net.PacketConn
	answer  atomic.Pointer[answer]
	sent    atomic.Int64
}

type answer struct {
	mangle func(m []byte)
	// from is the socket to send from: of 10.0.0.5 or of 10.0.0.6.
	from  int
	delay time.Duration
}

func newResponder(t *testing.T, ns *lab.NS) *responder {
	t.Helper()
	r := &responder{}
	if err := ns.Do(func() error {
		for _, a := range []string{"10.0.0.5", "10.0.0.6"} {
			c, err := net.ListenPacket("ip4:1", a)
			if err != nil {
				return err
			}
			r.sockets = append(r.sockets, c)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		for _, c := range r.sockets {
			_ = c.Close()
		}
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			k, from, err := r.sockets[0].ReadFrom(buf)
			if err != nil {
				return
			}
			a := r.answer.Load()
			if a == nil || k < 8 || buf[0] != 8 {
				continue
			}
			m := bytes.Clone(buf[:k])
			m[0] = 0
			a.mangle(m)
			binary.BigEndian.PutUint16(m[2:], 0)
			binary.BigEndian.PutUint16(m[2:], sum(m))
			time.AfterFunc(a.delay, func() {
				if _, err := r.sockets[a.from].WriteTo(m, from); err == nil {
					r.sent.Add(1)
				}
			})
		}
	}()
	return r
}

// sum is written apart from the one under test.
func sum(b []byte) uint16 {
	total := 0
	for i, v := range b {
		total += int(v) << (8 * (1 - i%2))
	}
	return ^uint16(total % 0xffff)
}

// TestManyTargets runs 250 targets from one process, at a rate that an emulated
// machine can carry.
func TestManyTargets(t *testing.T) {
	n := newPair(t)
	n.gw.MustIP("route add 10.8.0.0/24 via 10.0.0.5")
	n.far.MustIP("route add local 10.8.0.0/24 dev lo")
	var targets []string
	for i := range 250 {
		targets = append(targets, fmt.Sprintf("10.8.0.%d", i+1))
	}
	c := icmpProbe("many", "g0", targets...)
	c.Interval, c.AttemptTimeout = time.Second, 5*time.Second
	p := startProber(t, n.gw)
	began := time.Now()
	p.set(c)
	p.verdict("many", probes.Up)
	t.Logf("%d targets up after %v", len(targets), time.Since(began).Round(time.Millisecond))
	p.attempts("many", 5)
	failures := uint64(0)
	for _, ts := range p.state("many").Targets {
		failures += ts.Failures
	}
	t.Logf("%d failed attempts", failures)
}
