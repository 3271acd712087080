package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// drainConfig waits much longer than any step takes: nothing here is to happen
// by a deadline.
func drainConfig(shutdown string) string {
	return options{more: "drain: {delay: 2s, deadline: 30m}\nshutdown: " + shutdown}.config()
}

// TestDrain takes red out of use under load, over a kill -9, and into use again;
// then the daemon drains at its end.
func TestDrain(t *testing.T) {
	g := topology(t, lab.OverlapOptions{})
	// UDP flows end when they are forgotten: late enough for a machine that stands
	// still for seconds, and soon enough to wait for.
	for _, setting := range []string{"netfilter.nf_conntrack_udp_timeout=40", "netfilter.nf_conntrack_udp_timeout_stream=40", "netfilter.nf_flowtable_udp_timeout=20"} {
		_, _ = g.Gateway.Run("sysctl", "-qw", "net."+setting) // the flowtable's is there with the first of them
	}
	for _, a := range newcomers {
		if err := g.AddClient(netip.MustParseAddr(a)); err != nil {
			t.Fatal(err)
		}
	}
	g.start(drainConfig("leave"))
	g.up(options{})
	g.drainRed(t)
	g.undrainRed(t)
	g.cutAtTheDeadline(t)
	g.drainAtTheEnd(t)
}

// newcomers are clients of team a without any flow.
var newcomers = []string{"10.244.1.77", "fd00:244:1::77"}

// drainRed: the streams and connections of red go on to their end, whatever
// happens to the daemon; blue's notice nothing.
func (g *gateway) drainRed(t *testing.T) {
	stopRed, stopBlue := g.streams(traffic.UDP, teamA...), g.streams(traffic.UDP, teamB...)
	stopPings := g.streams(traffic.ICMP, teamB...)
	stopExchanges := g.exchanges()
	step := g.stopwatch(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := g.Gateway.Start("drain", path, "drain", "network", "red", "--wait")
	if err != nil {
		t.Fatal(err)
	}
	g.drainStage(t, "refusing")
	step("red takes no new flows")
	g.gracefulShutdown(t, "red", true)
	g.gracefulShutdown(t, "blue", false)
	step("red's router was asked to prefer others, blue's was not")
	g.refusesNew(t)
	step("new flows are refused")

	before := g.drainOf(t)
	g.daemon.Kill9()
	g.start(drainConfig("leave"))
	g.phases("Draining", "Up")
	if after := g.drainOf(t); !after.Deadline.Equal(before.Deadline) || !after.Since.Equal(before.Since) || after.Stage != "refusing" {
		t.Errorf("the drain was %+v, and is %+v after kill -9", before, after)
	}
	g.synced()
	g.empty("while red is drained")
	g.gracefulShutdown(t, "red", true)
	g.refusesNew(t)
	step("kill -9 and restart changed nothing")

	g.noneLost(t, "red", stopRed())
	for c, r := range stopExchanges() {
		if r.Broken || r.Exchanges == 0 || r.Server.Server != teamNetwork(c) {
			t.Errorf("%s: broken %v after %d exchanges with %s: %s", c, r.Broken, r.Exchanges, r.Server, r.Error)
		}
	}
	step("red's flows have ended")
	g.drainStage(t, "withdrawn")
	for _, p := range (options{}).pools("red") {
		if err := g.Red.Router.WaitRoute(t.Context(), patience, p, false); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = waiting.Wait(ctx)
	t.Logf("egret drain --wait:\n%s", waiting.Log())
	if out := waiting.Stdout(); err != nil || waiting.ExitCode() != 0 || !strings.Contains(out, "red: withdrawn; ") || !strings.Contains(out, ", 0 were left\n") {
		t.Errorf("egret drain --wait ended with %v", err)
	}
	if d := g.drainOf(t); d.FlowsBegun < 4 || d.FlowsEnded != d.FlowsBegun || d.FlowsLeft != 0 {
		t.Errorf("two streams and two connections, but %+v", d)
	}
	step("red is withdrawn")
	g.noneLost(t, "blue", stopBlue())
	g.noneLost(t, "blue", stopPings())
}

func (g *gateway) noneLost(t *testing.T, network string, reports map[string]traffic.StreamReport) {
	t.Helper()
	for c, r := range reports {
		t.Logf("%s's %s: %d sent, %d lost", network, c, r.Sent, r.Lost)
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("%s's %s lost %d of %d packets: %+v", network, c, r.Lost, r.Sent, r.Gaps)
		}
	}
}

// stopwatch logs when something was seen.
func (g *gateway) stopwatch(t *testing.T) func(what string) {
	begin := time.Now()
	return func(what string) { t.Logf("%5.1f s  %s", time.Since(begin).Seconds(), what) }
}

// drainOf is red's drain.
func (g *gateway) drainOf(t *testing.T) egress.DrainStatus {
	t.Helper()
	s, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Networks {
		if n.Name == "red" && n.Drain != nil {
			return *n.Drain
		}
	}
	t.Fatal("red is not drained")
	return egress.DrainStatus{}
}

func (g *gateway) drainStage(t *testing.T, stage string) {
	t.Helper()
	lab.Eventually(t, patience+time.Minute, "red "+stage, func() error {
		s, err := g.status()
		if err != nil {
			return err
		}
		for _, n := range s.Networks {
			if n.Name == "red" && n.Drain != nil && string(n.Drain.Stage) == stage {
				return nil
			}
		}
		return fmt.Errorf("%+v", s.Networks[slices.IndexFunc(s.Networks, func(n egress.NetworkStatus) bool { return n.Name == "red" })].Drain)
	})
}

// gracefulShutdown waits until a router has all pools of its network with the
// community 65535:0, or without.
func (g *gateway) gracefulShutdown(t *testing.T, network string, want bool) {
	t.Helper()
	for _, p := range (options{}).pools(network) {
		lab.Eventually(t, patience, fmt.Sprintf("%s at %s's router, graceful shutdown %v", p, network, want), func() error {
			command, community := "show bgp ipv4 unicast "+p.String(), "Community: graceful-shutdown"
			if p.Addr().Is6() {
				command = "show bgp ipv6 unicast " + p.String()
			}
			router := g.Red.Router
			if network == "blue" {
				router, command, community = g.Blue.Router, "show route all for "+p.String(), "(65535,0)"
			}
			words := []string{command}
			if network == "blue" {
				words = strings.Fields(command)
			}
			out, err := router.Command(words...)
			if err != nil {
				return err
			}
			if !strings.Contains(out, p.String()) || strings.Contains(out, community) != want {
				return errors.New(out)
			}
			return nil
		})
	}
}

// refusesNew: a client without flows is discarded, says explain and finds the
// client, and counted; one of blue is served.
func (g *gateway) refusesNew(t *testing.T) {
	t.Helper()
	before := g.refused(t)
	for _, c := range newcomers {
		source := netip.MustParseAddr(c)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if a, err := g.Ask(ctx, netip.AddrPortFrom(source, 0), server(source)); err == nil {
			t.Errorf("%s was answered (%s) by a network that takes no new flows", c, a)
		}
		cancel()
		g.explains(t, c, 2, "DROPPED")
	}
	for _, c := range teamB {
		g.answer(c, "blue", options{}.pools("blue"))
		g.explains(t, c, 0, "forwarded (network)")
	}
	lab.Eventually(t, patience, "refused packets in the status", func() error {
		if n := g.refused(t); n < before+2 {
			return fmt.Errorf("%d packets, %d before", n, before)
		}
		return nil
	})
}

// refused counts the packets that a drained network refused.
func (g *gateway) refused(t *testing.T) uint64 {
	t.Helper()
	s, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range s.Drops {
		if d.Reason == "draining" {
			return d.Packets
		}
	}
	return 0
}

// undrainRed brings all of it back.
func (g *gateway) undrainRed(t *testing.T) {
	t.Helper()
	if out, err := g.Egret("undrain", "network", "red"); err != nil {
		t.Fatalf("undrain: %v\n%s", err, out)
	}
	if out, err := g.Egret("undrain", "network", "red"); err == nil || !strings.Contains(err.Error(), "not drained") {
		t.Errorf("undrain twice: %v\n%s", err, out)
	}
	g.up(options{})
	g.gracefulShutdown(t, "red", false)
	for _, c := range append(newcomers, teamA...) {
		g.answer(c, "red", options{}.pools("red"))
		g.explains(t, c, 0, "forwarded (network)")
	}
	g.empty("after undrain")
}

// cutAtTheDeadline: who asks for it has the connections that are left ended, and
// their clients are told.
func (g *gateway) cutAtTheDeadline(t *testing.T) {
	t.Helper()
	broken := make(chan traffic.ExchangeReport, len(teamA))
	for _, c := range teamA {
		source := netip.MustParseAddr(c)
		x, err := g.Exchange(t.Context(), netip.AddrPortFrom(source, 0), server(source))
		if err != nil {
			t.Fatal(err)
		}
		go func() { broken <- x.Run(t.Context(), 50*time.Millisecond, patience) }()
	}
	stopBlue := g.streams(traffic.UDP, teamB...)
	out, err := g.Egret("drain", "network", "red", "--delay", "0s", "--deadline", "4s", "--cut", "--wait")
	t.Logf("egret drain --cut --wait:\n%s", out)
	if err != nil || !strings.Contains(out, " were cut\n") {
		t.Errorf("egret drain --cut ended with %v", err)
	}
	for range teamA {
		if r := <-broken; !r.Broken || !strings.Contains(r.Error, "reset") {
			t.Errorf("a connection that was cut ended with %q after %d exchanges, want a reset", r.Error, r.Exchanges)
		}
	}
	g.noneLost(t, "blue", stopBlue())
	if out, err := g.Egret("undrain", "gateway"); err != nil {
		t.Fatalf("undrain: %v\n%s", err, out)
	}
	g.up(options{})
}

// drainAtTheEnd: told to end, the daemon waits for connections, and takes leave
// of the routers when there are none; the next start serves as ever.
func (g *gateway) drainAtTheEnd(t *testing.T) {
	g.reload(t, drainConfig("drain"))
	stop := g.exchanges()
	step := g.stopwatch(t)
	if err := g.daemon.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, u := range g.Upstreams() {
		g.gracefulShutdown(t, u.Name, true)
	}
	g.drainStage(t, "refusing")
	if !g.daemon.Running() {
		t.Fatalf("the daemon did not wait for the connections:\n%s", g.daemon.Log())
	}
	step("the gateway is drained")
	for c, r := range stop() {
		if r.Broken || r.Exchanges == 0 {
			t.Errorf("%s: the connection broke after %d exchanges: %s", c, r.Exchanges, r.Error)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience+time.Minute)
	defer cancel()
	if err := g.daemon.Wait(ctx); err != nil {
		t.Fatalf("the daemon does not end: %v\n%s", err, g.daemon.Log())
	}
	step("the daemon has ended")
	for _, u := range g.Upstreams() {
		for _, p := range (options{}).pools(u.Name) {
			if err := u.Router.WaitRoute(t.Context(), 10*time.Second, p, false); err != nil {
				t.Errorf("120 s of graceful restart after the daemon took leave: %v", err)
			}
		}
	}
	g.start(drainConfig("leave"))
	g.up(options{})
	for _, c := range clients {
		g.answer(c, teamNetwork(c), options{}.pools(teamNetwork(c)))
	}
}
