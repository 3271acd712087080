package acceptance

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// samePort is the clients' source port, the same for all.
const samePort = 44444

// TestOverlap is the heart of it: two clients with one source port talk to one
// destination at the same time, through two networks that even have the same
// egress address, and each reaches its own network's server: TCP, UDP, ICMP,
// IPv4 and IPv6.
func TestOverlap(t *testing.T) {
	one := options{redPools: `198.51.100.7/32, "2001:db8:51::7/128"`, bluePools: `198.51.100.7/32, "2001:db8:51::7/128"`}
	g := topology(t, lab.OverlapOptions{})
	g.start(one.config())
	g.up(one)
	t.Run("tcp", func(t *testing.T) { g.sameTCP(t, one) })
	t.Run("udp", func(t *testing.T) { g.sameUDP(t, one) })
	t.Run("icmp", func(t *testing.T) { g.sameICMP(t) })
	t.Run("http", func(t *testing.T) {
		for _, c := range clients {
			g.answer(c, teamNetwork(c), one.pools(teamNetwork(c)))
		}
	})
	if n := insertFailed(t, g); n != 0 {
		t.Errorf("conntrack insert_failed is %d, want 0", n)
	}
}

// sameTCP holds connections of all clients open at once, and uses each after
// all are up.
func (g *gateway) sameTCP(t *testing.T, o options) {
	open := map[string]*traffic.Connection{}
	for _, c := range clients {
		source := netip.MustParseAddr(c)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		x, err := g.Exchange(ctx, netip.AddrPortFrom(source, samePort), server(source))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		open[c] = x
	}
	for c, x := range open {
		if err := x.Exchange("hello from "+c, patience); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		if err := sawPool(x.Server, teamNetwork(c), o.pools(teamNetwork(c))); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		if x.Server.Client.Port() != samePort {
			t.Errorf("%s: the server saw port %d: with zones nobody has to give way", c, x.Server.Client.Port())
		}
	}
}

func (g *gateway) sameUDP(t *testing.T, o options) {
	var asks sync.WaitGroup
	for _, c := range clients {
		source := netip.MustParseAddr(c)
		asks.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var a traffic.Answer
			err := g.Client.Do(func() (err error) {
				a, err = traffic.AskUDP(ctx, netip.AddrPortFrom(source, samePort), netip.AddrPortFrom(server(source), lab.UDPPort))
				return err
			})
			if err == nil {
				err = sawPool(a, teamNetwork(c), o.pools(teamNetwork(c)))
			}
			if err != nil {
				t.Errorf("%s: %v", c, err)
			}
		})
	}
	asks.Wait()
}

// sameICMP pings with every client at once, and then with one after the other:
// the sniffers at the routers tell that only its own network carried it.
func (g *gateway) sameICMP(t *testing.T) {
	const count = 10
	ping := func(t *testing.T, client string) {
		source := netip.MustParseAddr(client)
		var r traffic.StreamReport
		err := g.Client.Do(func() (err error) {
			r, err = traffic.Ping(t.Context(), source, server(source), count, 50*time.Millisecond)
			return err
		})
		if err != nil || r.Lost > 0 {
			t.Errorf("%s: %d of %d echo requests lost (%v, %s)", client, r.Lost, r.Sent, err, r.LastError)
		}
	}
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() { ping(t, c) })
	}
	all.Wait()
	for _, c := range clients {
		seen := map[string]traffic.SniffReport{}
		sniffers := map[string]*traffic.Sniffer{}
		for _, u := range g.Upstreams() {
			s, err := g.Sniff(u.Name)
			if err != nil {
				t.Fatal(err)
			}
			sniffers[u.Name] = s
		}
		ping(t, c)
		for name, s := range sniffers {
			r, err := s.Stop()
			if err != nil {
				t.Fatal(err)
			}
			seen[name] = r
		}
		// What is not allowed here are packets from the pool's one address.
		for name, r := range seen {
			if own := name == teamNetwork(c); own && r.Leaked < count || !own && r.Leaked > 0 {
				t.Errorf("%s belongs to %s, and %s carried %d packets", c, teamNetwork(c), name, r.Leaked)
			}
		}
	}
}

var insertFailedField = regexp.MustCompile(`insert_failed=(\d+)`)

func insertFailed(t *testing.T, g *gateway) int {
	t.Helper()
	out := g.Gateway.Must("conntrack", "-S")
	fields := insertFailedField.FindAllStringSubmatch(out, -1)
	if len(fields) == 0 {
		t.Fatalf("no insert_failed in %q", out)
	}
	sum := 0
	for _, f := range fields {
		n, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestPoolsStayInTheirNetwork: no router learns the other network's pool, and
// nothing but pools.
func TestPoolsStayInTheirNetwork(t *testing.T) {
	g := topology(t, lab.OverlapOptions{})
	g.start(options{}.config())
	g.up(options{})
	for _, u := range g.Upstreams() {
		want := map[netip.Prefix]bool{}
		for _, p := range (options{}).pools(u.Name) {
			want[p] = true
		}
		for _, f := range lab.Families() {
			routes, err := u.Router.Routes(f)
			if err != nil {
				t.Fatal(err)
			}
			filtered, err := u.Router.Filtered(f)
			if err != nil {
				t.Fatal(err)
			}
			for p := range routes {
				if !want[p] {
					t.Errorf("%s learned %s, which is not its pool", u.Name, p)
				}
				delete(want, p)
			}
			if len(filtered) > 0 {
				t.Errorf("%s was sent %v, which no pool of these tests contains", u.Name, filtered)
			}
		}
		if len(want) > 0 {
			t.Errorf("%s did not learn %v", u.Name, want)
		}
	}
	t.Run("sticky", func(t *testing.T) { g.sticky(t) })
}

// sticky: a client keeps its address, whatever port it comes from.
func (g *gateway) sticky(t *testing.T) {
	for _, c := range clients {
		source := netip.MustParseAddr(c)
		seen := map[netip.Addr]bool{}
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			a, err := g.Ask(ctx, netip.AddrPortFrom(source, 0), server(source))
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			seen[a.Client.Addr()] = true
		}
		if len(seen) != 1 {
			t.Errorf("%s was seen as %s: a client keeps its address", c, fmt.Sprint(seen))
		}
	}
}
