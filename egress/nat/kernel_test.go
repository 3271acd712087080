package nat

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/egret-router/egret/lab"
)

// kernelTable is the table of a fresh namespace.
type kernelTable struct {
	t  *testing.T
	ns *lab.NS
	*Table
	logged *logBuffer
}

// logBuffer is what the table logged.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newKernelTable(t *testing.T) kernelTable {
	t.Helper()
	lab.Require(t, lab.Nft)
	return tableIn(t, lab.New(t).MustNamespace("gw"))
}

func tableIn(t *testing.T, ns *lab.NS) kernelTable {
	t.Helper()
	k := kernelTable{t: t, ns: ns, logged: &logBuffer{}}
	k.do(func() (err error) {
		k.Table, err = Open(slog.New(slog.NewTextHandler(k.logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
		return err
	})
	return k
}

func (k kernelTable) do(f func() error) {
	k.t.Helper()
	if err := k.ns.Do(f); err != nil {
		k.t.Fatal(err)
	}
}

func (k kernelTable) snapshot() Ruleset {
	k.t.Helper()
	var r Ruleset
	k.do(func() (err error) { r, err = k.Snapshot(k.t.Context()); return err })
	return r
}

func (k kernelTable) apply(p Plan) {
	k.t.Helper()
	k.do(func() error { return k.Apply(k.t.Context(), p) })
}

// become makes the kernel's table want and checks that it is.
func (k kernelTable) become(want Ruleset) Plan {
	k.t.Helper()
	plan := Diff(k.snapshot(), want)
	k.apply(plan)
	k.is(want)
	return plan
}

func (k kernelTable) is(want Ruleset) {
	k.t.Helper()
	have := k.snapshot()
	if left := Diff(have, want); !left.Empty() || !have.Equal(want) {
		k.t.Fatalf("the kernel differs from what was wanted by\n%s", left)
	}
}

func (k kernelTable) nft(words string) error {
	_, err := k.ns.Run("nft", words)
	return err
}

func TestKernelTakesGoldens(t *testing.T) {
	k := newKernelTable(t)
	for name, cfg := range testConfigs() {
		cmd := k.ns.Command(t.Context(), "nft", "--check", "-f", "-")
		cmd.Stdin = strings.NewReader(Render(cfg).String())
		if _, err := k.ns.RunCommand(cmd); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKernelGivesBackWhatWasApplied(t *testing.T) {
	k := newKernelTable(t)
	if have := k.snapshot(); have.Exists {
		t.Fatalf("a table in a fresh namespace:\n%s", have)
	}
	for name, cfg := range testConfigs() {
		t.Logf("to %s", name)
		want := Render(cfg)
		k.do(func() error { return k.Check(t.Context(), Diff(k.snapshot(), want)) })
		k.apply(DiffGuards(k.snapshot(), want))
		k.become(want)
		if _, err := k.ns.Run("nft", "list", "ruleset"); err != nil {
			t.Errorf("nft cannot list the table as text: %v", err)
		}
	}
	k.apply(RemoveAllButGuards(k.snapshot()))
	for name := range k.snapshot().Chains {
		if !isGuard(name) {
			t.Errorf("chain %s is left beside the guards", name)
		}
	}
	for range 2 {
		k.do(func() error { return k.Delete(t.Context()) })
	}
	k.is(Ruleset{})
}

// Whatever somebody does to the table by hand is seen, and mended in one
// transaction.
func TestKernelMendsWhatHandsDo(t *testing.T) {
	cfg := dualConfig()
	cfg.DropUnmatched = true
	spread := spreadConfig()
	cfg.Exits = append(cfg.Exits, spread.Exits[len(cfg.Exits):]...)
	cfg.Spreads = spread.Spreads
	want := renderFew(cfg)
	k := newKernelTable(t)
	k.become(want)
	for i, damage := range []string{
		"delete table inet egret",
		"flush ruleset",
		"flush table inet egret",
		"add table inet egret { flags dormant; }",
		"flush chain inet egret guard_net_red",
		"flush chain inet egret keep_client",
		"flush map inet egret clients4",
		"flush set inet egret guard_uplinks",
		"add rule inet egret clients accept",
		"insert rule inet egret guard_uplink accept",
		"add rule inet egret classify tcp dport { 22, 80 } accept comment \"mine\"",
		"add chain inet egret mine { type filter hook forward priority 5; policy drop; }",
		"add chain inet egret mine; add rule inet egret classify jump mine",
		"add set inet egret mine { type inet_service; flags interval; auto-merge; elements = { 1-5, 80 }; }",
		"add map inet egret mine { type ipv4_addr . inet_service : verdict; flags interval; elements = { 10.0.0.0/8 . 80-90 : goto exit_red.pool }; }",
		"add set inet egret mine { type ipv4_addr; flags timeout; timeout 1h; elements = { 10.0.0.1 timeout 5m comment \"hi\" }; }; add rule inet egret keep ip saddr @mine drop",
		"add counter inet egret mine",
		"add quota inet egret mine { over 5 mbytes; }; add rule inet egret keep quota name \"mine\" drop",
		"add limit inet egret mine { rate 5/second; }",
		"add ct helper inet egret mine { type \"ftp\" protocol tcp; }",
		"delete element inet egret guard_uplinks { eth1 }",
		"delete element inet egret guard_ports { eth1 }; add element inet egret guard_ports { eth1 : accept }",
		"delete element inet egret guard_ports { eth1 }; add element inet egret guard_ports { eth1 comment \"x\" : goto guard_net_red }",
		"delete element inet egret dst4_team-red { 10.0.0.0/24 }",
		"delete element inet egret dst4_team-red { 10.0.0.0/24 }; add element inet egret dst4_team-red { 10.0.0.0/25 : goto exit_red.pool, 10.0.0.128/25 : goto exit_blue.pool }",
		"add element inet egret dst4_team-red { 11.0.0.0-11.0.0.5 : accept }",
		"add element inet egret clients6 { fd00:250::/64 : goto policy_team-red }",
		"delete element inet egret pool4_red-pool { 7 }",
		"delete element inet egret pool4_red-pool { 7 }; add element inet egret pool4_red-pool { 7 : 192.0.2.1, 5000 : 192.0.2.2 }",
		"delete element inet egret pools { 0x10000001 }",
		"delete element inet egret spreads { " + mark(spreadCodes(spreadConfig().Spreads)["two"]) + " }",
		"delete element inet egret buckets_four { 2 }; add element inet egret buckets_four { 2 : goto exit_blue.pool, 77 : drop }",
		"flush chain inet egret choose_four; delete map inet egret buckets_four; add map inet egret buckets_four { type mark : verdict; }",
		"add rule inet egret exit_red.falling accept",
		"add element inet egret guard_sources4_red { 10.244.0.0/16 }",
		"add element inet egret guard_sources6_blue { 4000::/3 }",
		"add element inet egret exempt4 { 10.0.0.0/24 }",
		"flush chain inet egret guard_uplink; delete chain inet egret guard_uplink",
		"flush chain inet egret guard_uplink; delete chain inet egret guard_uplink; add chain inet egret guard_uplink; add rule inet egret guard_uplink oifname vmap @guard_ports comment \"9d66d507d8fd\"",
		"delete chain inet egret guard_forward; add chain inet egret guard_forward { type filter hook forward priority 300; policy accept; }",
		"flush chain inet egret policy_team-red; delete map inet egret dst4_team-red",
		"flush chain inet egret policy_team-red; delete map inet egret dst4_team-red; add map inet egret dst4_team-red { type ipv4_addr : verdict; size 100; }",
		"flush chain inet egret policy_team-red; delete map inet egret dst4_team-red; add set inet egret dst4_team-red { type ether_addr; elements = { 00:11:22:33:44:55 }; }",
		"flush chain inet egret snat_red-pool; delete map inet egret pool4_red-pool; add map inet egret pool4_red-pool { type ipv4_addr : ipv4_addr; }",
		"flush chain inet egret deny_drop; delete counter inet egret drop_rule",
	} {
		if err := k.nft(damage); err != nil {
			t.Errorf("%s: %v", damage, err)
			continue
		}
		have := k.snapshot()
		plan := Diff(have, want)
		if plan.Empty() {
			t.Errorf("not seen: %s", damage)
		}
		if guards := DiffGuards(have, want); i%3 == 0 && !guards.Empty() {
			k.apply(guards)
			k.become(want)
			continue
		}
		k.apply(plan)
		if i%4 == 0 {
			k.is(want) // what is not mended would be seen at the latest here
		}
	}
	k.is(want)
}

// Every single rule and element is missed when it is gone. To save processes,
// one of each chain and set goes at a time.
func TestKernelMissesEverything(t *testing.T) {
	want := Render(smallConfig())
	k := newKernelTable(t)
	k.become(want)
	for i, last := 0, false; !last; i++ {
		last = true
		damaged, expect := want.Clone(), map[string]int{}
		for name, c := range want.Chains {
			if i < len(c.Lines) {
				last = false
				expect[name] = len(c.Lines)
				c.Lines = append(c.Lines[:i:i], c.Lines[i+1:]...)
				damaged.Chains[name] = c
			}
		}
		for name, s := range want.Sets {
			if keys := sortedKeys(s); i < len(keys) {
				last = false
				expect[name] = 1
				delete(damaged.Sets[name].Elements, keys[i])
			}
		}
		k.apply(Diff(want, damaged))
		plan := Diff(k.snapshot(), want)
		for _, op := range plan.Ops {
			if op.Verb == verbAdd {
				expect[op.Name]--
			}
		}
		for name, left := range expect {
			if left != 0 {
				t.Errorf("%s lacks number %d, and the plan is %d short\n%s", name, i, left, plan)
			}
		}
		k.apply(plan)
		k.is(want)
	}
}

var edits = flag.Int("edits", 25, "random edits of the kernel's table")

// Random edits, one after the other, lead to the same table as from scratch.
// Intervals that are cut, joined and moved within one transaction are where
// kernels have had bugs.
func TestKernelFollowsRandomEdits(t *testing.T) {
	k := newKernelTable(t)
	rng := rand.New(rand.NewPCG(uint64(*edits), 7))
	cfg := overlapConfig()
	have := k.snapshot()
	for step := range *edits {
		mutate(rng, &cfg)
		want := renderFew(cfg)
		if step%5 == 0 {
			k.apply(DiffGuards(have, want))
			have = k.snapshot()
		}
		plan := Diff(have, want)
		k.apply(plan)
		have = k.snapshot()
		if left := Diff(have, want); !left.Empty() {
			t.Fatalf("step %d: after\n%s\nstill to do\n%s", step, plan, left)
		}
	}
}

func TestApplyIsAtomic(t *testing.T) {
	k := newKernelTable(t)
	want := Render(smallConfig())
	k.become(want)
	plan := Plan{Ops: []Op{
		{Verb: verbFlush, Kind: kindChain, Name: chainGuardForward},
		{Verb: verbDelete, Kind: kindElement, Name: mapClients4, Key: "192.0.2.1"},
	}}
	k.do(func() error {
		if err := k.Check(t.Context(), plan); err == nil {
			t.Error("Check takes a plan that cannot be")
		}
		err := k.Apply(t.Context(), plan)
		if err == nil || !strings.Contains(err.Error(), "change table") {
			t.Errorf("Apply: %v", err)
		}
		return nil
	})
	k.is(want)
}

func TestApplyEndsWithContext(t *testing.T) {
	k := newKernelTable(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k.do(func() error {
		if err := k.Apply(ctx, Diff(Ruleset{}, Render(smallConfig()))); err == nil {
			t.Error("no error after the end of the context")
		}
		return nil
	})
	k.is(Ruleset{})
}

func TestOpenWithoutNft(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Open(slog.Default()); err == nil || !strings.Contains(err.Error(), "nft") {
		t.Errorf("Open without nft: %v", err)
	}
	if _, err := exec.LookPath("nft"); err == nil {
		t.Error("the test does not hide nft")
	}
}

func TestKernelCounters(t *testing.T) {
	k := newKernelTable(t)
	counters := func() (out map[string]Counter) {
		k.do(func() (err error) { out, err = k.Counters(t.Context()); return err })
		return out
	}
	if got := counters(); len(got) != 0 {
		t.Errorf("counters without a table: %v", got)
	}
	k.become(Render(smallConfig()))
	got := counters()
	if c := got["guard_drops_red"]; c.Reason != ReasonUplink || c.Network != "red" {
		t.Errorf("%+v", got)
	}
	if len(got) != 9 {
		t.Errorf("%d counters: %+v", len(got), got)
	}
}

// What reading the table and editing it costs the kernel and nft, at 1,000
// policies of 100 destinations.
func BenchmarkKernel(b *testing.B) {
	lab.Require(b, lab.Nft)
	ns := lab.New(b).MustNamespace("gw")
	run := func(name string, f func(t *Table) error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ns.Do(func() error {
					t, err := Open(slog.Default())
					if err != nil {
						return err
					}
					return f(t)
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	cfg := bigConfig(1000, 100)
	big := Render(cfg)
	cfg.Policies[500].Rules = append([]Rule{rule("11.0.0.0/8", Drop, "")}, cfg.Policies[500].Rules...)
	there, back := Diff(big, Render(cfg)), Diff(Render(cfg), big)
	run("load", func(t *Table) error {
		return errors.Join(t.Delete(b.Context()), t.Apply(b.Context(), Diff(Ruleset{}, big)))
	})
	run("snapshot", func(t *Table) error { _, err := t.Snapshot(b.Context()); return err })
	run("edit there and back", func(t *Table) error {
		return errors.Join(t.Apply(b.Context(), there), t.Apply(b.Context(), back))
	})
}
