package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/nat/nattest"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

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
