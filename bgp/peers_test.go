package bgp

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/egret-router/egret/lab"
)

// journal is a log that a test searches.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// newLoggedGateway logs everything to the journal instead of the test's log.
func newLoggedGateway(t *testing.T) (*gateway, *journal) {
	t.Helper()
	g, log := newGateway(t, nil), &journal{}
	g.Speaker.Close(false)
	g.Speaker = newSpeaker(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), func() {},
		timing{prefixBackoff: time.Second, resync: time.Hour, sync: time.Hour})
	return g, log
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func withPassword(secret string) func(*api.Peer) {
	return func(p *api.Peer) { p.Conf.AuthPassword = secret }
}

// TestPassword has TCP-MD5 on sessions of both directions, wrong passwords with
// a clear status, and changes of the file.
func TestPassword(t *testing.T) {
	lab.Require(t, lab.Root)
	t.Parallel()
	for _, passive := range []bool{false, true} {
		t.Run(fmt.Sprintf("passive %t", passive), func(t *testing.T) {
			t.Parallel()
			g, log := newLoggedGateway(t)
			c := upstreamConfig{addr: "127.0.0.2", asn: 65001, change: withPassword("correct horse")}
			if passive {
				c.addr, c.gateway = "127.0.0.3", g.config.ListenPort
			}
			u := startUpstream(t, c)
			file := secretFile(t, "battery staple\n")
			g.set(func(c *Config) {
				c.Peers = []Peer{u.peer()}
				c.Peers[0].PasswordFile = file
				c.Advertise = advertise("198.51.100.0/28")
			})
			want := timeoutHint
			if passive {
				want = passwordHint
			}
			g.awaits("the hint", func(State) error {
				if p := g.peerState(u.addr); !strings.HasSuffix(p.LastError, want) {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})
			if err := os.WriteFile(file, []byte("correct horse"), 0o600); err != nil {
				t.Fatal(err)
			}
			g.set(nil)
			g.established(u)
			u.wants("198.51.100.0/28")
			// A file that is gone changes nothing.
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			g.set(nil)
			if p := g.peerState(u.addr); p.State != established || p.Flaps != 0 || !strings.Contains(p.LastError, "no such file") {
				t.Errorf("after the file is gone: %+v", p)
			}
			// Nor does the same password from elsewhere; none at all does.
			t.Run("environment", func(t *testing.T) {
				name := "EGRET_TEST_PASSWORD_" + fmt.Sprint(passive)
				os.Setenv(name, "correct horse")
				g.set(func(c *Config) { c.Peers[0].PasswordFile, c.Peers[0].PasswordEnv = "", name })
			})
			if p := g.peerState(u.addr); p.State != established || p.Flaps != 0 {
				t.Errorf("the same password: %+v", p)
			}
			g.set(func(c *Config) { c.Peers[0].PasswordEnv = "" })
			u.stop()
			c.change, c.port = nil, u.port
			u = startUpstream(t, c)
			g.established(u)
			if s := fmt.Sprintf("%+v", g.State()) + log.String(); strings.Contains(s, "horse") || strings.Contains(s, "staple") {
				t.Error("a password is in the log or the state")
			}
		})
	}
}

func TestPasswordUnreadable(t *testing.T) {
	for want, p := range map[string]Peer{
		"no such file or directory":  {PasswordFile: "/nonexistent/password"},
		"it is empty":                {PasswordFile: secretFile(t, "\n")},
		"more than one line":         {PasswordFile: secretFile(t, "a\nb\n")},
		"longer than 80 bytes":       {PasswordFile: secretFile(t, strings.Repeat("x", 81))},
		`"EGRET_NOT_SET" is not set`: {PasswordEnv: "EGRET_NOT_SET"},
	} {
		if _, err := p.password(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for want, p := range map[string]Peer{
		strings.Repeat("x", 80): {PasswordFile: secretFile(t, strings.Repeat("x", 80)+"\r\n")},
		"":                      {},
	} {
		if got, err := p.password(); err != nil || got != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
	text := "TcpExt: A TCPMD5NotFound B TCPMD5Failure TCPMD5Unexpected\nTcpExt: 1 2 3 4\nIpExt: X\nIpExt: 9\n"
	if n := parseMD5Discarded(strings.NewReader(text)); n != 6 {
		t.Errorf("%d segments", n)
	}
	// One peer without its password does not keep another from coming up.
	t.Parallel()
	g := newGateway(t, nil)
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001})
	g.set(func(c *Config) {
		c.Peers = []Peer{u.peer(), {Address: addr("127.0.0.9"), ASN: 65009, PasswordFile: "/nonexistent/password"}}
	})
	g.established(u)
	if p := g.peerState(addr("127.0.0.9")); p.State != "idle" || !strings.Contains(p.LastError, "no such file") {
		t.Errorf("the other: %+v", p)
	}
}

// TestTTLSecurity has GTSM on both sides; a peer that sends with a low TTL does
// not come up.
func TestTTLSecurity(t *testing.T) {
	t.Parallel()
	secure := func(p *api.Peer) { p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 255} }
	g := newGateway(t, nil)
	a := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, change: secure})
	b := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65002, gateway: g.config.ListenPort, change: secure})
	bad := startUpstream(t, upstreamConfig{addr: "127.0.0.4", asn: 65003, gateway: g.config.ListenPort})
	g.set(func(c *Config) {
		c.Peers = []Peer{a.peer(), b.peer(), bad.peer()}
		for i := range c.Peers {
			c.Peers[i].TTLSecurity = 1
		}
	})
	g.established(a, b)
	if p := g.peerState(bad.addr); p.State == established {
		t.Errorf("%+v", p)
	}
	g.set(func(c *Config) { c.Peers[2].TTLSecurity = 0 })
	// Its connection hangs with everything discarded: it has to begin anew.
	bad.stop()
	bad = startUpstream(t, upstreamConfig{addr: "127.0.0.4", asn: 65003, gateway: g.config.ListenPort})
	g.established(a, b, bad)
	if p := g.peerState(a.addr); p.Flaps != 0 {
		t.Errorf("%+v", p)
	}
}

func TestLocalASN(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, expect: 65100})
	g.set(func(c *Config) {
		c.Peers = []Peer{u.peer(anything...)}
		c.Peers[0].LocalASN = 65100
		c.Advertise = []Advertisement{{Prefix: prefix("198.51.100.0/28"), Attributes: Attributes{Prepend: new(uint8(1))}}}
	})
	g.established(u)
	u.has("198.51.100.0/28", learned{nextHop: "127.0.0.1", path: []uint32{65100, 65100}})
	// Paths with either of our ASNs are loops.
	u.announce(announcement{prefix: "10.1.0.0/16", path: []uint32{65100}}, announcement{prefix: "10.2.0.0/16", path: []uint32{gatewayASN}},
		announcement{prefix: "10.3.0.0/16", path: []uint32{65009}})
	g.routes("10.3.0.0/16 via 192.0.2.1")
}

// TestShutdown shuts a session down and opens it again, in place.
func TestShutdown(t *testing.T) {
	t.Parallel()
	g := newGateway(t, func(c *Config) { c.GracefulRestart = &GracefulRestart{RestartTime: 60 * time.Second} })
	var log journal
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort, restart: true, log: &log})
	g.set(func(c *Config) {
		c.Peers = []Peer{u.peer(anything...)}
		c.Peers[0].Description = "the one in the cellar"
		c.Peers[0].Shutdown, c.Peers[0].ShutdownMessage = true, "not yet"
		c.Advertise = advertise("198.51.100.0/28")
	})
	down := func(message string) {
		t.Helper()
		g.awaits("shutdown", func(State) error {
			if p := g.peerState(u.addr); p.State != "idle" || !p.Shutdown || !strings.Contains(p.LastError, message) {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
	}
	down("")
	g.set(func(c *Config) { c.Peers[0].Shutdown = false })
	g.established(u)
	u.announce(announcement{prefix: "10.1.0.0/16"})
	u.wants("198.51.100.0/28")
	g.routes("10.1.0.0/16 via 192.0.2.1")
	g.set(func(c *Config) { c.Peers[0].Shutdown, c.Peers[0].ShutdownMessage = true, "back at noon" })
	g.routes()
	u.wants()
	down(`sent NOTIFICATION 6/2 cease: administrative shutdown "back at noon"`)
	if text := log.String(); !strings.Contains(text, `Communicated-Reason="back at noon"`) {
		t.Errorf("the peer heard %s", text)
	}
	g.set(func(c *Config) { c.Peers[0].Shutdown = false })
	g.established(u)
	u.wants("198.51.100.0/28")
	if p := g.peerState(u.addr); p.Flaps != 1 || p.Description != "the one in the cellar" {
		t.Errorf("%+v", p)
	}
}

// TestRange takes sessions from a range of addresses, up to a bound.
func TestRange(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("graceful restart %t", restart), func(t *testing.T) {
			t.Parallel()
			g, log := newLoggedGateway(t)
			if restart {
				g.config.GracefulRestart = &GracefulRestart{RestartTime: 60 * time.Second}
			}
			start := func(a string) *upstream {
				return startUpstream(t, upstreamConfig{addr: a, asn: 65001, gateway: g.config.ListenPort, restart: restart})
			}
			a, b := start("127.0.0.2"), start("127.0.0.3")
			g.set(func(c *Config) {
				c.Peers = []Peer{{Range: prefix("127.0.0.0/29"), ASN: 65001, MaxSessions: 2, Import: anything, Export: Attributes{MED: new(uint32(7))}}}
				c.Advertise = advertise("198.51.100.0/28")
			})
			g.established(a, b)
			for _, u := range []*upstream{a, b} {
				u.has("198.51.100.0/28", learned{nextHop: "127.0.0.1", med: "7", path: []uint32{gatewayASN}})
			}
			a.announce(announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.2"})
			b.announce(announcement{prefix: "10.1.0.0/16", nextHop: "192.0.2.3"}, announcement{prefix: "10.2.0.0/16", nextHop: "192.0.2.3"})
			g.routes("10.1.0.0/16 via 192.0.2.2 192.0.2.3", "10.2.0.0/16 via 192.0.2.3")
			// In place: import and export.
			g.set(func(c *Config) {
				c.Peers[0].Import, c.Peers[0].Export = []ImportRule{{Prefix: prefix("10.2.0.0/16"), Min: 16, Max: 16}}, Attributes{}
			})
			g.routes("10.2.0.0/16 via 192.0.2.3")
			a.has("198.51.100.0/28", learned{nextHop: "127.0.0.1", path: []uint32{gatewayASN}})
			if p := g.peerState(a.addr); p.Flaps != 0 || p.Range != prefix("127.0.0.0/29") {
				t.Errorf("%+v", p)
			}
			// One too many stays out, until one leaves.
			c := start("127.0.0.4")
			lab.Eventually(t, deadline, "refusal", func() error {
				if text := log.String(); !strings.Contains(text, `too many from the range" network=red peer=127.0.0.4`) {
					return fmt.Errorf("log %s", text)
				}
				return nil
			})
			for _, u := range []*upstream{a, b} {
				if p := g.peerState(u.addr); p.State != established || p.Flaps != 0 {
					t.Errorf("%+v", p)
				}
			}
			a.stop()
			g.established(b, c)
			// A limit ends the session.
			g.set(func(c *Config) { c.Peers[0].MaxPrefixes = 1 })
			b.wants()
			g.set(func(c *Config) { c.Peers[0].MaxPrefixes = 0 })
			g.established(b, c)
			g.set(func(c *Config) { c.Peers = nil })
			b.wants()
			c.wants()
			if p := g.state().Peers; len(p) != 0 {
				t.Errorf("left are %+v", p)
			}
			g.set(func(cfg *Config) {
				cfg.Peers = []Peer{{Range: prefix("127.0.0.0/29"), ASN: 65001, Import: anything}}
			})
			g.established(b, c)
		})
	}
}
