package probes_test

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

func tcpProbe(name string, to ...string) probes.Config {
	c := icmpProbe(name, "g0")
	c.Type = probes.TCP
	for _, s := range to {
		c.Targets = append(c.Targets, probes.Target{Endpoint: netip.MustParseAddrPort(s)})
	}
	return c
}

func TestTCP(t *testing.T) {
	n := newPair(t)
	var accepted atomic.Int64
	var from atomic.Pointer[string]
	for _, at := range []string{"10.0.0.5:80", "[fd00::5]:8080"} {
		var l net.Listener
		lab.Eventually(t, time.Minute, "address "+at, func() error {
			return n.far.Do(func() (err error) {
				l, err = net.Listen("tcp", at)
				return err
			})
		})
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if a := c.RemoteAddr().String(); strings.HasPrefix(a, "10.") {
					from.Store(&a)
				}
				accepted.Add(1)
				_ = c.Close()
			}
		}()
	}
	p := startProber(t, n.gw)
	both := tcpProbe("both", "10.0.0.5:80", "[fd00::5]:8080")
	both.Targets[0].Source = netip.MustParseAddr("10.0.0.2")
	source := tcpProbe("source", "10.0.0.5:80")
	source.Source = netip.MustParseAddr("10.0.0.77")
	p.set(both, tcpProbe("port", "10.0.0.5:81"), tcpProbe("unreachable", "10.9.0.1:80"), tcpProbe("absent", "10.0.0.99:80"), source)
	p.verdict("both", probes.Up)
	p.verdict("port", probes.Down, "connect: connection refused")
	// From Linux 6.10 on an unreachable message does not end a handshake.
	p.verdict("unreachable", probes.Down)
	p.verdict("absent", probes.Down, "no answer within 300ms: connect")
	p.verdict("source", probes.Down, `bind to source "10.0.0.77": cannot assign requested address`)
	if a := from.Load(); a == nil || !strings.HasPrefix(*a, "10.0.0.2:") {
		t.Errorf("connected from %v", a)
	}
	for _, ts := range p.state("both").Targets {
		if ts.LastRTT <= 0 || ts.LastRTT > 300*time.Millisecond || ts.RTT.Count == 0 {
			t.Errorf("%+v", ts)
		}
	}
	p.attempts("both", 20)
	// Nothing of the connections stays.
	out := n.gw.Must("ss", "-Htan", "dst", "10.0.0.5", "or", "dst", "[fd00::5]")
	if lines := strings.Count(out, "\n"); lines > 4 || strings.Contains(out, "TIME-WAIT") {
		t.Errorf("after %d connections:\n%s", accepted.Load(), out)
	}
	if err := n.far.SetLink("f0", false); err != nil {
		t.Fatal(err)
	}
	p.verdict("both", probes.Down)
	if err := n.far.SetLink("f0", true); err != nil {
		t.Fatal(err)
	}
	p.verdict("both", probes.Up)
}
