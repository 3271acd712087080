package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// Ten seconds of silence are a failure, on both sides: machines that are emulated
// on a busy host stand still for seconds.
const (
	bfdInterval = 100 * time.Millisecond
	bfdMult     = 100
)

// withBFD is the standard configuration with BFD sessions to all next hops, which
// the BGP sessions of these networks follow. No BGP session misses its peer by itself.
func withBFD(follow ...string) string {
	probe := fmt.Sprintf("    nextHopProbes: [{type: bfd, interval: %s, fall: %d}]\n    probes:\n", bfdInterval, bfdMult)
	replace := []string{"    probes:\n", probe}
	for network, number := range map[string]int{"red": lab.RedASN, "blue": lab.BlueASN} {
		asn, more := fmt.Sprintf("asn: %d, ", number), "holdTime: 600s, "
		if slices.Contains(follow, network) {
			more += "bfd: {}, "
		}
		replace = append(replace, asn, asn+more)
	}
	return strings.NewReplacer(replace...).Replace(options{}.config())
}

var (
	transferGateways = []netip.Addr{netip.MustParseAddr(lab.TransferGateway4), netip.MustParseAddr(lab.TransferGateway6)}
	transferRouters  = []netip.Addr{netip.MustParseAddr(lab.TransferRouter4), netip.MustParseAddr(lab.TransferRouter6)}
)

// TestBFD: next hops learned by BGP are probed by BFD, FRR's and BIRD's. A
// frozen router is noticed while its link is up and BGP has not missed it, and
// comes back; a restart or an upgrade of the daemon is nothing that a peer sees.
func TestBFD(t *testing.T) {
	g := topology(t, lab.OverlapOptions{BFDInterval: bfdInterval, BFDMult: bfdMult, HoldTime: 600 * time.Second})
	g.installed(t)
	g.start(withBFD())
	g.up(options{})
	g.peersAre(t, "Up", g.Upstreams()...)
	g.sessionStatus(t)
	g.frozenRouter(t)
	g.reload(t, withBFD("red", "blue")) // which ends no session
	g.up(options{})
	g.frozenPeer(t, g.Blue, teamB, teamA)
	g.frozenPeer(t, g.Red, teamA, teamB)
	g.restartsUnderBFD(t)
	g.teardownTellsPeers(t)
}

// peersAre waits until routers see all their sessions in a state.
func (g *gateway) peersAre(t *testing.T, state string, upstreams ...*lab.Upstream) {
	t.Helper()
	for _, u := range upstreams {
		for _, a := range transferGateways {
			lab.Eventually(t, patience, fmt.Sprintf("%s's session with %s %s", u.Name, a, state), func() error {
				s, err := u.Router.BFDSession(a, false)
				if err == nil && s.State != state {
					err = fmt.Errorf("%+v", s)
				}
				return err
			})
		}
	}
}

// sessionStatus: what `egret status` tells of the sessions.
func (g *gateway) sessionStatus(t *testing.T) {
	t.Helper()
	lab.Eventually(t, patience, "four sessions in the status", func() error {
		s, err := g.status()
		if err != nil {
			return err
		}
		n := 0
		for _, network := range s.Networks {
			for _, p := range network.Probes {
				if b := p.BFD; b != nil && p.Verdict == "up" && b.State == "up" && b.PeerState == "up" && b.DetectTime == bfdMult*bfdInterval && b.In > 0 {
					n++
				}
			}
		}
		if n != 4 {
			return fmt.Errorf("%d of 4: %+v", n, s.Networks)
		}
		return nil
	})
	out, err := g.Egret("status")
	if err != nil || !strings.Contains(out, "red/bfd-nexthop@"+lab.TransferRouter4) {
		t.Errorf("egret status: %v\n%s", err, out)
	}
}

// frozenRouter stops the execution of red's router: its kernel forwards, its
// link is up and so are its BGP sessions, only BFD can tell.
func (g *gateway) frozenRouter(t *testing.T) {
	t.Helper()
	stop := g.streams(traffic.UDP, teamB...)
	if err := g.Red.Router.Freeze(); err != nil {
		t.Fatal(err)
	}
	g.phases("Down", "Up")
	lab.Eventually(t, patience, "red's next hops out of their groups", func() error { return g.hopsInGroups("eth1", false) })
	s, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Networks {
		for _, h := range n.NextHops {
			reason := fmt.Sprintf("probe %s/bfd-nexthop@%s is down", n.Name, h.Address)
			if n.Name == "red" && (h.Usable || h.Reason != reason) || n.Name == "blue" && !h.Usable {
				t.Errorf("next hop of %s: %+v", n.Name, h)
			}
		}
		for _, p := range n.Peers {
			if p.State != "established" {
				t.Errorf("BGP of %s noticed, too, so BFD proves nothing: %+v", n.Name, p)
			}
		}
	}
	if err := g.hopsInGroups("eth2", true); err != nil {
		t.Errorf("blue: %v", err)
	}
	g.empty("while red's router is frozen")
	if err := g.Red.Router.Thaw(); err != nil {
		t.Fatal(err)
	}
	g.up(options{})
	g.peersAre(t, "Up", g.Upstreams()...)
	if err := g.hopsInGroups("eth1", true); err != nil {
		t.Errorf("red is up, but %v", err)
	}
	for _, c := range teamA {
		g.answer(c, "red", options{}.pools("red"))
	}
	for c, r := range stop() {
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("blue's %s lost %d of %d while red's router was frozen: %+v", c, r.Lost, r.Sent, r.Gaps)
		}
	}
}

// hopsInGroups checks whether the routers behind a port are, or are not, in the
// kernel's next-hop groups.
func (g *gateway) hopsInGroups(port string, want bool) error {
	out, err := g.Gateway.Run("ip", "-j", "nexthop", "show")
	if err != nil {
		return err
	}
	var objects []struct {
		ID      uint32     `json:"id"`
		Gateway netip.Addr `json:"gateway"`
		Device  string     `json:"dev"`
		Group   []struct {
			ID uint32 `json:"id"`
		} `json:"group"`
	}
	if err := json.Unmarshal([]byte(out), &objects); err != nil {
		return err
	}
	grouped := map[uint32]bool{}
	for _, o := range objects {
		for _, m := range o.Group {
			grouped[m.ID] = true
		}
	}
	for _, a := range transferRouters {
		in := false
		for _, o := range objects {
			in = in || o.Gateway == a && o.Device == port && grouped[o.ID]
		}
		if in != want {
			return fmt.Errorf("%s on %s in a group: %t\n%s", a, port, in, out)
		}
	}
	return nil
}

// watchSessions polls both routers until the returned function is called, which
// reports the first session that was not Up, or that had left Up meanwhile.
func (g *gateway) watchSessions() func() error {
	ctx, cancel := context.WithCancel(g.t.Context())
	result := make(chan error, 1)
	look := g.sessionLook()
	go func() {
		// Asking costs the emulated machine more than anything else here does.
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if err := look(); err != nil {
				result <- err
				return
			}
			select {
			case <-ctx.Done():
				result <- look()
				return
			case <-tick.C:
			}
		}
	}()
	return func() error {
		cancel()
		return <-result
	}
}

// sessionLook returns a function that compares the sessions with its first look:
// BIRD tells since when a session is Up, give or take the milliseconds between
// two of its clocks, FRR for how many seconds.
func (g *gateway) sessionLook() func() error {
	type key struct {
		network string
		peer    netip.Addr
	}
	first := map[key]lab.BFDSession{}
	return func() error {
		var errs []error
		for _, u := range g.Upstreams() {
			for _, a := range transferGateways {
				now, err := u.Router.BFDSession(a, false)
				was, known := first[key{u.Name, a}]
				if !known {
					was = now
					first[key{u.Name, a}] = now
				}
				if err == nil && (now.State != "Up" || now.Uptime < was.Uptime || !sameTime(now.Since, was.Since)) {
					err = fmt.Errorf("%s's session with %s left Up: %+v, at first %+v", u.Name, a, now, was)
				}
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
}

// sameTime compares two of BIRD's times of day.
func sameTime(a, b string) bool {
	if a == b {
		return true
	}
	at, err := time.Parse("15:04:05.000", a)
	bt, err2 := time.Parse("15:04:05.000", b)
	return err == nil && err2 == nil && at.Sub(bt).Abs() < time.Second
}

// teardownTellsPeers: the sessions outlive the daemon's end, and end in order
// with the teardown.
func (g *gateway) teardownTellsPeers(t *testing.T) {
	t.Helper()
	look := g.sessionLook()
	if err := look(); err != nil {
		t.Error(err)
	}
	if err := g.daemon.Stop(); err != nil {
		t.Error(err)
	}
	if err := look(); err != nil {
		t.Error(err)
	}
	if out, err := g.Egret("teardown", "--config", g.ConfigPath()); err != nil {
		t.Errorf("teardown: %v\n%s", err, out)
	}
	g.peersAre(t, "Down", g.Upstreams()...)
	if log, err := g.Gateway.Run("cat", "/run/egret/bfd.log"); err != nil || strings.Count(log, "bfd session changed") < 8 {
		t.Errorf("the log of the sessions: %v\n%s", err, log)
	}
	for _, a := range transferGateways {
		if s, err := g.Red.Router.BFDSession(a, false); err != nil || s.RemoteDiag != "administratively down" {
			t.Errorf("red was not told about the end: %+v, %v", s, err)
		}
	}
	if out, err := g.Gateway.Run("ss", "-xlH"); err != nil || strings.Contains(out, "bfd.sock") {
		t.Errorf("the process of the sessions is left: %v\n%s", err, out)
	}
}
