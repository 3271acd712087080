package egress

import (
	"context"
	"strings"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// Preview is what a daemon with a Spec would change in this kernel.
type Preview struct {
	Sysctls []string
	Kernel  vrf.Plan
	Filter  nat.Plan
	// Networks are the decisions behind it.
	Networks []NetworkDecision
}

// Empty reports that nothing would change.
func (p Preview) Empty() bool { return len(p.Sysctls) == 0 && p.Kernel.Empty() && p.Filter.Empty() }

// String lists the changes in the order they would be made, one per line.
func (p Preview) String() string {
	var parts []string
	if !p.Filter.Empty() {
		parts = append(parts, p.Filter.String())
	}
	for _, s := range p.Sysctls {
		parts = append(parts, "sysctl "+s)
	}
	if !p.Kernel.Empty() {
		parts = append(parts, p.Kernel.String())
	}
	return strings.Join(parts, "\n")
}

// Known is what only a running daemon knows. Without it (nil) the learned routes
// that the kernel has are left alone, and networks stay as the kernel has them.
type Known struct {
	Learned  map[string][]bgp.Route
	Verdicts map[string]probes.Verdict
	Drains   map[string]drain.Record
}

// MakePreview observes the kernel and plans; it changes nothing.
func MakePreview(ctx context.Context, spec *Spec, kernel Kernel, filter Filter, sysctls Sysctls, known Known) (Preview, error) {
	have, rules, st, err := observeMachine(ctx, spec, kernel, filter, known)
	if err != nil {
		return Preview{}, err
	}
	want := Resolve(spec, st)
	out := Preview{Kernel: vrf.Diff(have, want.Kernel), Filter: nat.Diff(rules, nat.Render(want.NAT)), Networks: want.Networks}
	changes, err := sysctls.Plan(want.Sysctls)
	if err != nil {
		return Preview{}, err
	}
	for _, c := range changes {
		out.Sysctls = append(out.Sysctls, c.String())
	}
	return out, nil
}

// observeMachine reads the kernel, and adds what a running daemon knows.
func observeMachine(ctx context.Context, spec *Spec, kernel Kernel, filter Filter, known Known) (vrf.Snapshot, nat.Ruleset, State, error) {
	have, err := kernel.Snapshot(ctx)
	if err != nil {
		return vrf.Snapshot{}, nat.Ruleset{}, State{}, err
	}
	rules, err := filter.Snapshot(ctx)
	if err != nil {
		return vrf.Snapshot{}, nat.Ruleset{}, State{}, err
	}
	st := Observe(have, spec.Settings.Ownership)
	if st.Flowtables, err = filter.HasFlowtable(ctx); err != nil {
		return vrf.Snapshot{}, nat.Ruleset{}, State{}, err
	}
	if known.Learned != nil {
		st.Learned = known.Learned
	}
	if known.Verdicts != nil {
		st.Verdicts = known.Verdicts
	}
	st.Drains = known.Drains
	return have, rules, st, nil
}

// MakeExplanation observes the kernel, explains a flow and compares the
// explanation with what the kernel does. Nothing is changed.
func MakeExplanation(ctx context.Context, spec *Spec, kernel Kernel, ask RouteAsker, filter Filter,
	known Known, flow Flow) (*Explanation, error) {
	_, rules, st, err := observeMachine(ctx, spec, kernel, filter, known)
	if err != nil {
		return nil, err
	}
	want := Resolve(spec, st)
	e := Explain(spec, st, &want, flow)
	return e, e.Compare(ctx, spec, ask, rules, nat.Render(want.NAT))
}
