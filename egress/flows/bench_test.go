package flows

import (
	"runtime"
	"testing"

	"github.com/egret-router/egret/lab"
)

// BenchmarkSweep needs root. It takes 500,000 entries, or as many as the machine's
// nf_conntrack_max allows.
func BenchmarkSweep(b *testing.B) {
	lab.Require(b, lab.Nft)
	table := openIn(b, lab.New(b).MustNamespace("gw"))
	s, err := table.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	list := many(min(500_000, int(s.Max)*9/10))
	if err := table.create(b.Context(), list...); err != nil {
		b.Fatal(err)
	}
	n := len(list)
	list = nil // else it counts as our memory
	sweep := func(b *testing.B, mark, mask uint32, want int, judge func(Flow) bool) {
		b.Helper()
		r, err := table.Sweep(b.Context(), mark, mask, judge)
		if err != nil || r.Seen < want {
			b.Fatalf("seen %d of %d, %v", r.Seen, want, err)
		}
	}
	run := func(name string, f func(*testing.B)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			runtime.GC()
			for b.Loop() {
				f(b)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MiB")
		})
	}
	run("count", func(b *testing.B) { sweep(b, maskAll, maskAll, n, nil) })
	run("one mark of 7", func(b *testing.B) { sweep(b, markRed&maskHop, maskHop, n/8, nil) })
	run("usage", func(b *testing.B) {
		u := NewUsage(100_000)
		sweep(b, maskAll, maskAll, n, func(f Flow) bool { u.Add(f); return false })
	})
	b.Run("cut", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			s, err := table.Stats(b.Context())
			if missing := n - int(s.Count); err == nil && missing > 0 {
				err = table.create(b.Context(), many(missing)...)
			}
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			sweep(b, maskAll, maskAll, n, func(Flow) bool { return true })
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
	})
}

func BenchmarkParseEntry(b *testing.B) {
	bytes := payload(complete(everyProto()[0].message()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseEntry(bytes); err != nil {
			b.Fatal(err)
		}
	}
}
