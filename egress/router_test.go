package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/bgp/bgptest"
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
	sysctl  map[string]string
	journal []string
}

func newWorld() *world {
	link := func(name string) vrf.Link { return vrf.Link{Name: name, Up: true, Carrier: true} }
	return &world{kernel: vrftest.New(DefaultOwnership().Owner(), link("eth0"), link("eth1"), link("eth2")),
		filter: nattest.New(), speaker: bgptest.New(), prober: probestest.New(), sysctl: map[string]string{}}
}

// daemon is a new process on this machine: nothing but the kernel remembers.
func (w *world) daemon(spec *Spec) *Router {
	w.speaker, w.prober = bgptest.New(), probestest.New()
	r := NewRouter(slog.New(slog.DiscardHandler), Edges{Kernel: journalKernel{w}, Filter: journalFilter{w},
		Speaker: journalSpeaker{w}, Prober: w.prober, Sysctls: journalSysctl{w}}, NewTrigger(), "test")
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

func TestFirstRoundGoesInOrder(t *testing.T) {
	w := newWorld()
	r := w.daemon(twoNetworks())
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"guards", "sysctls", "kernel", "filter", "speaker advertises 0"}
	if !slices.Equal(w.journal, want) {
		t.Errorf("order %v, want %v", w.journal, want)
	}
}

func TestComesUpAndSettles(t *testing.T) {
	w := newWorld()
	r := bring(t, w, twoNetworks())
	if got := phases(r); got != "blue Up, red Up" {
		t.Fatalf("phases %q", got)
	}
	if w.advertised("red") != 2 || w.advertised("blue") != 2 {
		t.Errorf("red advertises %d, blue %d, want 2 each", w.advertised("red"), w.advertised("blue"))
	}
	have, _ := w.kernel.Snapshot(t.Context())
	if plan := vrf.Diff(have, r.prev.Kernel); !plan.Empty() {
		t.Errorf("settled, but there is still to do:\n%s", plan)
	}
}

func TestProbeDownWithdrawsFirst(t *testing.T) {
	w := newWorld()
	r := bring(t, w, twoNetworks())
	w.journal = nil
	w.verdict(probes.Down, "red/icmp0")
	settle(t, r)
	if len(w.journal) < 2 || w.journal[0] != "speaker advertises 2" || w.journal[1] != "kernel" {
		t.Errorf("order %v, want the withdrawal before the kernel", w.journal)
	}
	if got := phases(r); got != "blue Up, red Down" {
		t.Errorf("phases %q", got)
	}
	if w.advertised("red") != 0 || w.advertised("blue") != 2 {
		t.Errorf("red advertises %d, blue %d, want 0 and 2", w.advertised("red"), w.advertised("blue"))
	}
	w.verdict(probes.Up, "red/icmp0")
	settle(t, r)
	if got := phases(r); got != "blue Up, red Up" || w.advertised("red") != 2 {
		t.Errorf("after recovery: %q, red advertises %d", got, w.advertised("red"))
	}
}

// TestRestartChangesNothing is law 2 on the fakes: a new process with the same
// Spec finds everything in place, advertises at once and keeps learned routes
// until the speaker is in sync.
func TestRestartChangesNothing(t *testing.T) {
	w := newWorld()
	bring(t, w, twoNetworks())
	w.kernel.Applied()
	w.journal = nil

	r := w.daemon(twoNetworks())
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"speaker advertises 4"}; !slices.Equal(w.journal, want) {
		t.Errorf("a restart did %v, want only %v", w.journal, want)
	}
	if c, _ := w.speaker.Config("red"); !c.Restarting {
		t.Error("the speaker was not told that the data plane is forwarding")
	}
	// One route of two has come back, the speaker is not in sync: both stay.
	w.speaker.PutState(bgp.State{Network: "red", Routes: readyState().Learned["red"][:1]})
	settle(t, r)
	if n := len(w.kernel.Applied()); n != 0 {
		t.Errorf("%d operations while the speaker was not in sync", n)
	}
	// In sync with one route less: that one goes, and only that one.
	w.speaker.PutState(bgp.State{Network: "red", Routes: readyState().Learned["red"][:1], Synced: true},
		bgp.State{Network: "blue", Routes: readyState().Learned["blue"], Synced: true})
	settle(t, r)
	var routes []string
	for _, a := range w.kernel.Applied() {
		if strings.HasPrefix(a.String(), "ip route") || strings.HasPrefix(a.String(), "ip -6 route") {
			routes = append(routes, a.String())
		}
	}
	if len(routes) != 1 || !strings.Contains(routes[0], "del") || !strings.Contains(routes[0], "fd00:10::/64") {
		t.Errorf("route operations %q, want one deletion of fd00:10::/64", routes)
	}
}

func TestRestartWhileDownStaysDown(t *testing.T) {
	w := newWorld()
	r := bring(t, w, twoNetworks())
	w.verdict(probes.Down, "red/icmp0")
	settle(t, r)
	r = w.daemon(twoNetworks())
	if err := r.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := phases(r); got != "blue Up, red Down" || w.advertised("red") != 0 {
		t.Errorf("after the restart: %q, red advertises %d: an unknown verdict is not up", got, w.advertised("red"))
	}
}

// TestRestartWithAnotherSpec: nothing of the old Spec is left.
func TestRestartWithAnotherSpec(t *testing.T) {
	w := newWorld()
	bring(t, w, twoNetworks())
	other := twoNetworks()
	other.Networks, other.Pools, other.Policies = other.Networks[:1], other.Pools[:1], other.Policies[:1]
	settle(t, w.daemon(other))

	fresh := newWorld()
	settle(t, fresh.daemon(other))
	// The restarted one keeps the routes and verdict it took over; the rest is equal.
	have, _ := w.kernel.Snapshot(t.Context())
	for _, v := range have.Config.VRFs {
		if v.Name == "blue" {
			t.Error("the VRF of a removed network is left")
		}
	}
	if !w.filter.Ruleset().Equal(fresh.filter.Ruleset()) {
		t.Errorf("packet filter differs from that of a fresh start:\n%s\n---\n%s", w.filter.Ruleset(), fresh.filter.Ruleset())
	}
}

// TestEveryFailureFailsClosed lets every single kernel operation and filter
// transaction of a start fail in turn: what is advertised must work, and the
// next rounds must mend it.
func TestEveryFailureFailsClosed(t *testing.T) {
	ops := func() int {
		w := newWorld()
		bring(t, w, twoNetworks())
		return len(w.kernel.Applied())
	}()
	if ops < 20 {
		t.Fatalf("a start takes %d operations: too few to mean anything", ops)
	}
	boom := errors.New("boom")
	for n := 1; n <= ops; n++ {
		w := newWorld()
		r := w.daemon(twoNetworks())
		// Routes and verdicts are there from the start, so that everything that
		// can be advertised would be in the very first round.
		w.kernel.FailNth(n, boom)
		_ = r.round(t.Context())
		w.learn()
		w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
		for range 3 {
			_ = r.round(t.Context())
			checkAdvertised(t, w, r, fmt.Sprintf("operation %d failed", n))
		}
		r.kernelDirty.Store(true)
		settle(t, r)
		if got := phases(r); got != "blue Up, red Up" {
			t.Errorf("operation %d failed once: %q after the next rounds", n, got)
		}
	}
	for n := 1; n <= 3; n++ {
		w := newWorld()
		r := w.daemon(twoNetworks())
		w.filter.Fail(nattest.Apply, n, boom)
		if err := r.round(t.Context()); n <= 2 && err == nil {
			t.Errorf("transaction %d failed and the round had no error", n)
		}
		if n == 1 && slices.Contains(w.journal, "kernel") {
			t.Error("without guards the kernel was touched")
		}
		checkAdvertised(t, w, r, fmt.Sprintf("transaction %d failed", n))
		w.learn()
		w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
		r.filterDirty.Store(true)
		settle(t, r)
		if got := phases(r); got != "blue Up, red Up" {
			t.Errorf("transaction %d failed once: %q", n, got)
		}
	}
}

// checkAdvertised is law 4: what is advertised has its VRF, its pool's blackhole
// route, a rule to its table and none that blocks it.
func checkAdvertised(t *testing.T, w *world, r *Router, when string) {
	t.Helper()
	have, err := w.kernel.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st := Observe(have, r.spec.Settings.Ownership)
	for _, n := range r.spec.Networks {
		if w.advertised(n.Name) == 0 {
			continue
		}
		if !st.Adopted[n.Name].Forwarding {
			t.Errorf("%s: %s is advertised and its traffic is not forwarded", when, n.Name)
		}
		if !strings.Contains(w.filter.Ruleset().String(), "policy_team-a") {
			t.Errorf("%s: %s is advertised without translation", when, n.Name)
		}
	}
}

func TestOneNetworksErrorStaysItsOwn(t *testing.T) {
	w := newWorld()
	w.kernel.AddLink(vrf.Link{Name: "red", Kind: "dummy"}) // somebody else's device has our name
	r := w.daemon(twoNetworks())
	_ = r.round(t.Context())
	w.learn()
	w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
	for range 3 {
		_ = r.round(t.Context())
	}
	if got := phases(r); got != "blue Up, red Error" {
		t.Errorf("phases %q", got)
	}
	if w.advertised("red") != 0 || w.advertised("blue") != 2 {
		t.Errorf("red advertises %d, blue %d", w.advertised("red"), w.advertised("blue"))
	}
	for _, n := range r.Status().Networks {
		if n.Name == "red" && !strings.Contains(n.Reason, "red") {
			t.Errorf("the reason does not name what is in the way: %q", n.Reason)
		}
	}
}

// TestRunRepairsDrift runs the loop itself, with time under control: what
// somebody deletes comes back by the event, and is counted.
func TestRunRepairsDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.daemon(twoNetworks())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		r.trigger.Fire()
		synctest.Wait()
		w.learn()
		w.verdict(probes.Up, "red/icmp0", "blue/icmp0")
		r.trigger.Fire()
		synctest.Wait()
		if got := phases(r); got != "blue Up, red Up" {
			t.Fatalf("phases %q", got)
		}
		begin := time.Now()
		have, _ := w.kernel.Snapshot(t.Context())
		if err := w.kernel.Do(vrf.DeleteRule{Rule: have.Config.Rules[0]}); err != nil {
			t.Fatal(err)
		}
		if err := w.kernel.SetMaster("eth1", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.filter.Edit(func(rs *nat.Ruleset) { *rs = nat.Ruleset{} })
		synctest.Wait()
		if time.Since(begin) != 0 {
			t.Errorf("repair waited %s for a timer, it must come by the event", time.Since(begin))
		}
		have, _ = w.kernel.Snapshot(t.Context())
		if plan := vrf.Diff(have, r.prev.Kernel); !plan.Empty() {
			t.Errorf("not repaired:\n%s", plan)
		}
		if !w.filter.Ruleset().Equal(nat.Render(r.prev.NAT)) {
			t.Error("the table was not repaired")
		}
		if n := r.Status().Round.Repairs; n < 2 {
			t.Errorf("%d repairs counted, want at least 2", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestRejectedReloadKeepsRunning: a refused configuration shows in the status
// and changes nothing.
func TestRejectedReloadKeepsRunning(t *testing.T) {
	w := newWorld()
	r := bring(t, w, twoNetworks())
	w.journal = nil
	r.Reject(errors.New("networks[0].name: is missing"))
	settle(t, r)
	if s := r.Status().Config; s.Error != "networks[0].name: is missing" || s.Rejected != 1 {
		t.Errorf("status %+v", s)
	}
	if slices.Contains(w.journal, "kernel") || w.advertised("red") != 2 {
		t.Errorf("a refused reload did %v, red advertises %d", w.journal, w.advertised("red"))
	}
	r.SetSpec(twoNetworks())
	r.take()
	settle(t, r)
	if s := r.Status().Config; s.Error != "" {
		t.Errorf("after a good reload the error is still %q", s.Error)
	}
}

func TestPoolEditWithdrawsOldBeforeNew(t *testing.T) {
	w := newWorld()
	r := bring(t, w, twoNetworks())
	spec := twoNetworks()
	spec.Pools[0].Prefixes = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28"), netip.MustParsePrefix("192.0.2.0/28")}
	w.journal = nil
	r.SetSpec(spec)
	r.take()
	settle(t, r)
	i, j := slices.Index(w.journal, "speaker advertises 3"), slices.Index(w.journal, "kernel")
	if i < 0 || j < 0 || i > j {
		t.Errorf("order %v: want the lost prefix withdrawn (3 left) before the kernel changes", w.journal)
	}
	if w.advertised("red") != 2 {
		t.Errorf("red advertises %d, want 2", w.advertised("red"))
	}
}
