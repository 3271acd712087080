package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/osrg/gobgp/v4/api"
)

// TestErrors has a session fail in all the ways that users meet. It also holds
// the words of GoBGP's log that sessionError knows.
func TestErrors(t *testing.T) {
	t.Parallel()
	shutdown := func(u *upstream) {
		err := u.bgp.ShutdownPeer(context.Background(), &api.ShutdownPeerRequest{
			Address: gatewayAddress.String(), Communication: "back\x1b[2J at noon",
		})
		if err != nil {
			u.t.Error(err)
		}
	}
	for name, c := range map[string]struct {
		upstream upstreamConfig
		asn      uint32 // of the peer, as configured in the gateway
		passive  bool
		after    func(*upstream) // once the session is up, if any
		want     string
	}{
		"wrong peer ASN, dialled": {
			asn: 65009, want: "sent NOTIFICATION 2/2 OPEN message error: bad peer AS",
		},
		"wrong peer ASN, accepted": {
			asn: 65009, passive: true, want: "sent NOTIFICATION 2/2 OPEN message error: bad peer AS",
		},
		"wrong ASN of ours": {
			upstream: upstreamConfig{expect: 64513}, want: refusedHint,
		},
		"shut down": {
			after: shutdown, want: `received NOTIFICATION 6/2 cease: administrative shutdown "back [2J at noon"`,
		},
		"de-configured": {
			after: (*upstream).stop, want: "received NOTIFICATION 6/3 cease: peer de-configured",
		},
		"connection lost": {
			after: (*upstream).die, upstream: upstreamConfig{restart: true}, want: "connection closed by the peer or lost",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, nil)
			c.upstream.addr, c.upstream.asn = "127.0.0.2", 65001
			if c.passive {
				c.upstream.gateway = g.config.ListenPort
			}
			u := startUpstream(t, c.upstream)
			g.set(func(cfg *Config) {
				if c.upstream.restart {
					cfg.GracefulRestart = &GracefulRestart{RestartTime: 120e9}
				}
				p := u.peer(anything...)
				if c.asn != 0 {
					p.ASN = c.asn
				}
				cfg.Peers = []Peer{p}
			})
			if c.after != nil {
				g.established(u)
				// With all said by both sides: a peer that closes with something
				// unread resets the connection, and the reset overtakes its NOTIFICATION.
				g.set(func(cfg *Config) { cfg.Advertise = []Advertisement{{Prefix: prefix("198.51.100.0/24")}} })
				u.announce(announcement{prefix: "203.0.113.0/24"})
				u.wants("198.51.100.0/24")
				g.routes("203.0.113.0/24 via 192.0.2.1")
				c.after(u)
			}
			// Errors of later attempts follow; watch for the first.
			seen := map[string]bool{}
			g.awaits("error", func(State) error {
				p := g.peerState(addr("127.0.0.2"))
				seen[p.LastError] = true
				if strings.Contains(p.LastError, c.want) {
					return nil
				}
				return fmt.Errorf("saw %v", seen)
			})
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	g.set(func(c *Config) {
		c.Peers = []Peer{{Address: addr("127.0.0.2"), ASN: 65001, Port: uint16(freePort(t))}}
	})
	g.awaits("error", func(State) error {
		p := g.peerState(addr("127.0.0.2"))
		if !strings.HasPrefix(p.LastError, "connect: ") || !strings.HasSuffix(p.LastError, "connection refused") || p.State != "active" {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	// A peer that was never up may be changed and removed.
	g.set(func(c *Config) { c.Peers[0].ConnectRetry = 2e9 })
	if s := g.network("red").session(netip.MustParseAddr("127.0.0.2")); s.peer.ConnectRetry != 2e9 {
		t.Errorf("connect retry is %v", s.peer.ConnectRetry)
	}
	g.set(func(c *Config) { c.Peers = nil })
	if p := g.state().Peers; len(p) != 0 {
		t.Errorf("peers %+v", p)
	}
}
