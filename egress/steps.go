package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// withdraw takes back what is advertised and no longer wanted, before the data
// plane behind it goes. New prefixes wait for advertise.
func (r *Router) withdraw(ctx context.Context, want *Desired) error {
	if r.advertised == nil {
		return nil // nothing was advertised by this process yet
	}
	reduced := make([]bgp.Config, 0, len(want.BGP))
	wanted := map[string]map[netip.Prefix]bool{}
	for _, c := range want.BGP {
		before, running := r.advertised[c.Network]
		if !running {
			continue
		}
		wanted[c.Network] = prefixSet(c.Advertise)
		c.Advertise = keepAdvertised(c.Advertise, before)
		reduced = append(reduced, c)
	}
	if !loses(r.advertised, wanted) {
		return nil
	}
	return r.setSpeaker(ctx, reduced)
}

// loses reports whether something advertised now is not in wanted.
func loses(now, wanted map[string]map[netip.Prefix]bool) bool {
	for network, prefixes := range now {
		w, running := wanted[network]
		if !running {
			return true
		}
		for p := range prefixes {
			if !w[p] {
				return true
			}
		}
	}
	return false
}

func prefixSet(as []bgp.Advertisement) map[netip.Prefix]bool {
	out := make(map[netip.Prefix]bool, len(as))
	for _, a := range as {
		out[a.Prefix] = true
	}
	return out
}

func keepAdvertised(as []bgp.Advertisement, before map[netip.Prefix]bool) []bgp.Advertisement {
	var out []bgp.Advertisement
	for _, a := range as {
		if before[a.Prefix] {
			out = append(out, a)
		}
	}
	return out
}

func (r *Router) setSpeaker(ctx context.Context, configs []bgp.Config) error {
	err := r.edges.Speaker.Set(ctx, configs)
	r.advertised = make(map[string]map[netip.Prefix]bool, len(configs))
	for _, c := range configs {
		r.advertised[c.Network] = prefixSet(c.Advertise)
	}
	r.tell.advertised(r.advertised)
	return err
}

// guards puts the guards of new ports and addresses in place. It only adds.
func (r *Router) guards(ctx context.Context, want nat.Ruleset) error {
	plan := nat.DiffGuards(r.filter, want)
	if plan.Empty() {
		return nil
	}
	return r.filterApply(ctx, plan)
}

// filterApply applies a plan. As that is one transaction, what the kernel then
// has is known; anything else is an event or the resync's to find.
func (r *Router) filterApply(ctx context.Context, plan nat.Plan) error {
	if err := r.edges.Filter.Apply(ctx, plan); err != nil {
		r.filterDirty.Store(true)
		return err
	}
	have, err := plan.ApplyTo(r.filter)
	if err != nil {
		r.filterDirty.Store(true)
		return fmt.Errorf("follow the packet filter: %w", err)
	}
	r.filter = have
	return nil
}

func (r *Router) setSysctls(ctx context.Context, want *Desired, rep *report) error {
	changes, err := r.edges.Sysctls.Set(ctx, want.Sysctls)
	for _, c := range changes {
		rep.ran(c.String())
	}
	return err
}

// applyKernel brings links, next hops, routes and rules up to date. Errors
// belong to networks: the others go on.
func (r *Router) applyKernel(ctx context.Context, want *Desired, rep *report) {
	plan := vrf.Diff(r.have, want.Kernel)
	for _, e := range plan.Errors {
		rep.fail(e.Network, e.Err)
	}
	if plan.Empty() {
		return
	}
	res := r.edges.Kernel.Apply(ctx, plan)
	rep.ran(plan.String())
	rep.ops += res.Applied
	if len(res.Errors) > 0 {
		r.kernelDirty.Store(true)
	} else {
		r.follow(plan)
	}
	for network, err := range res.Failed() {
		rep.fail(network, err)
	}
	if len(res.Errors) == 0 {
		r.tell.reachedBy(plan)
	}
}

// fail records that a network's data plane is not in place. An error that
// belongs to no network is one of the round.
func (rep *report) fail(network string, err error) {
	if network == "" {
		rep.add("kernel", err)
		return
	}
	rep.failed[network] = errors.Join(rep.failed[network], err)
	rep.add("kernel", fmt.Errorf("network %q: %w", network, err))
}

// maxPlanText bounds what a round keeps of its plan for the log: the plan of a
// full table is megabytes.
const maxPlanText = 8 << 10

// ranPlan notes a plan of the packet filter, as far as there is room.
func (rep *report) ranPlan(p nat.Plan) {
	if len(p.Ops) > maxPlanText/16 {
		p.Ops = p.Ops[:maxPlanText/16] // the text of more is cut off anyway
	}
	rep.ran(p.String())
}

func (rep *report) ran(text string) {
	if rep.plan != "" {
		rep.plan += "\n"
	}
	if room := maxPlanText - len(rep.plan); len(text) > room {
		text = text[:max(0, room)] + " ..."
	}
	rep.plan += text
}

// applyFilter brings the whole table up to date in one transaction.
func (r *Router) applyFilter(ctx context.Context, want nat.Ruleset, rep *report) error {
	plan := nat.Diff(r.filter, want)
	if plan.Empty() {
		r.filter = want // which shares its memory with what is rendered next
		return nil
	}
	if err := r.edges.Filter.Apply(ctx, plan); err != nil {
		r.filterDirty.Store(true)
		rep.filter = err
		return err
	}
	r.filter = want
	rep.ranPlan(plan)
	rep.ops++
	return nil
}

// advertise sets the speakers in full, as far as the data plane is in place.
func (r *Router) advertise(ctx context.Context, want *Desired, rep *report) error {
	configs := make([]bgp.Config, 0, len(want.BGP))
	for _, c := range want.BGP {
		c.Advertise = r.advertisable(c, want, rep)
		configs = append(configs, c)
	}
	return r.setSpeaker(ctx, configs)
}

// failed ends a round that could not even observe.
func (r *Router) failed(begin time.Time, err error) error {
	r.counters.rounds++
	r.counters.roundErrors["observe"]++
	r.log.Debug("round could not observe", "took", time.Since(begin))
	return &StepError{"observe", err}
}
