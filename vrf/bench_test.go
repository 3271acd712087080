package vrf_test

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
)

// full is the want of two networks with n learned routes in the first.
func full(n int) vrf.Config {
	c := overlapping()
	for i := range n {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 20<<24|uint32(i)<<8)
		c.Routes = append(c.Routes, vrf.Route{
			Table: 10001, Prefix: netip.PrefixFrom(netip.AddrFrom4(b), 24), Metric: 20,
			Type: vrf.Unicast, NextHop: c.Groups[0].ID, Learned: true,
		})
	}
	return c
}

func BenchmarkDiff100kRoutes(b *testing.B) {
	want := full(100000)
	empty := snapshot(b, ports())
	k := ports()
	must(b, k.Apply(b.Context(), vrf.Diff(empty, want)).Err())
	same := snapshot(b, k)
	swapped := full(100000)
	for i := range swapped.Routes {
		if swapped.Routes[i].Learned {
			swapped.Routes[i].Metric = 30
		}
	}
	for _, bench := range []struct {
		name  string
		have  vrf.Snapshot
		want  vrf.Config
		steps int
	}{
		{"add all", empty, want, 100044}, {"nothing to do", same, want, 0}, {"nothing to do, in order", same, same.Config, 0},
		{"move all", same, swapped, 200000}, {"remove all", same, vrf.Config{}, 100034},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime()
			defer func() { b.ReportMetric(1000*(processorTime()-before).Seconds()/float64(b.N), "cpu-ms/op") }()
			for b.Loop() {
				if plan := vrf.Diff(bench.have, bench.want); len(plan.Ops) != bench.steps {
					b.Fatalf("%d steps, not %d", len(plan.Ops), bench.steps)
				}
			}
		})
	}
}

// processorTime is what this process has used: on a machine under load it says more
// than a clock.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkKernel100kRoutes adds, reads and deletes routes in a real kernel.
func BenchmarkKernel100kRoutes(b *testing.B) {
	lab.Require(b, lab.Root)
	l := lab.New(b)
	gw, far := l.MustNamespace("gw"), l.MustNamespace("far")
	l.MustLink(gw, "eth1", far, "eth1")
	l.MustLink(gw, "eth2", far, "eth2")
	must(b, gw.Sysctl("net.ipv4.nexthop_compat_mode", "0"))
	k := openIn(b, gw, slog.New(slog.DiscardHandler))
	want := routing("192.0.2.1")
	want.Routes = append(want.Routes, full(100000).Routes[8:]...)
	for i := range want.Routes {
		if want.Routes[i].Learned && want.Routes[i].Prefix.Addr().Is4() {
			want.Routes[i].NextHop, want.Routes[i].Table = want.Groups[0].ID, 5000
		}
	}
	var add, read, remove time.Duration
	for b.Loop() {
		clock := time.Now()
		must(b, k.Apply(b.Context(), vrf.Diff(snapshot(b, k), want)).Err())
		add += time.Since(clock)
		clock = time.Now()
		have := snapshot(b, k)
		read += time.Since(clock)
		clock = time.Now()
		must(b, k.Apply(b.Context(), vrf.Teardown(have)).Err())
		remove += time.Since(clock)
	}
	for what, d := range map[string]time.Duration{"s/add": add, "s/snapshot": read, "s/delete": remove} {
		b.ReportMetric(d.Seconds()/float64(b.N), what)
	}
}

// BenchmarkDiffRules plans lookups of 4000 marks behind two levels of gotos.
func BenchmarkDiffRules(b *testing.B) {
	tree := func(start uint32) (c vrf.Config) {
		jump := func(priority uint32, mark, mask vrf.Mark, target uint32) {
			c.Rules = append(c.Rules, vrf.Rule{Priority: priority, Mark: mark, Mask: mask, Action: vrf.RuleGoto, Target: target})
		}
		for low := range vrf.Mark(64) {
			jump(start, 0x10000000|low<<16, 0x103f0000, start+1+uint32(low))
		}
		for n := range vrf.Mark(4000) {
			c.Rules = append(c.Rules, vrf.Rule{Priority: start + 1 + uint32(n&63), Mark: 0x10000000 | n<<16, Mask: 0x1fff0000,
				Action: vrf.RuleLookup, Table: 10000 + vrf.TableID(n)})
		}
		c.Rules = append(c.Rules, vrf.Rule{Priority: 990, Mark: 0x10000000, Mask: 0x10000000, Action: vrf.RuleUnreachable})
		return c
	}
	k := ports()
	empty := snapshot(b, k)
	must(b, k.Apply(b.Context(), vrf.Diff(empty, tree(810))).Err())
	have := snapshot(b, k)
	for _, bench := range []struct {
		name  string
		have  vrf.Snapshot
		want  vrf.Config
		steps int
	}{{"add all", empty, tree(810), 4065}, {"nothing to do", have, tree(810), 0}, {"move all", have, tree(900), 8128}} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				if plan := vrf.Diff(bench.have, bench.want); len(plan.Ops) != bench.steps || len(plan.Errors) > 0 {
					b.Fatalf("%d steps, not %d: %v", len(plan.Ops), bench.steps, plan.Errors)
				}
			}
		})
	}
}

// BenchmarkApplyTo follows a change of two groups, and of one route, under 100,000.
func BenchmarkApplyTo(b *testing.B) {
	k, want := ports(), full(100000)
	must(b, k.Apply(b.Context(), vrf.Diff(snapshot(b, k), want)).Err())
	have := snapshot(b, k)
	groups, route := full(100000), full(100000)
	groups.Groups[0].Members[0].Weight, groups.Groups[1].Members[0].Weight = 2, 2
	route.Routes[500].Metric = 30
	for name, want := range map[string]vrf.Config{"two groups": groups, "one route": route} {
		plan := vrf.Diff(have, want)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := plan.ApplyTo(have); !ok || len(plan.Ops) != 2 {
					b.Fatal(plan)
				}
			}
		})
	}
}
