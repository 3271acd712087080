package egress

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/bgp/bgptest"
	"github.com/egret-router/egret/egress/flows/flowstest"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/nat/nattest"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/probestest"
	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// world is a machine in memory: the fakes with their failures, and a journal
// of what was done to them in which order.
type world struct {
	kernel  *vrftest.Kernel
	filter  *nattest.Fake
	speaker *bgptest.Speaker
	prober  *probestest.Fake
	bfd     *fakeBFD
	flows   *flowstest.Fake
	drains  Drains
	sysctl  map[string]string
	journal []string
}

func newWorld() *world {
	link := func(name string) vrf.Link { return vrf.Link{Name: name, Up: true, Carrier: true} }
	return &world{kernel: vrftest.New(DefaultOwnership().Owner(), link("eth0"), link("eth1"), link("eth2")),
		filter: nattest.New(), speaker: bgptest.New(), prober: probestest.New(), bfd: newFakeBFD(), flows: flowstest.New(), sysctl: map[string]string{}}
}

// daemon is a new process on this machine: nothing but the kernel remembers.
func (w *world) daemon(spec *Spec) *Router {
	w.speaker, w.prober = bgptest.New(), probestest.New()
	r := NewRouter(slog.New(slog.DiscardHandler), Edges{Kernel: journalKernel{w}, Filter: journalFilter{w},
		Speaker: journalSpeaker{w}, Prober: w.prober, BFD: w.bfd, Sysctls: journalSysctl{w}, Flows: w.flows, Drains: w.drains}, NewTrigger(), "test")
	r.SetSpec(spec)
	r.take()
	return r
}

func (w *world) note(format string, args ...any) {
	w.journal = append(w.journal, fmt.Sprintf(format, args...))
}

type journalKernel struct{ w *world }

func (j journalKernel) Snapshot(ctx context.Context) (vrf.Snapshot, error) {
	return j.w.kernel.Snapshot(ctx)
}
func (j journalKernel) Apply(ctx context.Context, p vrf.Plan) vrf.Result {
	j.w.note("kernel")
	return j.w.kernel.Apply(ctx, p)
}
func (j journalKernel) Watch(ctx context.Context, notify func()) error {
	return j.w.kernel.Watch(ctx, notify)
}

type journalFilter struct{ w *world }

func (j journalFilter) Snapshot(ctx context.Context) (nat.Ruleset, error) {
	return j.w.filter.Snapshot(ctx)
}
func (j journalFilter) Apply(ctx context.Context, p nat.Plan) error {
	if strings.Contains(p.String(), "policy_team") {
		j.w.note("filter")
	} else {
		j.w.note("guards")
	}
	return j.w.filter.Apply(ctx, p)
}
func (j journalFilter) HasFlowtable(context.Context) (bool, error) { return true, nil }
func (j journalFilter) Watch(ctx context.Context, notify func()) error {
	return j.w.filter.Watch(ctx, notify)
}

type journalSpeaker struct{ w *world }

func (j journalSpeaker) Set(ctx context.Context, want []bgp.Config) error {
	n := 0
	for _, c := range want {
		n += len(c.Advertise)
	}
	j.w.note("speaker advertises %d", n)
	return j.w.speaker.Set(ctx, want)
}
func (j journalSpeaker) State() []bgp.State { return j.w.speaker.State() }

type journalSysctl struct{ w *world }

func (j journalSysctl) Plan(want []sysctl.Setting) ([]sysctl.Change, error) {
	var out []sysctl.Change
	for _, s := range want {
		if j.w.sysctl[s.Key] != s.Value {
			out = append(out, sysctl.Change{Key: s.Key, From: j.w.sysctl[s.Key], To: s.Value})
		}
	}
	return out, nil
}
func (j journalSysctl) Set(_ context.Context, want []sysctl.Setting) ([]sysctl.Change, error) {
	out, err := j.Plan(want)
	if len(out) > 0 {
		j.w.note("sysctls")
	}
	for _, c := range out {
		j.w.sysctl[c.Key] = c.To
	}
	return out, err
}

// learn lets both speakers report what readyState has learned.
func (w *world) learn() {
	for network, routes := range readyState().Learned {
		w.speaker.PutState(bgp.State{Network: network, Routes: routes, Synced: true})
	}
}

func (w *world) verdict(v probes.Verdict, names ...string) {
	for _, n := range names {
		w.prober.Put(n, v)
	}
}

// settle runs rounds until one changes nothing; it fails after too many.
func settle(t *testing.T, r *Router) {
	t.Helper()
	for range 20 {
		before := r.counters.ops
		err := r.round(t.Context())
		if err == nil && r.counters.ops == before && !r.kernelDirty.Load() {
			return
		}
	}
	t.Fatalf("rounds do not settle: %s", r.Status().Round.LastError)
}

// bring makes a working gateway.
func bring(t *testing.T, w *world, spec *Spec) *Router {
	t.Helper()
	r := w.daemon(spec)
	settle(t, r)
	w.learn()
	w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
	settle(t, r)
	return r
}

func phases(r *Router) string {
	var out []string
	for _, n := range r.Status().Networks {
		out = append(out, n.Name+" "+string(n.Phase))
	}
	return strings.Join(out, ", ")
}

func (w *world) advertised(network string) int {
	c, _ := w.speaker.Config(network)
	return len(c.Advertise)
}
