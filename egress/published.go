package egress

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/egret-router/egret/egress/flows"
)

// published is what a round leaves for readers. Policies are worked out when
// somebody asks: there may be 100,000 rules.
type published struct {
	status *Status
	spec   *Spec
	want   *Desired
	failed map[string]error
}

// Status is what the last round, the last inspection and the last sweep of
// conntrack found; nil before the first round.
func (r *Router) Status() *Status {
	p := r.status.Load()
	if p == nil {
		return nil
	}
	full := *p.status
	full.Policies = p.policies()
	cost := r.edges.Prober.Cost()
	full.ProbeCost = &ProbeCostStatus{Since: cost.Since, CPU: cost.CPU, Attempts: cost.Attempts}
	if in := r.inspected.Load(); in != nil {
		full.Drops, full.Problems = in.drops, slices.Clone(in.problems)
	}
	if res := r.flows.latest(); res != nil {
		full.Pools = slices.Clone(full.Pools)
		full.Conntrack = res.status(&full)
		res.drains(&full)
	}
	if text := r.drains.trouble(); text != "" {
		full.Problems = append(full.Problems, text)
	}
	return &full
}

// NextRound waits until a round has ended after the one with this number, until
// ctx ends, or for a second, and gives the number of the last one: for who looks at
// the Status whenever it is a new one.
func (r *Router) NextRound(ctx context.Context, after uint64) uint64 {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		r.mu.Lock()
		ended := r.ended
		r.mu.Unlock()
		last := uint64(0)
		if p := r.status.Load(); p != nil {
			last = p.status.Round.Count
		}
		if last > after {
			return last
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return last
		}
	}
}

func (p *published) policies() []PolicyStatus {
	usable := map[uint16]bool{}
	for _, n := range p.want.Networks {
		up := n.Up && p.failed[n.Name] == nil && !n.Drain.Refuses()
		usable[n.Index] = up
		for _, path := range n.Paths {
			usable[path.Number] = up && path.Usable
		}
	}
	bounds := map[string]int{}
	for _, n := range p.spec.Networks {
		bounds[n.Name] = n.MaxNextHops
	}
	var out []PolicyStatus
	for _, policy := range p.spec.Policies {
		s := PolicyStatus{Name: policy.Name, Clients: policy.Clients, Missing: policy.Missing}
		for _, rule := range policy.Rules {
			rs := RuleStatus{Destination: rule.Destination, Action: rule.Action, Network: rule.Network, Pool: rule.Pool, MaxNextHops: rule.MaxNextHops}
			for _, h := range rule.NextHops {
				rs.NextHops = append(rs.NextHops, h.Address)
			}
			switch rule.Action {
			case ActionSkip:
				rs.Forwarding = true
			case ActionNetwork:
				for number := range p.want.sets[setOf(rule, bounds[rule.Network]).key()] {
					rs.Forwarding = rs.Forwarding || usable[number]
				}
			}
			s.Rules = append(s.Rules, rs)
		}
		out = append(out, s)
	}
	return out
}

// nearlyFull is the share of an address's ports towards one destination from
// which on a pool is reported: before it hurts.
const nearlyFull = 0.8

// status adds what a sweep found to the pools, and tells what is about to run
// out.
func (res *sweepResult) status(s *Status) *ConntrackStatus {
	zones := map[uint16]string{}
	for _, n := range s.Networks {
		zones[n.Zone] = n.Name
	}
	total := 0
	for _, u := range res.usage {
		total += u.Flows
		for i := range s.Pools {
			p := &s.Pools[i]
			if p.Network != zones[u.Zone] || !slices.ContainsFunc(p.Prefixes, inPrefix(u.Address)) {
				continue
			}
			p.Flows += u.Flows
			if u.Fullest.Flows > p.PortsUsed {
				p.PortsUsed, p.PortsMax = u.Fullest.Flows, flows.PortsPerTarget
				p.Fullest = fmt.Sprintf("%s to %s port %d (protocol %d)", u.Address, u.Fullest.Dst, u.Fullest.DstPort, u.Fullest.Proto)
			}
		}
	}
	for _, p := range s.Pools {
		if float64(p.PortsUsed) >= nearlyFull*flows.PortsPerTarget {
			s.Problems = append(s.Problems, fmt.Sprintf("pool %s is nearly exhausted: %d of %d ports are taken of %s; add addresses, or use stickiness: flow",
				p.Name, p.PortsUsed, p.PortsMax, p.Fullest))
		}
	}
	if res.stats.Max > 0 && float64(res.stats.Count) >= nearlyFull*float64(res.stats.Max) {
		s.Problems = append(s.Problems, fmt.Sprintf("connection tracking is nearly full: %d of %d flows; raise net.netfilter.nf_conntrack_max", res.stats.Count, res.stats.Max))
	}
	return &ConntrackStatus{At: res.at, Flows: res.stats.Count, MaxFlows: res.stats.Max, Translated: total,
		InsertFailed: res.stats.InsertFailed, Drop: res.stats.Drop, EarlyDrop: res.stats.EarlyDrop}
}

func inPrefix(a netip.Addr) func(netip.Prefix) bool {
	return func(p netip.Prefix) bool { return p.Contains(a) }
}
