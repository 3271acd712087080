package probes_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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
	acceptAll(b, p.far)
	for _, kind := range []probes.Type{probes.ICMP, probes.ARPND, probes.TCP} {
		want := onePerConfig(targets)
		for i := range want {
			if want[i].Type = kind; kind == probes.TCP {
				t := &want[i].Targets[0]
				t.Endpoint, t.Address = netip.AddrPortFrom(t.Address, 80), netip.Addr{}
			}
		}
		b.Run(string(kind), func(b *testing.B) {
			for b.Loop() {
				measure(b, p, want)
			}
		})
	}
}

// acceptAll takes connections to port 80 of every address in ns.
func acceptAll(b *testing.B, ns *lab.NS) {
	b.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", ":80")
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
}

// BenchmarkSet is a Set of 500 probes of which nothing, or one, has changed.
func BenchmarkSet(b *testing.B) {
	p := probes.New(slog.New(slog.DiscardHandler), nil)
	defer p.Close()
	want := many(500)
	for _, change := range []bool{false, true} {
		b.Run(fmt.Sprintf("change=%v", change), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if change {
					want[250].Fall = 2 + i%2
				}
				if err := p.Set(want); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkState reads the state of 500 probes.
func BenchmarkState(b *testing.B) {
	p := probes.New(slog.New(slog.DiscardHandler), nil)
	defer p.Close()
	if err := p.Set(many(500)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(p.State()) != 500 {
			b.Fatal("not all")
		}
	}
}

// many are n probes that send nothing: their device does not exist.
func many(n int) []probes.Config {
	var targets []string
	for i := range n {
		targets = append(targets, fmt.Sprintf("10.8.%d.%d", i/250, i%250+1))
	}
	want := onePerConfig(targets)
	for i := range want {
		want[i].Device, want[i].Interval = "egret-nowhere", time.Hour
	}
	return want
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
	b.ReportMetric(100*float64(last.Cost.CPU-first.Cost.CPU)/float64(took), "metered%")
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

func allUp(r report) error {
	for _, s := range r.States {
		if s.Verdict != probes.Up {
			return fmt.Errorf("not up: %+v", s)
		}
	}
	if len(r.States) == 0 {
		return fmt.Errorf("no probes")
	}
	return nil
}
