//go:build soak

package probes_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

// soakEnv is how long TestSoak goes on; `make soak` sets it.
const soakEnv = "EGRET_SOAK"

// TestSoak probes 500 targets with the default timing while every processor is
// kept busy by others: none may be blamed for that. At the end a target that
// does fall silent is still noticed.
func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv(soakEnv))
	if err != nil {
		t.Fatalf("%s: %v", soakEnv, err)
	}
	p := newPair(t)
	targets := manyTargets(p, 500)
	pr := startProber(t, p.gw, reportEnv+"=1s")
	busy(t)
	pr.set(onePerConfig(targets)...)
	lab.Eventually(t, 2*time.Minute, "all probes to be up", func() error { return allUp(pr.report()) })
	first, began := pr.report(), time.Now()
	for mark := time.Minute; ; mark += time.Minute {
		lab.Eventually(t, 2*time.Minute, "the next minute", func() error {
			if since := time.Since(began); since < min(mark, duration) {
				return fmt.Errorf("%v", since)
			}
			return nil
		})
		r := pr.report()
		attempts, failures := totals(r)
		t.Logf("after %v: %d attempts, %d failed, %.1f %% of a processor", r.At.Sub(first.At).Round(time.Second), attempts, failures,
			100*float64(r.User+r.System-first.User-first.System)/float64(r.At.Sub(first.At)))
		if mark >= duration {
			break
		}
	}
	last := pr.report()
	if err := allUp(last); err != nil {
		t.Error(err)
	}
	for _, s := range last.States {
		if s.Changes != 1 || s.Targets[0].Changes != 1 {
			t.Errorf("blamed though it answered: %+v", s)
		}
	}
	if attempts, _ := totals(last); float64(attempts) < 500*duration.Seconds()/0.3/2 {
		t.Errorf("%d attempts only: starved", attempts)
	}
	p.far.MustIP("route add blackhole " + targets[77] + "/32")
	pr.verdict("n/p077", probes.Down)
	t.Logf("one fell silent: detected within %v", pr.state("n/p077").Targets[0].Detection)
}

// busy keeps every processor busy until the test ends.
func busy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	for range runtime.NumCPU() {
		go func() {
			for ctx.Err() == nil {
				for n := range 1_000_000 {
					_ = n * n
				}
			}
		}()
	}
}
