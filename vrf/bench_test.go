package vrf_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/egret-router/egret/vrf"
)

// full is the want of two networks with n learned routes in the first.
func full(n int) vrf.Config {
	c := overlapping()
	for i := range n {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 20<<24|uint32(i)<<8)
		c.Routes = append(c.Routes, vrf.Route{
			Table: 10001, Prefix: netip.PrefixFrom(netip.AddrFrom4(b), 24), Metric: 20,
			Type: vrf.Unicast, NextHop: c.Groups[0].ID, Learned: true,
		})
	}
	return c
}

func BenchmarkDiff100kRoutes(b *testing.B) {
	want := full(100000)
	empty := snapshot(b, ports())
	k := ports()
	must(b, k.Apply(b.Context(), vrf.Diff(empty, want)).Err())
	same := snapshot(b, k)
	swapped := full(100000)
	for i := range swapped.Routes {
		if swapped.Routes[i].Learned {
			swapped.Routes[i].Metric = 30
		}
	}
	for _, bench := range []struct {
		name  string
		have  vrf.Snapshot
		want  vrf.Config
		steps int
	}{
		{"add all", empty, want, 100044}, {"nothing to do", same, want, 0},
		{"move all", same, swapped, 200000}, {"remove all", same, vrf.Config{}, 100034},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if plan := vrf.Diff(bench.have, bench.want); len(plan.Ops) != bench.steps {
					b.Fatalf("%d steps, not %d", len(plan.Ops), bench.steps)
				}
			}
		})
	}
}
