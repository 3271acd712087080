package vrf

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSortRuns compares with the library's sort on lists of many runs and of few.
func TestSortRuns(t *testing.T) {
	for seed := range uint64(200) {
		g := rand.New(rand.NewPCG(seed, 2))
		list := make([]int, g.IntN(500))
		run := 1 + g.IntN(100)
		for i := range list {
			if list[i] = g.IntN(1000); i%run > 0 {
				list[i] = list[i-1] + g.IntN(3)
			}
		}
		want := slices.Sorted(slices.Values(list))
		if sortRuns(list, cmp.Compare[int]); !slices.Equal(list, want) {
			t.Fatalf("seed %d: %v, want %v", seed, list, want)
		}
	}
}
