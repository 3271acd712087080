package probes_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

// benchTime is how long a measurement goes on.
const benchTime = 10 * time.Second

// manyTargets are n addresses beyond the uplink g0, all of which answer.
func manyTargets(p pair, n int) []string {
	p.gw.MustIP("route add 10.8.0.0/16 via 10.0.0.5")
	p.far.MustIP("route add local 10.8.0.0/16 dev lo")
	var targets []string
	for i := range n {
		targets = append(targets, fmt.Sprintf("10.8.%d.%d", i/250, i%250+1))
	}
	return targets
}

// onePerConfig is a probe of its own for each target, as for next hops.
func onePerConfig(targets []string) []probes.Config {
	var want []probes.Config
	for i, t := range targets {
		c := icmpProbe(fmt.Sprintf("n/p%03d", i), "g0", t)
		c.Interval, c.AttemptTimeout, c.Rise, c.Fall = 300*time.Millisecond, 300*time.Millisecond, 3, 2
		want = append(want, c)
	}
	return want
}

// BenchmarkTargets measures the processor time of a process that probes 500
// targets every 300 ms, in percent of one processor. The system's part has the
// whole way to the far side and back, which is the same kernel.
func BenchmarkTargets(b *testing.B) {
	p := newPair(b)
	targets := manyTargets(p, 500)
	for _, kind := range []probes.Type{probes.ICMP} {
		b.Run(string(kind), func(b *testing.B) {
			for b.Loop() {
				measure(b, p, onePerConfig(targets))
			}
		})
	}
}

func measure(b *testing.B, p pair, want []probes.Config) {
	b.Helper()
	pr := startProber(b, p.gw, reportEnv+"=4s")
	defer func() { _ = pr.proc.Stop() }()
	pr.set(want...)
	lab.Eventually(b, time.Minute, "all probes to be up", func() error { return allUp(pr.report()) })
	first, began := pr.report(), time.Now()
	lab.Eventually(b, time.Minute, "the end of the measurement", func() error {
		if since := time.Since(began); since < benchTime {
			return fmt.Errorf("%v", since)
		}
		return nil
	})
	last := pr.report()
	took := last.At.Sub(first.At)
	a, f := totals(last)
	a0, f0 := totals(first)
	b.ReportMetric(100*float64(last.User-first.User+last.System-first.System)/float64(took), "cpu%")
	b.ReportMetric(100*float64(last.User-first.User)/float64(took), "user%")
	b.ReportMetric(float64(a-a0)/took.Seconds(), "attempts/s")
	b.ReportMetric(float64(f-f0), "failures")
	b.ReportMetric(0, "ns/op")
}

// totals are the attempts and failures of all targets.
func totals(r report) (attempts, failures uint64) {
	for _, s := range r.States {
		for _, t := range s.Targets {
			attempts += t.Attempts
			failures += t.Failures
		}
	}
	return attempts, failures
}
