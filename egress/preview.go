package egress

import (
	"context"
	"strings"

	"github.com/egret-router/egret/bgp"
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

// MakePreview observes the kernel and plans; it changes nothing. learned and
// verdicts are what a running daemon knows; both may be nil, and then the
// learned routes that the kernel has are left alone, and networks stay as the
// kernel has them.
func MakePreview(ctx context.Context, spec *Spec, kernel Kernel, filter Filter, sysctls Sysctls,
	learned map[string][]bgp.Route, verdicts map[string]probes.Verdict) (Preview, error) {
	have, err := kernel.Snapshot(ctx)
	if err != nil {
		return Preview{}, err
	}
	rules, err := filter.Snapshot(ctx)
	if err != nil {
		return Preview{}, err
	}
	st := Observe(have, spec.Settings.Ownership)
	if st.Flowtables, err = filter.HasFlowtable(ctx); err != nil {
		return Preview{}, err
	}
	if learned != nil {
		st.Learned = learned
	}
	if verdicts != nil {
		st.Verdicts = verdicts
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
