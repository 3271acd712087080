package nat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// Both sides of these benchmarks run in turn within one run (A B A B), and what
// counts is the ratio of their medians: times on a shared machine are worth
// little, a ratio of neighbours is.

// benchTable is the table of a fresh namespace.
func benchTable(b *testing.B) (*Table, func(func() error)) {
	b.Helper()
	lab.Require(b, lab.Nft)
	ns := lab.New(b).MustNamespace("gw")
	var t *Table
	do := func(f func() error) {
		b.Helper()
		if err := ns.Do(f); err != nil {
			b.Fatal(err)
		}
	}
	do(func() (err error) { t, err = Open(slog.New(slog.DiscardHandler)); return err })
	return t, do
}

// timed runs f and appends how long it took.
func timed(to *[]time.Duration, f func() error) error {
	start := time.Now()
	err := f()
	*to = append(*to, time.Since(start))
	return err
}

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func report(b *testing.B, all []time.Duration, unit string) {
	b.ReportMetric(float64(median(all).Microseconds())/1000, unit)
}

// floor loads a file with nft as from a shell.
func floor(ctx context.Context, t *Table, file string) error {
	_, err := t.run(ctx, true, "", "-f", file)
	return err
}

func write(b *testing.B, name, text string) string {
	b.Helper()
	path := b.TempDir() + "/" + name
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkColdStart is from a Config to a kernel that had nothing, and from a
// file with the same objects to the kernel by "nft -f".
func BenchmarkColdStart(b *testing.B) {
	for _, size := range []struct{ policies, destinations int }{{1000, 100}, {1, 1000}, {1, 100000}} {
		b.Run(fmt.Sprintf("%dx%d", size.policies, size.destinations), func(b *testing.B) {
			t, do := benchTable(b)
			cfg := sizedConfig(size.policies, size.destinations)
			file := write(b, "table.nft", Render(cfg).String())
			var ours, nft []time.Duration
			for b.Loop() {
				do(func() error {
					return errors.Join(
						timed(&ours, func() error { return t.Apply(b.Context(), Diff(Ruleset{}, NewRenderer().Render(cfg))) }),
						t.Delete(b.Context()),
						timed(&nft, func() error { return floor(b.Context(), t, file) }),
						t.Delete(b.Context()))
				})
			}
			report(b, ours, "ours-ms")
			report(b, nft, "nft-ms")
			b.ReportMetric(float64(median(ours))/float64(median(nft)), "ratio")
		})
	}
}

// sizedConfig is bigConfig, also for a policy of more destinations than that
// can have.
func sizedConfig(policies, destinations int) Config {
	if destinations <= 256 {
		return bigConfig(policies, destinations)
	}
	cfg := bigConfig(policies, 1)
	for p := range cfg.Policies {
		for d := range destinations {
			cfg.Policies[p].Rules = append(cfg.Policies[p].Rules,
				rule(fmt.Sprintf("11.%d.%d.%d/30", d>>12, d>>4&255, d&15*16), ToExit, fmt.Sprintf("red.%d", d%4)))
		}
	}
	return cfg
}

// BenchmarkApplyEdit is an edit of one policy among a thousand: from the new
// Config to the kernel having it, as the daemon does it, and by "nft -f" with
// the commands of the edit alone.
func BenchmarkApplyEdit(b *testing.B) {
	for _, size := range []struct{ policies, destinations int }{{1, 100}, {1000, 100}, {1, 100000}} {
		b.Run(fmt.Sprintf("%dx%d", size.policies, size.destinations), func(b *testing.B) {
			t, do := benchTable(b)
			r := NewRenderer()
			cfgs := [2]Config{sizedConfig(size.policies, size.destinations), sizedConfig(size.policies, size.destinations)}
			edited := &cfgs[1].Policies[size.policies/2]
			edited.Rules = append(slices.Clone(edited.Rules[1:]), rule("12.0.0.0/8", Drop, ""))
			have := r.Render(cfgs[0])
			do(func() error { return t.Apply(b.Context(), Diff(Ruleset{}, have)) })
			next := r.Render(cfgs[1])
			files := [2]string{write(b, "there", Diff(have, next).script()), write(b, "back", Diff(next, have).script())}
			var ours, render, diff, nft []time.Duration
			for b.Loop() {
				for i := range 2 {
					var want Ruleset
					var plan Plan
					do(func() error {
						return timed(&ours, func() error {
							_ = timed(&render, func() error { want = r.Render(cfgs[1-i]); return nil })
							_ = timed(&diff, func() error { plan = Diff(have, want); return nil })
							return t.Apply(b.Context(), plan)
						})
					})
					have = want
				}
				for i := range 2 {
					do(func() error { return timed(&nft, func() error { return floor(b.Context(), t, files[i]) }) })
				}
			}
			report(b, ours, "ours-ms")
			report(b, render, "render-ms")
			report(b, diff, "diff-ms")
			report(b, nft, "nft-ms")
			b.ReportMetric(float64(median(ours))/float64(median(nft)), "ratio")
		})
	}
}

// BenchmarkMemory is what a rendered prefix takes of our heap.
func BenchmarkMemory(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		cfg := bigConfig(1000, 100)
		before := heap()
		r := NewRenderer()
		out := r.Render(cfg)
		after := heap()
		runtime.KeepAlive(out)
		runtime.KeepAlive(r)
		runtime.KeepAlive(cfg)
		b.ReportMetric(float64(after-before)/100000, "B/prefix")
	}
}
