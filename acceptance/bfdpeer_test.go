package acceptance

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// frozenPeer stops the router of a network: its BGP sessions, whose hold time is
// minutes and which have graceful restart, go down with their BFD sessions and
// stay down until these are back. The events tell it, and the other network's
// clients lose nothing.
func (g *gateway) frozenPeer(t *testing.T, u *lab.Upstream, clients, others []string) {
	t.Helper()
	stop := g.streams(traffic.UDP, others...)
	if err := u.Router.Freeze(); err != nil {
		t.Fatal(err)
	}
	phases := map[string]string{"red": "Up", "blue": "Up"}
	phases[u.Name] = "Down"
	g.wait(phases)
	lab.Eventually(t, patience, u.Name+"'s BGP sessions down with their BFD sessions", func() error {
		s, err := g.status()
		if err != nil {
			return err
		}
		for _, n := range s.Networks {
			for _, p := range n.Peers {
				down := p.State == "idle" && strings.Contains(p.LastError, "BFD session down: detection time expired") && p.Accepted == 0
				if down != (n.Name == u.Name) {
					return fmt.Errorf("%s: %+v", n.Name, p)
				}
			}
			if n.Name == u.Name && n.LearnedRoutes != 0 {
				return fmt.Errorf("%s has %d learned routes", n.Name, n.LearnedRoutes)
			}
		}
		return nil
	})
	g.failureIsTold(t, u.Name)
	if err := u.Router.Thaw(); err != nil {
		t.Fatal(err)
	}
	g.up(options{})
	g.peersAre(t, "Up", g.Upstreams()...)
	for _, c := range clients {
		g.answer(c, u.Name, options{}.pools(u.Name))
	}
	for c, r := range stop() {
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("%s lost %d of %d while %s's router was frozen: %+v", c, r.Lost, r.Sent, u.Name, r.Gaps)
		}
	}
}

// failureIsTold: `egret events` has the way from the session's verdict to the
// withdrawal, and the metrics its stages.
func (g *gateway) failureIsTold(t *testing.T, network string) {
	t.Helper()
	out, err := g.Egret("events", "-o", "json", "--network", network)
	if err != nil {
		t.Fatalf("egret events: %v\n%s", err, out)
	}
	var bfd, withdrawn, session, down bool
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e egress.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Network != network {
			t.Fatalf("an event: %v: %s", err, lines.Text())
		}
		switch {
		case e.Kind == egress.EventBFD && e.State == "down":
			bfd = bfd || e.Detection == bfdMult*bfdInterval && e.Cause == "detection time expired"
		case e.Kind == egress.EventPool && e.State == "withdrawn":
			withdrawn = withdrawn || e.Withdraw > 0
		case e.Kind == egress.EventBGP && e.State == "idle":
			session = session || strings.Contains(e.Cause, "BFD session down")
		case e.Kind == egress.EventNetwork && e.State == string(egress.PhaseDown):
			down = true
		}
	}
	if !bfd || !withdrawn || !session || !down {
		t.Errorf("events tell of the BFD session %t, the withdrawal %t, the BGP session %t, the network %t:\n%s", bfd, withdrawn, session, down, out)
	}
	s, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]time.Duration{}
	for _, timing := range s.Timings {
		if timing.Network == network {
			stages[timing.Stage] = timing.Sum
		}
	}
	if stages["detection"] < bfdMult*bfdInterval || stages["kernel"] == 0 || stages["withdraw"] == 0 {
		t.Errorf("stages of the failover: %v", stages)
	}
	t.Logf("stages of the failover of %s: %v", network, stages)
}
