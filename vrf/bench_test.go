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
