package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// gateway is a Speaker with one network "red" that a test talks to.
type gateway struct {
	*Speaker
	t      *testing.T
	config Config
}

func newGateway(t *testing.T, change func(*Config)) *gateway {
	t.Helper()
	g := &gateway{t: t, config: Config{
		Network: "red", ASN: gatewayASN, RouterID: addr("10.255.0.1"), ListenPort: freePort(t),
	}}
	if change != nil {
		change(&g.config)
	}
	g.Speaker = newSpeaker(testLogger(t), func() {}, timing{prefixBackoff: 4 * time.Second, resync: time.Hour, sync: time.Hour})
	t.Cleanup(func() { g.Close(false) })
	return g
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func (g *gateway) set(change func(*Config)) {
	g.t.Helper()
	if change != nil {
		change(&g.config)
	}
	if err := g.Set(context.Background(), []Config{g.config}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) state() State {
	g.t.Helper()
	for _, s := range g.State() {
		if s.Network == g.config.Network {
			return s
		}
	}
	g.t.Fatal("no state")
	return State{}
}

func (g *gateway) peerState(a netip.Addr) PeerState {
	g.t.Helper()
	for _, p := range g.state().Peers {
		if p.Address == a {
			return p
		}
	}
	return PeerState{}
}

// awaits waits for a condition of the state; ok returns what is wrong.
func (g *gateway) awaits(what string, ok func(State) error) {
	g.t.Helper()
	lab.Eventually(g.t, deadline, what, func() error { return ok(g.state()) })
}

func (g *gateway) established(peers ...*upstream) {
	g.t.Helper()
	g.awaits("sessions", func(s State) error {
		for _, u := range peers {
			if p := g.peerState(u.addr); p.State != established {
				return fmt.Errorf("%s is %q: %s", u.addr, p.State, p.LastError)
			}
		}
		return nil
	})
}

// routes waits until exactly these are learned, written "prefix via hop hop".
func (g *gateway) routes(want ...string) {
	g.t.Helper()
	g.awaits("routes", func(s State) error {
		if have := routeText(s.Routes); !slices.Equal(have, want) {
			return fmt.Errorf("have %q, want %q", have, want)
		}
		return nil
	})
}

func routeText(routes []Route) []string {
	var out []string
	for _, r := range routes {
		text := r.Prefix.String() + " via"
		for _, h := range r.NextHops {
			text += " " + h.String()
		}
		out = append(out, text)
	}
	return out
}

func advertise(prefixes ...string) []Advertisement {
	var out []Advertisement
	for _, p := range prefixes {
		out = append(out, Advertisement{Prefix: prefix(p)})
	}
	return out
}

func TestSession(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001})
	g.set(func(c *Config) {
		c.Peers = []Peer{u.peer(ImportRule{Prefix: prefix("10.0.0.0/8"), Min: 16, Max: 24}, ImportRule{Prefix: prefix("0.0.0.0/0"), Max: 0})}
		c.Advertise = []Advertisement{{Prefix: prefix("198.51.100.0/28"), Attributes: Attributes{Communities: []uint32{65001<<16 | 2, 64512<<16 | 1}}}}
		c.Reject = []netip.Prefix{prefix("10.99.0.0/16")}
	})
	g.established(u)
	u.wants("198.51.100.0/28")
	want := learned{nextHop: "127.0.0.1", communities: []uint32{64512<<16 | 1, 65001<<16 | 2}, path: []uint32{gatewayASN}}
	if got := u.rib()["198.51.100.0/28"]; !reflect.DeepEqual(got, want) {
		t.Errorf("upstream has %+v, want %+v", got, want)
	}

	u.announce(
		announcement{prefix: "0.0.0.0/0"}, announcement{prefix: "10.1.0.0/16"}, announcement{prefix: "10.2.3.0/24", nextHop: "192.0.2.9"},
		// Refused: too short, too long, elsewhere, rejected, part of the same, our
		// own and a part of it, a loop, an unusable next hop, martians.
		announcement{prefix: "10.0.0.0/8"}, announcement{prefix: "10.2.3.0/25"}, announcement{prefix: "172.16.0.0/16"},
		announcement{prefix: "10.99.0.0/16"}, announcement{prefix: "10.99.1.0/24"},
		announcement{prefix: "198.51.100.0/28"}, announcement{prefix: "198.51.100.4/32"},
		announcement{prefix: "10.3.0.0/16", path: []uint32{65005, gatewayASN}}, announcement{prefix: "10.4.0.0/16", nextHop: "127.0.0.2"},
		announcement{prefix: "127.1.0.0/16"}, announcement{prefix: "169.254.0.0/16"}, announcement{prefix: "224.1.0.0/16"},
	)
	g.routes("0.0.0.0/0 via 192.0.2.1", "10.1.0.0/16 via 192.0.2.1", "10.2.3.0/24 via 192.0.2.9")
	g.awaits("counts", func(State) error {
		if p := g.peerState(u.addr); p.Received != 15 || p.Accepted != 3 || p.Advertised != 1 || p.ImportMissing {
			return fmt.Errorf("received %d, accepted %d, advertised %d", p.Received, p.Accepted, p.Advertised)
		}
		return nil
	})

	// A path with a loop takes the place of the good one before it.
	u.announce(announcement{prefix: "10.1.0.0/16", path: []uint32{gatewayASN}})
	g.routes("0.0.0.0/0 via 192.0.2.1", "10.2.3.0/24 via 192.0.2.9")
	u.announce(announcement{prefix: "10.1.0.0/16"})

	// Nothing of the following may reset the session.
	up := g.peerState(u.addr)
	g.set(func(c *Config) { c.Reject = nil })
	g.routes("0.0.0.0/0 via 192.0.2.1", "10.1.0.0/16 via 192.0.2.1", "10.2.3.0/24 via 192.0.2.9", "10.99.0.0/16 via 192.0.2.1", "10.99.1.0/24 via 192.0.2.1")
	g.set(func(c *Config) { c.Peers[0].Import = []ImportRule{{Prefix: prefix("172.16.0.0/12"), Min: 12, Max: 32}} })
	g.routes("172.16.0.0/16 via 192.0.2.1")
	g.set(func(c *Config) { c.Advertise = advertise("198.51.100.0/29", "198.51.100.8/29") })
	u.wants("198.51.100.0/29", "198.51.100.8/29")
	g.set(func(c *Config) { c.Advertise[0].Communities = []uint32{7} })
	lab.Eventually(t, deadline, "community", func() error {
		if got := u.rib()["198.51.100.0/29"].communities; !slices.Equal(got, []uint32{7}) {
			return fmt.Errorf("have %v", got)
		}
		return nil
	})
	g.set(func(c *Config) { c.Advertise = nil })
	u.wants()
	g.set(func(c *Config) { c.Peers[0].Import = nil })
	g.routes()
	if p := g.peerState(u.addr); !p.ImportMissing || p.Accepted != 0 || p.Received != 15 {
		t.Errorf("without import rules: %+v", p)
	}
	other := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65001, gateway: g.config.ListenPort})
	g.set(func(c *Config) { c.Peers = append(c.Peers, other.peer(anything...)) })
	g.established(other)
	g.set(func(c *Config) { c.Peers = c.Peers[:1] })
	for range 3 {
		g.set(nil)
	}
	if p := g.peerState(u.addr); p.Flaps != 0 || p.State != established || p.Since != up.Since {
		t.Errorf("the session was reset: %+v, was %+v", p, up)
	}
	// What is in the OPEN message resets this session.
	g.set(func(c *Config) { c.Peers[0].HoldTime = 30 * time.Second })
	g.awaits("new session", func(State) error {
		if p := g.peerState(u.addr); p.State != established || p.Flaps != 1 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

// TestNetworks has equal addresses, ASNs and router ids on both sides in two
// networks, and one network that cannot be set.
func TestNetworks(t *testing.T) {
	t.Parallel()
	red := newGateway(t, nil)
	blue := red.config
	blue.Network, blue.ListenPort = "blue", freePort(t)
	up := map[string]*upstream{
		"red":  startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001}),
		"blue": startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: blue.ListenPort}),
	}
	red.config.Peers, red.config.Advertise = []Peer{up["red"].peer(anything...)}, advertise("198.51.100.0/28")
	blue.Peers, blue.Advertise = []Peer{up["blue"].peer(anything...)}, advertise("198.51.100.0/28", "203.0.113.0/28")
	broken := Config{Network: "broken", Device: "nosuchdevice", ASN: gatewayASN, RouterID: addr("10.255.0.1")}
	taken := Config{Network: "taken", ASN: gatewayASN, RouterID: addr("10.255.0.1"), ListenPort: blue.ListenPort}
	invalid := Config{Network: "invalid", ASN: gatewayASN}

	want := []Config{red.config, blue, broken, taken, invalid, {Network: "twice"}, {Network: "twice"}}
	err := red.Set(t.Context(), want)
	for _, text := range []string{`"broken": find device "nosuchdevice"`, `"taken": start server`, `"invalid": router id`, `"twice": configured twice`} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v lacks %q", err, text)
		}
	}
	up["red"].announce(announcement{prefix: "10.0.0.0/24", nextHop: "192.0.2.1"})
	up["blue"].announce(announcement{prefix: "10.0.0.0/24", nextHop: "192.0.2.2"})
	red.routes("10.0.0.0/24 via 192.0.2.1")
	up["red"].wants("198.51.100.0/28")
	up["blue"].wants("198.51.100.0/28", "203.0.113.0/28")
	states := red.State()
	var names []string
	for _, s := range states {
		names = append(names, s.Network)
		if bad := s.Network != "red" && s.Network != "blue"; bad != (s.Err != nil) {
			t.Errorf("network %q has error %v", s.Network, s.Err)
		}
	}
	if !slices.Equal(names, []string{"blue", "broken", "invalid", "red", "taken", "twice"}) {
		t.Errorf("states of %q", names)
	}
	// An invalid configuration leaves a network as it is.
	bad := red.config
	bad.ASN = 0
	if err := red.Set(t.Context(), []Config{bad, blue}); err == nil {
		t.Error("ASN 0 was accepted")
	}
	if s := red.state(); s.Err == nil || len(s.Routes) != 1 || red.peerState(up["red"].addr).State != established {
		t.Errorf("after an invalid configuration: %+v", s)
	}
	// A network that is no longer named is gone at its peers; the other stays.
	if err := red.Set(t.Context(), []Config{blue}); err != nil {
		t.Fatal(err)
	}
	up["red"].wants()
	up["blue"].wants("198.51.100.0/28", "203.0.113.0/28")
	if s := red.State(); len(s) != 1 || s[0].Peers[0].Flaps != 0 {
		t.Errorf("states %+v", s)
	}
}

func TestMultipath(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	a := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort})
	b := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65002, gateway: g.config.ListenPort})
	g.set(func(c *Config) {
		c.Peers = []Peer{b.peer(anything...), a.peer(ImportRule{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 23})}
	})
	a.announce(announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.3"}, announcement{prefix: "10.2.0.0/16"}, announcement{prefix: "10.3.3.0/24"})
	b.announce(
		announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.2"},
		announcement{prefix: "10.2.0.0/16", nextHop: "192.0.2.2", path: []uint32{65009}},
		// The better path of a is not accepted, so that this one counts.
		announcement{prefix: "10.3.3.0/24", nextHop: "192.0.2.2", path: []uint32{65009}},
	)
	g.routes("10.1.0.0/16 via 192.0.2.2 192.0.2.3", "10.2.0.0/16 via 192.0.2.1", "10.3.3.0/24 via 192.0.2.2")
	a.withdraw("10.1.0.0/16")
	g.routes("10.1.0.0/16 via 192.0.2.2", "10.2.0.0/16 via 192.0.2.1", "10.3.3.0/24 via 192.0.2.2")
	a.stop()
	g.routes("10.1.0.0/16 via 192.0.2.2", "10.2.0.0/16 via 192.0.2.2", "10.3.3.0/24 via 192.0.2.2")
	g.awaits("peer down", func(State) error {
		if p := g.peerState(addr("127.0.0.2")); p.Flaps != 1 || p.Received != 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

// TestInternal has an iBGP peer beside an external one.
func TestInternal(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	in := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: gatewayASN, gateway: g.config.ListenPort})
	out := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65001, gateway: g.config.ListenPort})
	g.set(func(c *Config) {
		c.Peers = []Peer{in.peer(anything...), out.peer(anything...)}
		c.Advertise = advertise("198.51.100.0/28")
	})
	in.announce(announcement{prefix: "10.1.0.0/16"}, announcement{prefix: "10.2.0.0/16", path: []uint32{65002}}, announcement{prefix: "10.3.0.0/16"})
	out.announce(announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.2"}, announcement{prefix: "10.2.0.0/16", nextHop: "192.0.2.2"})
	// The AS path counts before the kind of the peer: none at all is the shortest.
	g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.2", "10.3.0.0/16 via 192.0.2.1")
	in.wants("198.51.100.0/28")
	out.wants("198.51.100.0/28")
	if l := in.rib()["198.51.100.0/28"]; l.nextHop != "127.0.0.1" || len(l.path) != 0 {
		t.Errorf("iBGP peer has %+v", l)
	}
}

func TestMaxPrefixes(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("graceful restart %t", restart), func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, nil)
			u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort, restart: restart})
			u.announce(announcement{prefix: "10.1.0.0/16"}, announcement{prefix: "10.2.0.0/16"})
			g.set(func(c *Config) {
				if restart {
					c.GracefulRestart = &GracefulRestart{RestartTime: 120 * time.Second}
				}
				c.Peers = []Peer{u.peer(anything...)}
				c.Peers[0].MaxPrefixes = 2
			})
			g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.1")
			u.announce(announcement{prefix: "10.3.0.0/16"})
			g.routes()
			g.awaits("closed session", func(State) error {
				p := g.peerState(u.addr)
				if p.State != "idle" || !strings.Contains(p.LastError, "6/1 cease: maximum number of prefixes reached (the limit is 2)") {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			u.withdraw("10.3.0.0/16")
			g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.1")
			// A raised limit resets nothing, a lowered one is enforced at once.
			flaps := g.peerState(u.addr).Flaps
			g.set(func(c *Config) { c.Peers[0].MaxPrefixes = 5 })
			u.announce(announcement{prefix: "10.3.0.0/16"})
			g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.1", "10.3.0.0/16 via 192.0.2.1")
			if p := g.peerState(u.addr); p.Flaps != flaps {
				t.Errorf("raising the limit reset the session: %+v", p)
			}
			g.set(func(c *Config) { c.Peers[0].MaxPrefixes = 1 })
			g.routes()
			// Another limit ends the wait.
			g.set(func(c *Config) { c.Peers[0].MaxPrefixes = 0 })
			g.routes("10.1.0.0/16 via 192.0.2.1", "10.2.0.0/16 via 192.0.2.1", "10.3.0.0/16 via 192.0.2.1")
		})
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	g.set(nil)
	g.Close(false)
	g.Close(false)
	if err := g.Set(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Set after Close: %v", err)
	}
	if s := g.State(); len(s) != 0 {
		t.Errorf("State after Close: %+v", s)
	}
}
