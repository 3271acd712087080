package bgp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestImportPolicy matches AS paths and communities and prefers by them, all of
// it in place.
func TestImportPolicy(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	a := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort})
	b := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65002, gateway: g.config.ListenPort})
	g.set(func(c *Config) { c.Peers = []Peer{a.peer(anything...), b.peer(anything...)} })
	a.announce(
		announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.1"},
		announcement{prefix: "10.2.0.0/16", nextHop: "192.0.2.1", path: []uint32{65009, 65010}},
		announcement{prefix: "10.3.0.0/16", nextHop: "192.0.2.1", communities: []uint32{65001<<16 | 666}},
		announcement{prefix: "10.4.0.0/16", nextHop: "192.0.2.1", large: []LargeCommunity{{4200000000, 1, 2}}},
		announcement{prefix: "10.5.0.0/16", nextHop: "192.0.2.1", communities: []uint32{GracefulShutdown}},
	)
	b.announce(
		announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.2"},
		announcement{prefix: "10.5.0.0/16", nextHop: "192.0.2.2", path: []uint32{65009, 65009, 65009}},
	)
	// The path that is about to go is used only where there is no other (RFC 8326).
	g.routes("10.1.0.0/16 via 192.0.2.1 192.0.2.2", "10.2.0.0/16 via 192.0.2.1", "10.3.0.0/16 via 192.0.2.1",
		"10.4.0.0/16 via 192.0.2.1", "10.5.0.0/16 via 192.0.2.2")
	all := func(change func(*ImportRule)) []ImportRule {
		r := ImportRule{Prefix: prefix("0.0.0.0/0"), Max: 32}
		change(&r)
		return append([]ImportRule{r}, anything...)
	}
	g.set(func(c *Config) {
		c.Peers[0].Import = all(func(r *ImportRule) {
			r.Reject, r.Communities, r.LargeCommunities = true, []uint32{1, 65001<<16 | 666}, []LargeCommunity{{4200000000, 1, 2}}
		})
		c.Peers[1].Import = all(func(r *ImportRule) { r.LocalPref = new(uint32(150)) })
	})
	g.routes("10.1.0.0/16 via 192.0.2.2", "10.2.0.0/16 via 192.0.2.1", "10.5.0.0/16 via 192.0.2.2")
	g.set(func(c *Config) {
		c.Peers[0].Import = all(func(r *ImportRule) { r.ASPath = "_65010$" })[:1]
		c.Peers[1].Import = all(func(r *ImportRule) { r.ASPath, r.Reject = "^65002 65009_", true })
	})
	g.routes("10.1.0.0/16 via 192.0.2.2", "10.2.0.0/16 via 192.0.2.1")
	for _, u := range []*upstream{a, b} {
		if p := g.peerState(u.addr); p.Flaps != 0 {
			t.Errorf("%+v", p)
		}
	}
}

// TestPrefixWarning warns before the limit, and at it where that is all it does.
func TestPrefixWarning(t *testing.T) {
	t.Parallel()
	g, log := newLoggedGateway(t)
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort})
	g.set(func(c *Config) {
		c.Peers = []Peer{u.peer(anything...)}
		c.Peers[0].MaxPrefixes, c.Peers[0].MaxPrefixesWarning, c.Peers[0].MaxPrefixesWarnOnly = 4, 50, true
	})
	warns := func(want string) {
		t.Helper()
		g.awaits("warning", func(State) error {
			if p := g.peerState(u.addr); p.Warning != want || want != "" && !strings.Contains(log.String(), want[len("sent N"):]) {
				return fmt.Errorf("warning %q, want %q", p.Warning, want)
			}
			return nil
		})
	}
	for i := range 6 {
		u.announce(announcement{prefix: fmt.Sprintf("10.%d.0.0/16", i)})
		switch i {
		case 1:
			g.established(u)
			warns("")
		case 2:
			warns("sent 3 prefixes, more than 50% of the limit of 4")
		case 5:
			warns("sent 6 prefixes, more than the limit of 4")
		}
	}
	if p := g.peerState(u.addr); p.State != established || p.Flaps != 0 || p.Accepted != 6 {
		t.Errorf("%+v", p)
	}
	for i := range 5 {
		u.withdraw(fmt.Sprintf("10.%d.0.0/16", i))
	}
	warns("")
	// Closed for as long as the peer says.
	g.set(func(c *Config) {
		c.Peers[0].MaxPrefixes, c.Peers[0].MaxPrefixesWarnOnly, c.Peers[0].MaxPrefixesRestart = 1, false, time.Hour
	})
	u.announce(announcement{prefix: "10.0.0.0/16"})
	g.awaits("end of the session", func(State) error {
		if p := g.peerState(u.addr); p.State != "idle" || !strings.Contains(p.LastError, "the next attempt is in 1h0m0s") {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}
