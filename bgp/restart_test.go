package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// TestHelper lets an upstream restart: its routes stay until it tells which it
// still has, or until its restart time is over.
func TestHelper(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, seconds uint32) (*gateway, upstreamConfig, *upstream) {
		g := newGateway(t, func(c *Config) { c.GracefulRestart = &GracefulRestart{RestartTime: 60 * time.Second} })
		config := upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort, restart: true, time: seconds, port: freePort(t)}
		u := startUpstream(t, config)
		u.announce(announcement{prefix: "10.1.0.0/16"}, announcement{prefix: "10.2.0.0/16"})
		g.set(func(c *Config) { c.Peers = []Peer{u.peer(anything...)} })
		g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.1")
		u.die()
		g.awaits("end of the session", func(State) error {
			if p := g.peerState(u.addr); p.State == established {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		if have := routeText(g.state().Routes); len(have) != 2 {
			t.Errorf("routes of a restarting peer: %q", have)
		}
		return g, config, u
	}
	t.Run("end of rib", func(t *testing.T) {
		t.Parallel()
		g, config, _ := start(t, 120)
		// The routes must stay until the peer is back. It has other ones then.
		var lost atomic.Bool
		stop := watch(g, func(s State) {
			if len(s.Routes) > 0 && s.Routes[0].Prefix != prefix("10.1.0.0/16") || len(s.Routes) == 0 {
				lost.Store(true)
			}
		})
		config.again = true
		u := startUpstream(t, config)
		u.announce(announcement{prefix: "10.1.0.0/16"}, announcement{prefix: "10.3.0.0/16"})
		g.routes("10.1.0.0/16 via 192.0.2.1", "10.3.0.0/16 via 192.0.2.1")
		stop()
		if lost.Load() {
			t.Error("a route was lost during the restart")
		}
	})
	t.Run("restart time", func(t *testing.T) {
		t.Parallel()
		g, _, u := start(t, 3)
		g.routes()
		if p := g.peerState(u.addr); p.Received != 0 || p.Accepted != 0 {
			t.Errorf("counts after the restart time: %+v", p)
		}
	})
}

// watch looks at the state in a loop until the function returned is called.
func watch(g *gateway, look func(State)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			look(g.state())
			runtime.Gosched()
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestRestart lets the gateway restart: an upstream keeps our prefixes, and
// drops the ones we no longer have at our End-of-RIB.
func TestRestart(t *testing.T) {
	t.Parallel()
	g := newGateway(t, func(c *Config) { c.GracefulRestart = &GracefulRestart{RestartTime: 60 * time.Second} })
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort, restart: true})
	dead := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65001})
	g.set(func(c *Config) {
		// A second peer that never comes must not keep back what the first is sent.
		c.Peers = []Peer{u.peer(anything...), dead.peer()}
		c.Peers[1].Passive = true
		c.Advertise = advertise("198.51.100.0/28", "203.0.113.0/28")
	})
	u.wants("198.51.100.0/28", "203.0.113.0/28")
	g.Close(true)
	lab.Eventually(t, deadline, "stale prefixes", func() error {
		for p, l := range u.rib() {
			if !l.stale {
				return fmt.Errorf("%s is %+v", p, l)
			}
		}
		return nil
	})
	u.wants("198.51.100.0/28", "203.0.113.0/28")

	again := newGateway(t, func(c *Config) { *c = g.config })
	again.set(func(c *Config) {
		c.Restarting = true
		c.Advertise = advertise("198.51.100.0/28", "192.0.2.128/28")
	})
	lab.Eventually(t, deadline, "end of the restart", func() error {
		have := u.rib()
		if _, ok := have["198.51.100.0/28"]; !ok {
			t.Fatalf("the prefix was lost during the restart: %v", have)
		}
		keys := slices.Sorted(maps.Keys(have))
		if !slices.Equal(keys, []string{"192.0.2.128/28", "198.51.100.0/28"}) || have["198.51.100.0/28"].stale {
			return fmt.Errorf("%+v", have)
		}
		return nil
	})
	// Cease: nothing is kept.
	again.Close(false)
	u.wants()
}

// TestSynced ends the wait with the last End-of-RIB, or with the time.
func TestSynced(t *testing.T) {
	t.Parallel()
	g := newGateway(t, func(c *Config) { c.GracefulRestart = &GracefulRestart{RestartTime: 4095 * time.Second} })
	a := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort, restart: true})
	b := Peer{Address: addr("127.0.0.3"), ASN: 65001, Passive: true, Import: anything}
	a.announce(announcement{prefix: "10.1.0.0/16"})
	g.set(func(c *Config) { c.Peers = []Peer{a.peer(anything...), b} })
	g.routes("10.1.0.0/16 via 192.0.2.1")
	if g.state().Synced {
		t.Error("synced before all peers are up")
	}
	startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65001, gateway: g.config.ListenPort, restart: true})
	g.awaits("synced", func(s State) error {
		if !s.Synced {
			return fmt.Errorf("%+v", s.Peers)
		}
		return nil
	})
	a.stop()
	g.routes()
	if !g.state().Synced {
		t.Error("synced was taken back")
	}

	late := newGateway(t, func(c *Config) { c.GracefulRestart = &GracefulRestart{RestartTime: time.Second} })
	late.set(func(c *Config) { c.Peers = []Peer{b} })
	late.awaits("synced by time", func(s State) error {
		if !s.Synced {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	none := newGateway(t, nil)
	none.set(nil)
	none.awaits("synced without peers", func(s State) error {
		if !s.Synced {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// TestFamilies has both families in one session, and a session over IPv6.
func TestFamilies(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort, ipv6: true})
	u.announce(announcement{prefix: "10.1.0.0/16"}, announcement{prefix: "2001:db8:1::/48"},
		// IPv4-mapped, link-local and multicast prefixes and next hops are refused.
		announcement{prefix: "fe80:1::/32"}, announcement{prefix: "ff00::/16"}, announcement{prefix: "::ffff:10.0.0.0/104"},
		announcement{prefix: "2001:db8:2::/48", nextHop: "fe80::1"}, announcement{prefix: "2001:db8:3::/48", nextHop: "::ffff:192.0.2.1"},
		announcement{prefix: "::/0"}, announcement{prefix: "::1/128"})
	g.set(func(c *Config) {
		c.Peers = []Peer{u.peer(anything...)}
		c.Peers[0].IPv4, c.Peers[0].IPv6 = true, true
		c.Advertise = advertise("198.51.100.0/28", "2001:db8:51::/48")
	})
	g.routes("10.1.0.0/16 via 192.0.2.1", "::/0 via 2001:db8:ff::1", "2001:db8:1::/48 via 2001:db8:ff::1")
	// The session's address is no next hop for IPv6.
	u.wants("198.51.100.0/28")
	if p := g.peerState(u.addr); p.Advertised != 1 {
		t.Errorf("advertised %d", p.Advertised)
	}
	g.set(func(c *Config) { c.Peers[0].NextHopIPv6 = addr("2001:db8::51") })
	u.wants("198.51.100.0/28", "2001:db8:51::/48")
	if l := u.rib()["2001:db8:51::/48"]; l.nextHop != "2001:db8::51" {
		t.Errorf("next hop %+v", l)
	}
	if l := u.rib()["198.51.100.0/28"]; l.nextHop != "127.0.0.1" {
		t.Errorf("next hop %+v", l)
	}
	g.set(func(c *Config) { c.Peers[0].NextHopIPv6 = addr("2001:db8::52") })
	lab.Eventually(t, deadline, "changed next hop", func() error {
		if l := u.rib()["2001:db8:51::/48"]; l.nextHop != "2001:db8::52" {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	g.set(func(c *Config) { c.Peers[0].NextHopIPv6 = netip.Addr{} })
	u.wants("198.51.100.0/28")
	if p := g.peerState(u.addr); p.Flaps != 0 {
		t.Errorf("flaps %d", p.Flaps)
	}
}

// TestGoroutines holds that an idle speaker has few and that none stay. The
// buffer of GoBGP's infinite channel may, when a peer is removed whose session
// ended by an error: nothing here can end that, so peers are removed only when
// the configuration says so.
func TestGoroutines(t *testing.T) {
	const networks = 4
	before, _ := goroutines()
	g := newGateway(t, nil)
	var configs []Config
	var ups []*upstream
	for i := range networks {
		c := g.config
		c.Network, c.ListenPort = fmt.Sprint("n", i), freePort(t)
		u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: c.ListenPort, restart: i%2 == 0})
		c.Peers = []Peer{u.peer(anything...), {Address: addr("127.0.0.9"), ASN: 65001, Port: uint16(freePort(t))}}
		c.Advertise = advertise("198.51.100.0/28")
		configs, ups = append(configs, c), append(ups, u)
	}
	without, _ := goroutines()
	if err := g.Set(t.Context(), configs); err != nil {
		t.Fatal(err)
	}
	for _, u := range ups {
		u.wants("198.51.100.0/28")
	}
	with, _ := goroutines()
	perNetwork := (with - without) / networks
	t.Logf("%d goroutines per network with two peers, one of them up", perNetwork)
	if perNetwork > 40 {
		t.Errorf("%d goroutines per network", perNetwork)
	}
	g.Close(true)
	for _, u := range ups {
		u.stop()
	}
	lab.Eventually(t, deadline, "end of all goroutines", func() error {
		if now, stacks := goroutines(); now > before {
			return fmt.Errorf("%d goroutines, %d at the start\n%s", now, before, stacks)
		}
		return nil
	})
}

// goroutines counts all but the buffers mentioned.
func goroutines() (count int, stacks string) {
	buf := make([]byte, 4<<20)
	stacks = string(buf[:runtime.Stack(buf, true)])
	for stack := range strings.SplitSeq(stacks, "\n\n") {
		if !strings.Contains(stack, "infiniteBuffer") {
			count++
		}
	}
	return count, stacks
}

// TestNotify holds that a slow listener is told again and holds up nothing.
func TestNotify(t *testing.T) {
	t.Parallel()
	told := make(chan struct{})
	s := New(testLogger(t), func() { told <- struct{}{} })
	c := Config{Network: "red", ASN: gatewayASN, RouterID: addr("10.255.0.1"), ListenPort: freePort(t)}
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: c.ListenPort})
	for i := range 50 {
		u.announce(announcement{prefix: fmt.Sprintf("10.%d.0.0/16", i)})
	}
	c.Peers = []Peer{u.peer(anything...)}
	if err := s.Set(t.Context(), []Config{c}); err != nil {
		t.Fatal(err)
	}
	// Nobody listens, and yet the routes come in.
	lab.Eventually(t, deadline, "routes", func() error {
		if n := len(s.State()[0].Routes); n != 50 {
			return fmt.Errorf("%d routes", n)
		}
		return nil
	})
	<-told // the one that was blocked
	<-told // and what changed meanwhile
	u.withdraw("10.7.0.0/16")
	for len(s.State()[0].Routes) != 49 {
		<-told
	}
	closed := make(chan struct{})
	go func() {
		s.Close(false)
		close(closed)
	}()
	for {
		select {
		case <-told:
		case <-closed:
			return
		}
	}
}

// TestLongLived keeps the paths of a peer that does not come back, as a last
// resort, and drops them in the end (RFC 9494).
func TestLongLived(t *testing.T) {
	t.Parallel()
	g := newGateway(t, func(c *Config) {
		c.GracefulRestart = &GracefulRestart{RestartTime: 60 * time.Second, LongLived: time.Hour}
	})
	a := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort, restart: true, time: 2, long: 6})
	b := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65002, gateway: g.config.ListenPort})
	g.set(func(c *Config) { c.Peers = []Peer{a.peer(anything...), b.peer(anything...)} })
	g.established(a, b)
	a.announce(announcement{prefix: "10.1.0.0/16"}, announcement{prefix: "10.2.0.0/16"})
	b.announce(announcement{prefix: "10.2.0.0/16", nextHop: "192.0.2.2", path: []uint32{65009, 65010}})
	g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.1")
	a.die()
	// The longer path wins over the stale one.
	g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.2")
	g.routes("10.2.0.0/16 via 192.0.2.2")
}
