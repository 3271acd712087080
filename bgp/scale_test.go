package bgp

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// BenchmarkLearn measures from the first announcement of a peer to the last
// route in State, and the heap that stays per route.
func BenchmarkLearn(b *testing.B) {
	for _, count := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for range b.N {
				learn(b, count)
			}
		})
	}
}

// learn has the mirror take in so many paths as GoBGP's callbacks bring them,
// and State derive the routes.
func learn(b *testing.B, count int) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := newRIB()
	peer := netip.MustParseAddr("172.16.0.2")
	r.setPeer(peer, peerPolicy{rules: anything})
	start := time.Now()
	for i := range count {
		a := netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0})
		r.announce(peer, pathKey{prefix: netip.PrefixFrom(a, 24)}, candidate{nextHop: peer, asPathLen: 1 + i%4, neighborAS: 65001})
	}
	if n := len(r.snapshot()); n != count {
		b.Fatalf("%d routes", n)
	}
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(took.Nanoseconds())/float64(count), "ns/route")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(count), "B/route")
	runtime.KeepAlive(r)
}
