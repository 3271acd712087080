package vrf_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
)

// BenchmarkApplyAgainstIP adds 100,000 routes by Apply and by "ip -batch" in turns, to
// tables of one kernel, and reports how many times as long Apply takes.
func BenchmarkApplyAgainstIP(b *testing.B) {
	lab.Require(b, lab.Root)
	l := lab.New(b)
	gw := l.MustNamespace("gw")
	gw.Must("ip", "link", "set", "lo", "up")
	must(b, gw.Sysctl("net.ipv4.nexthop_compat_mode", "0"))
	k := openIn(b, gw, slog.New(slog.DiscardHandler))
	black := hop(vrf.NextHop{Blackhole: true})
	group := vrf.Group{ID: vrf.GroupIDFor(owner, "all"), Members: []vrf.Member{{ID: black.ID, Weight: 1}}}
	setup := vrf.Plan{Ops: []vrf.Op{{Action: vrf.PutNextHop{NextHop: black}}, {Action: vrf.PutGroup{Group: group}}}}
	must(b, k.Apply(b.Context(), setup).Err())
	var plan, away vrf.Plan
	var batch strings.Builder
	for _, r := range full(100000).Routes {
		if r.Learned {
			r.NextHop, r.Table = group.ID, 5000
			plan.Ops = append(plan.Ops, vrf.Op{Action: vrf.PutRoute{Route: r}})
			away.Ops = append(away.Ops, vrf.Op{Action: vrf.DeleteRoute{Route: r}})
			r.Table = 5001
			away.Ops = append(away.Ops, vrf.Op{Action: vrf.DeleteRoute{Route: r}})
			fmt.Fprintf(&batch, "route add %s nhid %d table 5001 metric 20 proto 109\n", r.Prefix, r.NextHop)
		}
	}
	clear := func() { must(b, k.Apply(b.Context(), away).Err()) }
	var ours, theirs []float64
	for b.Loop() {
		b.StopTimer()
		clear()
		clock := time.Now()
		must(b, k.Apply(b.Context(), plan).Err())
		ours = append(ours, time.Since(clock).Seconds())
		clear()
		cmd := gw.Command(b.Context(), "ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(batch.String())
		clock = time.Now()
		if _, err := gw.RunCommand(cmd); err != nil {
			b.Fatal(err)
		}
		theirs = append(theirs, time.Since(clock).Seconds())
		b.StartTimer()
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	middle := len(ours) / 2
	b.ReportMetric(ours[middle], "s/apply")
	b.ReportMetric(theirs[middle], "s/ip-batch")
	b.ReportMetric(ours[middle]/theirs[middle], "apply/ip")
}
