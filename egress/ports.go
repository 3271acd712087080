package egress

import (
	"context"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
	"github.com/egret-router/egret/vrf"
)

// Kernel is the routing side of the kernel; *vrf.Kernel is the real one.
type Kernel interface {
	Snapshot(ctx context.Context) (vrf.Snapshot, error)
	Apply(ctx context.Context, p vrf.Plan) vrf.Result
	// Watch calls notify after any change of the kernel's routing state, and
	// blocks until ctx ends.
	Watch(ctx context.Context, notify func()) error
}

// Filter is the packet filter; *nat.Table is the real one.
type Filter interface {
	Snapshot(ctx context.Context) (nat.Ruleset, error)
	// Apply carries p out as one transaction: all of it or nothing.
	Apply(ctx context.Context, p nat.Plan) error
	// HasFlowtable says whether this kernel can offload flows.
	HasFlowtable(ctx context.Context) (bool, error)
	// Watch calls notify when somebody else changed the table, and blocks until
	// ctx ends.
	Watch(ctx context.Context, notify func()) error
}

// Speaker is the BGP side; *bgp.Speaker is the real one.
type Speaker interface {
	Set(ctx context.Context, want []bgp.Config) error
	State() []bgp.State
}

// Prober runs probes; *probes.Prober is the real one.
type Prober interface {
	Set(want []probes.Config) error
	State() []probes.State
	// Changes are those of verdicts after the one with this number, oldest first.
	Changes(after uint64) []probes.Change
	Cost() probes.Cost
}

// BFD runs BFD sessions; *bfd.Client and *bfd.Sessions are the real ones.
type BFD interface {
	Set(want []bfd.Config) error
	State() []bfd.State
}

// Sysctls keeps kernel settings; *sysctl.Store is the real one.
type Sysctls interface {
	Plan(want []sysctl.Setting) ([]sysctl.Change, error)
	Set(ctx context.Context, want []sysctl.Setting) ([]sysctl.Change, error)
}

// Flows are the translated flows in conntrack; *flows.Table is the real one.
type Flows interface {
	// Sweep calls judge for each flow whose ct mark is mark under mask, and ends
	// those that it says true for.
	Sweep(ctx context.Context, mark, mask uint32, judge func(flows.Flow) bool) (flows.Result, error)
	Stats(ctx context.Context) (flows.Stats, error)
}

// Edges are the sides of the world a Router acts on.
type Edges struct {
	Kernel  Kernel
	Filter  Filter
	Speaker Speaker
	Prober  Prober
	BFD     BFD
	Sysctls Sysctls
	Flows   Flows
	// Drains keeps drains over a restart; nil keeps none.
	Drains Drains
}

// Drains keeps drains over a restart; drain.File is the real one.
type Drains interface {
	Load() (drain.Records, error)
	Save(drain.Records) error
}

// Trigger asks the loop for a round. It never blocks: requests that come while
// one is pending are the same request.
type Trigger chan struct{}

// NewTrigger makes a Trigger.
func NewTrigger() Trigger { return make(Trigger, 1) }

// Fire asks for a round.
func (t Trigger) Fire() {
	select {
	case t <- struct{}{}:
	default:
	}
}
