package nat

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func poolOf(n int) []netip.Addr {
	out := make([]netip.Addr, 0, n)
	a := netip.MustParseAddr("198.51.100.0")
	for range n {
		out = append(out, a)
		a = a.Next()
	}
	return out
}

func TestBucketsAreEven(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 16, 100, 255, 256, 1000} {
		buckets := bucketCount(n)
		count := map[netip.Addr]int{}
		for _, a := range Buckets(poolOf(n), buckets) {
			count[a]++
		}
		for _, a := range poolOf(n) {
			if c := count[a]; c != buckets/n && c != (buckets+n-1)/n {
				t.Errorf("%d addresses: %s has %d of %d buckets", n, a, c, buckets)
			}
		}
	}
}

// An address that comes takes its share, and hardly anything else moves; one
// that goes gives its own away.
func TestBucketsMoveLittle(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	for _, n := range []int{1, 2, 3, 7, 15, 31, 100, 200} {
		pool := poolOf(n + 1)
		rng.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
		buckets := bucketCount(n)
		before, after := Buckets(pool[:n], buckets), Buckets(pool, buckets)
		moved, strays := 0, 0
		for i := range before {
			if before[i] != after[i] {
				moved++
				if after[i] != pool[n] {
					strays++
				}
			}
		}
		share := buckets / (n + 1)
		t.Logf("%d addresses and one: %d of %d buckets move, its share is %d, %d go elsewhere", n, moved, buckets, share, strays)
		if strays > buckets/16 {
			t.Errorf("%d addresses and one: %d of %d buckets move between old addresses", n, strays, buckets)
		}
	}
}

func TestBucketsIgnoreOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 11))
	pool := poolOf(9)
	want := Buckets(pool, 1024)
	for range 10 {
		rng.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
		if !slices.Equal(Buckets(append(pool, pool[3]), 1024), want) {
			t.Fatal("another order or a duplicate gives other buckets")
		}
	}
	if Buckets(nil, 1024) != nil {
		t.Error("buckets without addresses")
	}
}

// The assignment is part of what a client relies on over restarts and versions:
// it never changes.
func TestBucketsStayForever(t *testing.T) {
	got := Buckets(addrs("198.51.100.1", "198.51.100.2", "198.51.100.3"), 1024)
	var last []byte
	for _, a := range got[:16] {
		last = append(last, '0'+a.As4()[3])
	}
	if want := "2112122212113121"; string(last) != want {
		t.Errorf("the first buckets are %s, want %s", last, want)
	}
}
