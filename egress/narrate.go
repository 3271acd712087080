package egress

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
	"github.com/egret-router/egret/vrf"
)

// narrator tells, by comparing what rounds see, what has changed and how long it
// took. It belongs to the loop.
type narrator struct {
	log *eventLog
	// lines gets those events that nobody else logs.
	lines *slog.Logger
	// heard is the last change of a verdict that was told.
	heard    uint64
	sessions map[string]sessionSeen
	peers    map[peerOf]string
	usable   map[hopIn]bool
	told     map[string]map[netip.Prefix]bool
	// failing are the networks in which something went down since the last round
	// ended: the time of the first verdict.
	failing map[string]time.Time
	// reached are those of them of which the kernel has been told.
	reached map[string]bool
	timings timings
}

// hear tells what probes and BFD sessions found since it was called last.
func (r *Router) hear() {
	r.tell.verdicts(r.edges.Prober.Changes(r.tell.heard), r.edges.BFD.State())
}

type peerOf struct {
	network string
	peer    netip.Addr
}

type hopIn struct {
	network string
	gateway netip.Addr
	device  string
}

func newNarrator(log *eventLog, lines *slog.Logger) *narrator {
	return &narrator{log: log, lines: lines, sessions: map[string]sessionSeen{}, peers: map[peerOf]string{}, failing: map[string]time.Time{}, reached: map[string]bool{}, timings: timings{}}
}

// verdicts tells what probes and BFD sessions have found out since the last time.
func (n *narrator) verdicts(changes []probes.Change, sessions []bfd.State) {
	for _, c := range changes {
		n.heard = c.Seq
		e := Event{At: c.At, Kind: EventProbe, Network: c.Network, Subject: strings.TrimSpace(c.Probe + " " + c.Target),
			State: c.To.String(), Cause: c.Cause, Attempts: c.Attempts, Detection: c.Detection}
		if c.Whole {
			e.Subject = c.Probe
		}
		switch {
		case c.Suppressed:
			e.State += ", suppressed"
		case c.Released:
			e.State += ", released"
		}
		n.log.add(e)
		if c.Whole && c.To == probes.Down {
			n.failed(c.Network, c.At, c.Detection)
		}
	}
	seen := make(map[string]sessionSeen, len(sessions))
	for _, s := range sessions {
		if s.Stale {
			if before, known := n.sessions[s.Name]; known {
				seen[s.Name] = before
			}
			continue
		}
		before, known := n.sessions[s.Name]
		now := sessionSeen{s.Status, s.DetectTime}
		if s.Status != bfd.Up {
			now.detect = before.detect // the state says 0 while the peer is not heard
		}
		seen[s.Name] = now
		if before.status == s.Status && known || !known && s.Status != bfd.Up {
			continue
		}
		n.session(s, before)
	}
	n.sessions = seen
}

// sessionSeen is the state of a BFD session and its detection time when it was up.
type sessionSeen struct {
	status bfd.Status
	detect time.Duration
}

func (n *narrator) session(s bfd.State, before sessionSeen) {
	e := Event{At: s.Since, Kind: EventBFD, Network: networkOfProbe(s.Name), Subject: s.Name, State: s.Status.String()}
	if s.Status != bfd.Up && s.Diag != bfd.NoDiag {
		e.Cause = s.Diag.String()
	}
	lost := before.status == bfd.Up && s.RemoteStatus != bfd.AdminDown && s.Status != bfd.AdminDown
	if lost && s.Diag == bfd.DetectionTimeExpired {
		e.Detection = before.detect
	}
	n.log.add(e)
	if lost {
		n.failed(e.Network, s.Since, e.Detection)
	}
}

// networkOfProbe is the first part of a probe's name.
func networkOfProbe(name string) string {
	network, _, _ := strings.Cut(name, "/")
	return network
}

func (n *narrator) failed(network string, at time.Time, detection time.Duration) {
	if detection > 0 {
		n.timings.add(network, stageDetection, detection)
	}
	if first, known := n.failing[network]; !known || at.Before(first) {
		n.failing[network] = at
	}
}

// sinceVerdict is how long ago the first verdict of this round was that took
// something down in a network; 0 if there was none.
func (n *narrator) sinceVerdict(network string) time.Duration {
	at, known := n.failing[network]
	if network == ClientsNetwork { // which any of them concerns
		for _, t := range n.failing {
			if !known || t.Before(at) {
				at, known = t, true
			}
		}
	}
	if !known {
		return 0
	}
	return max(time.Since(at), 1)
}

// reachedBy tells that the kernel does what the plan says. For a network in which
// something has failed, that is when the failure no longer hurts: the first
// time counts.
func (n *narrator) reachedBy(plan vrf.Plan) {
	changes := map[string]int{}
	for _, op := range plan.Ops {
		changes[op.Network]++
	}
	for network, ops := range changes {
		if _, failing := n.failing[network]; !failing || n.reached[network] {
			continue
		}
		took := n.sinceVerdict(network)
		n.reached[network] = true
		n.log.add(Event{Kind: EventNextHop, Network: network, Subject: fmt.Sprintf("%d kernel operations", ops), State: "applied", Kernel: took})
		n.timings.add(network, stageKernel, took)
	}
}

// done ends a round.
func (n *narrator) done() {
	clear(n.failing)
	clear(n.reached)
}

// advertised tells what the speakers were told.
func (n *narrator) advertised(now map[string]map[netip.Prefix]bool) {
	for network, prefixes := range now {
		n.prefixes(network, prefixes)
	}
	for network := range n.told {
		if now[network] == nil {
			n.prefixes(network, nil)
		}
	}
	n.told = now
}

func (n *narrator) prefixes(network string, now map[netip.Prefix]bool) {
	more, gone := 0, 0
	for p := range now {
		if !n.told[network][p] {
			more++
		}
	}
	for p := range n.told[network] {
		if !now[p] {
			gone++
		}
	}
	if gone > 0 {
		took := n.sinceVerdict(network)
		n.log.add(Event{Kind: EventPool, Network: network, Subject: count(gone, "prefix"), State: "withdrawn", Withdraw: took})
		n.lines.Warn("withdrawn", "network", network, "prefixes", gone, "after", took)
		if took > 0 {
			n.timings.add(network, stageWithdraw, took)
		}
	}
	if more > 0 {
		n.log.add(Event{Kind: EventPool, Network: network, Subject: count(more, "prefix"), State: "advertised"})
		n.lines.Info("advertised", "network", network, "prefixes", more)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ses", n, what)
}

// peersOf tells which sessions came up or ended.
func (n *narrator) peersOf(speakers []bgp.State) {
	seen := map[peerOf]string{}
	for _, s := range speakers {
		for _, p := range s.Peers {
			key := peerOf{s.Network, p.Address}
			seen[key] = p.State
			was, is := n.peers[key] == bgpEstablished, p.State == bgpEstablished
			if was == is {
				continue
			}
			e := Event{At: p.Since, Kind: EventBGP, Network: s.Network, Subject: p.Address.String(), State: p.State}
			if !is {
				e.Cause = p.LastError
				n.failed(s.Network, p.Since, 0)
			}
			n.log.add(e)
		}
	}
	n.peers = seen
}

const bgpEstablished = "established"

// hops tells which next hops may or may no longer carry traffic. The first round
// only takes note.
func (n *narrator) hops(networks []NetworkDecision) {
	seen := map[hopIn]bool{}
	for _, dec := range networks {
		for _, h := range dec.NextHops {
			key := hopIn{dec.Name, h.Address, h.Device}
			seen[key] = h.Usable
			before, known := n.usable[key]
			if n.usable == nil || known && before == h.Usable || !known && !h.Usable {
				continue
			}
			e := Event{Kind: EventNextHop, Network: dec.Name, Subject: h.Address.String(), State: "usable"}
			if !h.Usable {
				e.State, e.Cause = "lost", h.Reason
				n.lines.Warn("next hop lost", "network", dec.Name, "next_hop", e.Subject, "device", h.Device, "reason", h.Reason)
			} else {
				n.lines.Info("next hop usable", "network", dec.Name, "next_hop", e.Subject, "device", h.Device)
			}
			n.log.add(e)
		}
	}
	n.usable = seen
}
