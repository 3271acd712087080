package main

import (
	"slices"
)

// median of a list that is not empty.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// spread is the distance of the extremes relative to the median.
func spread(values []float64) float64 {
	if m := median(values); m != 0 {
		return (slices.Max(values) - slices.Min(values)) / m
	}
	return 0
}
