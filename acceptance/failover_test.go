package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// TestBlackHoleBeyondTheRouter: the link behind red's router is cut while BGP
// stays up. Red's pools are withdrawn and its clients' traffic fails closed,
// blue loses nothing, and all comes back when the link does.
func TestBlackHoleBeyondTheRouter(t *testing.T) {
	g := topology(t, lab.OverlapOptions{})
	g.start(options{}.config())
	g.up(options{})
	for _, c := range clients {
		g.explains(t, c, 0, "forwarded (network)")
	}
	stop := g.streams(traffic.UDP, teamB...)
	begin := time.Now()
	step := func(what string) { t.Logf("%5.1f s  %s", time.Since(begin).Seconds(), what) }
	if err := g.CutBeyond("red"); err != nil {
		t.Fatal(err)
	}
	g.phases("Down", "Up")
	step("red is down")
	for _, p := range (options{}).pools("red") {
		if err := g.Red.Router.WaitRoute(t.Context(), patience, p, false); err != nil {
			t.Error(err)
		}
	}
	if err := g.Red.Router.WaitEstablished(t.Context(), patience); err != nil {
		t.Errorf("the session should have stayed: %v", err)
	}
	step("its pools are withdrawn")
	for _, c := range teamA {
		g.explains(t, c, 2, "DROPPED")
	}
	g.failsClosed(t)
	step("its clients' traffic fails closed")
	g.empty("while red is down")
	step("the plan is empty")
	if err := g.Heal("red"); err != nil {
		t.Fatal(err)
	}
	g.up(options{})
	step("red is up again")
	for _, c := range teamA {
		g.answer(c, "red", options{}.pools("red"))
		step(c + " is answered")
	}
	for c, r := range stop() {
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("blue's %s lost %d of %d while red was down: %+v", c, r.Lost, r.Sent, r.Gaps)
		}
	}
}

// explains asks what becomes of a client's traffic: the exit code, and what the
// last line says. The kernel never disagrees.
func (g *gateway) explains(t *testing.T, client string, code int, result string) {
	t.Helper()
	out, err := g.Egret("explain", "--config", g.ConfigPath(), "--src", client, "--dst", server(netip.MustParseAddr(client)).String(),
		"--proto", "tcp", "--sport", "44444", "--dport", "80")
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if got != code || !strings.Contains(out, result) || strings.Contains(out, "DISAGREEMENT") {
		t.Errorf("explain %s: exit code %d (%v), want %d and %q:\n%s", client, got, err, code, result, out)
	}
}

// failsClosed: while red is down nothing of team a leaves the gateway, neither
// by red nor by any other way.
func (g *gateway) failsClosed(t *testing.T) {
	t.Helper()
	var sniffers []*traffic.Sniffer
	for _, u := range g.Upstreams() {
		s, err := g.Sniff(u.Name, options{}.pools("blue")...)
		if err != nil {
			t.Fatal(err)
		}
		sniffers = append(sniffers, s)
	}
	for _, c := range teamA {
		source := netip.MustParseAddr(c)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if a, err := g.Ask(ctx, netip.AddrPortFrom(source, 0), server(source)); err == nil {
			t.Errorf("%s was answered (%s) while red is down", c, a)
		}
		cancel()
	}
	for i, s := range sniffers {
		r, err := s.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if r.Leaked > 0 {
			t.Errorf("%d packets left by %s while red is down, the first: %s", r.Leaked, g.Upstreams()[i].Name, r.Leaks[0].Packet)
		}
	}
}

// TestKillAndRestart: kill -9 and restart under traffic. No established
// connection breaks, no packet of a steady ping is lost, the routers never
// lose the pools, and `egret plan` has nothing to change, without the daemon
// and with it.
func TestKillAndRestart(t *testing.T) {
	g := topology(t, lab.OverlapOptions{})
	g.start(options{}.config())
	g.up(options{})

	watch := g.watchRIBs()
	stopPings := g.streams(traffic.ICMP, clients...)
	stopExchanges := g.exchanges()
	g.daemon.Kill9()
	if out, err := g.Egret("plan", "--config", g.ConfigPath()); err != nil || out != "nothing to change\n" {
		t.Errorf("plan while no daemon runs: %v\n%s", err, out)
	}
	g.start(options{}.config())
	g.up(options{})
	g.synced()
	g.empty("after the restart")

	for c, r := range stopPings() {
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("%s lost %d of %d echo requests over the restart: %+v", c, r.Lost, r.Sent, r.Gaps)
		}
	}
	for c, r := range stopExchanges() {
		if r.Broken || r.Exchanges == 0 {
			t.Errorf("%s: the connection broke after %d exchanges: %s", c, r.Exchanges, r.Error)
		}
	}
	if err := watch(); err != nil {
		t.Error(err)
	}
	if strings.Contains(g.daemon.Log(), "operations=") {
		t.Errorf("the restarted daemon changed the kernel:\n%s", g.daemon.Log())
	}
}

// synced waits until the restarted daemon has its routes from the peers again.
func (g *gateway) synced() {
	g.t.Helper()
	lab.Eventually(g.t, patience, "learned routes in sync", func() error {
		s, err := g.status()
		if err != nil {
			return err
		}
		for _, n := range s.Networks {
			if n.Stale || n.LearnedRoutes != 2 {
				return fmt.Errorf("%s is not in sync yet: stale %v, %d routes learned", n.Name, n.Stale, n.LearnedRoutes)
			}
		}
		return nil
	})
}

// exchanges keeps a TCP connection of every client busy until stop.
func (g *gateway) exchanges() (stop func() map[string]traffic.ExchangeReport) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	done := map[string]chan traffic.ExchangeReport{}
	for _, c := range clients {
		source := netip.MustParseAddr(c)
		x, err := g.Exchange(ctx, netip.AddrPortFrom(source, 0), server(source))
		if err != nil {
			cancel()
			g.t.Fatal(err)
		}
		ch := make(chan traffic.ExchangeReport, 1)
		done[c] = ch
		go func() { ch <- x.Run(ctx, 50*time.Millisecond, patience) }()
	}
	return func() map[string]traffic.ExchangeReport {
		cancel()
		out := map[string]traffic.ExchangeReport{}
		for c, ch := range done {
			out[c] = <-ch
		}
		return out
	}
}

// watchRIBs polls both routers until the returned function is called, which
// reports the first time a pool was missing.
func (g *gateway) watchRIBs() func() error {
	ctx, cancel := context.WithCancel(g.t.Context())
	result := make(chan error, 1)
	go func() { result <- g.pollRIBs(ctx) }()
	return func() error {
		cancel()
		return <-result
	}
}

func (g *gateway) pollRIBs(ctx context.Context) error {
	// Asking costs the emulated machine more than anything else here does.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, u := range g.Upstreams() {
			for _, p := range (options{}).pools(u.Name) {
				routes, err := u.Router.Routes(lab.FamilyOf(p.Addr()))
				if err != nil {
					return err
				}
				if _, ok := routes[p]; !ok {
					return fmt.Errorf("%s's router lost the pool %s", u.Name, p)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
