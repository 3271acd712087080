package vrf_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/egret-router/egret/vrf"
)

// TestIDs: ids are stable over releases (they are how a restarted daemon finds its
// objects), lie in the range, and next hops and groups never share one.
func TestIDs(t *testing.T) {
	n := vrf.NextHop{Gateway: addr("172.16.0.2"), Device: "eth1"}
	if id := vrf.NextHopIDFor(owner, n); id != 0x21f88032 {
		t.Errorf("the id of %v is now %#x: running gateways would replace all their next hops", n, id)
	}
	if id := vrf.GroupIDFor(owner, "red"); id != 0x2e4e6a93 {
		t.Errorf("the id of group red is now %#x", id)
	}
	variants := []vrf.NextHop{n, n, n, n, n, n}
	variants[1].OnLink = true
	variants[2].Device = "eth2"
	variants[3].Gateway = addr("172.16.0.3")
	variants[4] = vrf.NextHop{Blackhole: true}
	variants[5] = vrf.NextHop{Blackhole: true, IPv6: true}
	seen := map[vrf.NextHopID]bool{}
	for _, v := range variants {
		id := vrf.NextHopIDFor(owner, v)
		if seen[id] {
			t.Errorf("%v shares the id %#x", v, id)
		}
		seen[id] = true
		v.ID = 77
		if vrf.NextHopIDFor(owner, v) != id {
			t.Errorf("the id of %v depends on its ID field", v)
		}
	}
	for i := range 10000 {
		hop := vrf.NextHopIDFor(owner, vrf.NextHop{Device: fmt.Sprint(i)})
		group := vrf.GroupIDFor(owner, fmt.Sprint(i))
		if !owner.NextHopIDs.Contains(uint32(hop)) || !owner.NextHopIDs.Contains(uint32(group)) || hop%2 != 0 || group%2 != 1 {
			t.Fatalf("ids %#x and %#x", hop, group)
		}
	}
}

// TestAllocator fills a tiny range: everything collides, and still every content
// has an id of its own, as far as there are ids.
func TestAllocator(t *testing.T) {
	tiny := owner
	tiny.NextHopIDs = vrf.Range{First: 101, Last: 121} // ten of each kind, one over
	have := vrf.Snapshot{Owner: tiny, Foreign: vrf.Foreign{NextHops: []vrf.NextHopID{103, 104}}}
	a := vrf.NewAllocator(have)
	used := map[vrf.NextHopID]bool{}
	var hops []vrf.NextHopID
	for i := range 9 {
		n := vrf.NextHop{ID: vrf.NextHopID(i), Device: fmt.Sprint("eth", i)}
		id, again := a.NextHop(n), a.NextHop(n)
		group := a.Group(n.Device)
		if id != again || group != a.Group(n.Device) {
			t.Errorf("%v has the ids %d and %d", n, id, again)
		}
		for _, x := range []vrf.NextHopID{id, group} {
			if used[x] || !tiny.NextHopIDs.Contains(uint32(x)) || x == 103 || x == 104 {
				t.Errorf("id %d of %v", x, n)
			}
			used[x] = true
		}
		hops = append(hops, id)
	}
	if id := a.NextHop(vrf.NextHop{Device: "one too many"}); id != 0 {
		t.Errorf("id %d from a full range", id)
	}
	b := vrf.NewAllocator(have)
	for i, want := range hops {
		if id := b.NextHop(vrf.NextHop{Device: fmt.Sprint("eth", i)}); id != want {
			t.Errorf("a second allocator gives %d, not %d", id, want)
		}
	}
	if slices.Contains(hops, 0) {
		t.Error("an id is 0")
	}
	whole := owner
	whole.NextHopIDs = vrf.Range{First: 0, Last: 1<<32 - 1}
	if vrf.GroupIDFor(whole, "x")%2 != 1 {
		t.Error("the range of all ids has no halves")
	}
	whole.NextHopIDs = vrf.Range{First: 9, Last: 9}
	if id := vrf.NewAllocator(vrf.Snapshot{Owner: whole}).Group("x"); id != 0 {
		t.Errorf("id %d from a range without halves", id)
	}
}
