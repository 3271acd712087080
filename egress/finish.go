package egress

import (
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
)

// counters are the loop's running totals.
type counters struct {
	rounds, ops, repairs uint64
	roundErrors          map[string]uint64
	lastRepair           time.Duration
}

// phaseRecord is when a network came into its phase.
type phaseRecord struct {
	phase  Phase
	reason string
	since  time.Time
}

// finish counts, logs and publishes a round, and returns its error. A round
// that changed nothing logs nothing.
func (r *Router) finish(rep *report, st *State) error {
	took := time.Since(rep.begin)
	c := &r.counters
	c.rounds++
	c.ops += uint64(rep.ops)
	for _, err := range rep.errs {
		if c.roundErrors == nil {
			c.roundErrors = map[string]uint64{}
		}
		if step, ok := err.(*StepError); ok {
			c.roundErrors[step.Step]++
		}
	}
	if rep.plan != "" {
		r.logChange(rep, took)
	}
	for _, err := range rep.errs {
		r.events.add(Event{Kind: EventRound, State: "failed", Cause: err.Error()})
	}
	r.tell.hops(rep.want.Networks)
	r.tell.done()
	r.prev = rep.want
	r.changed = r.changed && len(rep.errs) > 0
	r.observed.Store(st)
	r.publish(rep, took)
	r.mu.Lock()
	close(r.ended)
	r.ended = make(chan struct{})
	r.mu.Unlock()
	return rep.err()
}

// logChange says what was carried out. A change while nothing new was wanted
// is a repair: somebody else changed what is ours.
func (r *Router) logChange(rep *report, took time.Duration) {
	if rep.event != 0 && r.prev != nil && r.clean && sameIntent(r.prev, rep.want) {
		r.counters.repairs++
		r.counters.lastRepair = time.Since(time.Unix(0, rep.event))
		r.events.add(Event{Kind: EventRepair, State: "repaired", Cause: rep.plan})
		r.log.Warn("repaired drift", "after", r.counters.lastRepair, "plan", rep.plan)
		return
	}
	r.log.Info("applied", "operations", rep.ops, "took", took)
	r.log.Debug("applied plan", "plan", rep.plan)
}

// sameIntent compares what two rounds wanted of the kernel.
func sameIntent(a, b *Desired) bool {
	return reflect.DeepEqual(a.Kernel, b.Kernel) && reflect.DeepEqual(a.NAT, b.NAT) &&
		reflect.DeepEqual(a.Sysctls, b.Sysctls)
}

// publish makes the Status of the round the current one.
func (r *Router) publish(rep *report, took time.Duration) {
	r.clean = len(rep.errs) == 0
	s := &Status{Version: r.version, Started: r.started}
	r.mu.Lock()
	s.Config = ConfigStatus{LoadedAt: r.loadedAt, Error: r.rejected, Rejected: r.rejectedN}
	r.mu.Unlock()
	s.Round = RoundStatus{Count: r.counters.rounds, Operations: r.counters.ops, Repairs: r.counters.repairs,
		Errors: maps.Clone(r.counters.roundErrors), LastDuration: took, LastRepair: r.counters.lastRepair}
	if err := rep.err(); err != nil {
		s.Round.LastError = err.Error()
	}
	speakers := map[string]bgp.State{}
	for _, b := range r.edges.Speaker.State() {
		speakers[b.Network] = b
	}
	statuses := r.probeStatuses(rep.want)
	for i := range rep.want.Networks {
		s.Networks = append(s.Networks, r.networkStatus(rep, &rep.want.Networks[i], speakers, statuses))
	}
	s.ClientBGP = r.clientBGPStatus(speakers[ClientsNetwork], statuses[""])
	r.forget(rep.want)
	s.Pools = r.poolStatuses(rep)
	s.Timings = r.tell.timings.of(func(network string) bool { return network == ClientsNetwork || rep.want.network(network) != nil })
	r.status.Store(&published{status: s, spec: rep.spec, want: rep.want, failed: rep.failed})
}

// forget drops the history of networks that are gone.
func (r *Router) forget(want *Desired) {
	for name := range r.history {
		if want.network(name) == nil {
			delete(r.history, name)
			r.log.Info("network is removed", "network", name)
		}
	}
}

func (r *Router) networkStatus(rep *report, dec *NetworkDecision, speakers map[string]bgp.State, probes map[string][]ProbeStatus) NetworkStatus {
	n := NetworkStatus{Name: dec.Name, Index: dec.Index, Table: uint32(dec.Table), Zone: dec.Zone,
		Mark: fmt.Sprintf("%#x", uint32(dec.Mark)), StaticRoutes: dec.StaticRoutes, LearnedRoutes: dec.LearnedRoutes,
		UnresolvedRoutes: dec.Unresolved, Stale: dec.Stale}
	rec := r.phase(rep, dec, speakers[dec.Name])
	n.Phase, n.Reason, n.Since = rec.phase, rec.reason, rec.since
	n.NextHops, n.Paths, n.Exhausted = nextHopStatuses(dec), pathStatuses(dec, r.flows.latest()), dec.Exhausted
	for _, p := range speakers[dec.Name].Peers {
		n.Peers = append(n.Peers, peerStatus(p))
	}
	for _, sn := range rep.spec.Networks {
		if sn.Name != dec.Name {
			continue
		}
		for _, p := range sn.Ports {
			l, ok := r.have.Link(p.Name)
			n.Ports = append(n.Ports, PortStatus{Name: p.Name, Present: ok, Up: l.Up, Carrier: l.Carrier})
		}
	}
	n.Probes, n.Drain = probes[dec.Name], drainStatus(dec.Drain)
	return n
}

// phase decides a network's phase, keeps since when, and logs a change.
func (r *Router) phase(rep *report, dec *NetworkDecision, speaker bgp.State) phaseRecord {
	now := phaseRecord{phase: PhaseDown, reason: dec.Reason, since: rep.begin}
	switch {
	case rep.failed[dec.Name] != nil:
		now.phase, now.reason = PhaseError, rep.failed[dec.Name].Error()
	case speaker.Err != nil:
		now.phase, now.reason = PhaseError, "bgp: "+speaker.Err.Error()
	case dec.Up && dec.Drain.Stage != drain.None:
		now.phase, now.reason = PhaseDraining, drainReason(dec.Drain)
	case dec.Up:
		now.phase = PhaseUp
	}
	before, known := r.history[dec.Name]
	if !known || before.phase != now.phase {
		r.events.add(Event{Kind: EventNetwork, Network: dec.Name, State: string(now.phase), Cause: now.reason})
	}
	if known && before.phase == now.phase {
		now.since = before.since
	} else if now.phase == PhaseUp || now.phase == PhaseDraining {
		r.log.Info("network is "+strings.ToLower(string(now.phase)), "network", dec.Name, "reason", now.reason)
	} else {
		r.log.Warn("network is not up", "network", dec.Name, "phase", string(now.phase), "reason", now.reason)
	}
	r.history[dec.Name] = now
	return now
}

func (r *Router) poolStatuses(rep *report) []PoolStatus {
	var out []PoolStatus
	for _, p := range rep.spec.Pools {
		v4, v6 := poolAddresses(p.Prefixes)
		s := PoolStatus{Name: p.Name, Network: p.Network, Prefixes: p.Prefixes, Addresses4: len(v4), Addresses6: len(v6), Stickiness: "client"}
		if p.PerFlow {
			s.Stickiness = "flow"
		}
		// A speaker in error may or may not say what it was told.
		s.Advertised = p.advertisedBy(r.advertised[p.Network]) && r.history[p.Network].phase != PhaseError
		if !s.Advertised {
			s.Reason = r.whyNotAdvertised(rep, p)
		}
		out = append(out, s)
	}
	return out
}

func (r *Router) whyNotAdvertised(rep *report, p Pool) string {
	speaks := false
	for _, c := range rep.want.BGP {
		speaks = speaks || c.Network == p.Network
	}
	switch dec := rep.want.network(p.Network); {
	case !speaks:
		return "network " + p.Network + " has no bgp"
	case dec != nil && !dec.Up:
		return "network " + p.Network + " is down: " + dec.Reason
	case dec != nil && dec.Drain.Stage == drain.Withdrawn:
		return "network " + p.Network + " is drained"
	case r.history[p.Network].phase == PhaseError:
		return "network " + p.Network + " is in error"
	case rep.filter != nil:
		return "the packet filter is not in place"
	}
	return "not advertised yet"
}
