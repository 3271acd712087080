package egress

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
)

const (
	// bfdGrace is how long a BFD session that has never come up says nothing: a
	// peer sends once in a second at first, and answers twice until both are Up.
	bfdGrace = 10 * time.Second
	// bfdGracePackets is the same for sessions with a long interval.
	bfdGracePackets = 3
)

// sessionWatch makes verdicts of the states of BFD sessions. It belongs to the
// loop, and asks for a round when a session has been silent for too long.
type sessionWatch struct {
	ages  map[string]sessionAge
	timer alarm
}

// sessionAge is since when a session is known. Another discriminator is another
// session: the process that ran it ended, and what the old one knew is gone.
type sessionAge struct {
	discriminator uint32
	made          time.Time
}

// verdicts judges every session at this time, by name.
func (w *sessionWatch) verdicts(states []bfd.State, now time.Time) map[string]probes.Verdict {
	out := make(map[string]probes.Verdict, len(states))
	ages := make(map[string]sessionAge, len(states))
	var next time.Duration // until the first of them is too old; 0 is never
	for _, st := range states {
		age, known := w.ages[st.Name]
		if !known || st.Discriminator != 0 && age.discriminator != st.Discriminator {
			age = sessionAge{st.Discriminator, now}
		}
		if !st.Since.IsZero() && st.Since.Before(age.made) {
			age.made = st.Since // it ran before we did
		}
		ages[st.Name] = age
		left := max(bfdGrace, bfdGracePackets*st.TxInterval) - now.Sub(age.made)
		verdict, waits := judgeSession(st, left <= 0)
		if out[st.Name] = verdict; waits && (next == 0 || left < next) {
			next = left
		}
	}
	w.ages = ages
	w.timer.arm(next)
	return out
}

// judgeSession is the verdict on a next hop by its session; waits says that it
// becomes Down when the session gets old without having come up. A session that
// somebody has taken down on purpose says nothing (RFC 5882 section 3.2), and
// nothing is known while the process that runs it does not answer.
func judgeSession(st bfd.State, old bool) (v probes.Verdict, waits bool) {
	switch {
	case st.Stale || st.Status == bfd.AdminDown:
		return probes.Unknown, false
	case st.Status == bfd.Up:
		return probes.Up, false
	case st.RemoteStatus == bfd.AdminDown:
		return probes.Unknown, false
	case st.Ups > 0 || old:
		return probes.Down, false
	}
	return probes.Unknown, true
}

// verdicts are those of all probes, BFD sessions among them, by name.
func (r *Router) verdicts() map[string]probes.Verdict {
	out := r.sessions.verdicts(r.edges.BFD.State(), time.Now())
	for _, p := range r.edges.Prober.State() {
		out[p.Name] = p.Verdict
	}
	return out
}

// hopProbes are the names of all probes of a gateway.
func (n *Network) hopProbes(a netip.Addr) []string {
	out := make([]string, 0, len(n.NextHopProbes)+len(n.NextHopBFD))
	for _, p := range n.NextHopProbes {
		out = append(out, nextHopProbeName(p, a))
	}
	for _, c := range n.NextHopBFD {
		out = append(out, hopProbeName(c.Name, a))
	}
	return out
}

// nextHopBFD are the sessions with all gateways seen, made from the network's
// templates. While learned routes are those from before a restart, not every
// gateway has been seen yet, so sessions that run are kept.
func (t *table) nextHopBFD() []bfd.Config {
	var out []bfd.Config
	for _, c := range t.n.NextHopBFD {
		gateways := make(map[netip.Addr]string, len(t.seen))
		for a, d := range t.seen {
			gateways[a] = d.Device
		}
		for _, peer := range t.peersOnLink() {
			if _, seen := gateways[peer]; !seen {
				on, _ := t.resolve(peer)
				gateways[peer] = on.device
			}
		}
		if t.dec.Stale {
			t.running(c, gateways)
		}
		for a, device := range gateways {
			if device != "" {
				out = append(out, sessionWith(c, a, device))
			}
		}
	}
	slices.SortFunc(out, func(a, b bfd.Config) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// running adds the gateways that a session of this template runs with.
func (t *table) running(template bfd.Config, gateways map[netip.Addr]string) {
	for name := range t.r.st.Verdicts {
		text, ours := strings.CutPrefix(name, hopProbeName(template.Name, netip.Addr{}))
		if !ours {
			continue
		}
		if a, err := netip.ParseAddr(text); err == nil {
			on, _ := t.resolve(a)
			gateways[a] = on.device
		}
	}
}

// sessionWith makes a session of a template.
func sessionWith(template bfd.Config, a netip.Addr, device string) bfd.Config {
	template.Name = hopProbeName(template.Name, a)
	template.Peer = addressOn(a, device)
	return template
}
