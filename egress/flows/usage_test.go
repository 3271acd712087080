package flows

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
)

func usedFlow(zone uint16, address, dst string, proto uint8, port uint16) Flow {
	return Flow{Zone: zone, Address: netip.MustParseAddr(address), Dst: netip.MustParseAddr(dst), Proto: proto, DstPort: port}
}

func TestUsage(t *testing.T) {
	u := NewUsage(100)
	for range 3 {
		u.Add(usedFlow(1, "198.51.100.1", "192.0.2.1", 6, 443))
		u.Add(usedFlow(2, "198.51.100.1", "192.0.2.1", 6, 443)) // equal pools of two networks
	}
	u.Add(usedFlow(1, "198.51.100.1", "192.0.2.1", 6, 80))
	u.Add(usedFlow(1, "198.51.100.1", "192.0.2.1", 17, 443))
	u.Add(usedFlow(2, "2001:db8:e::1", "2001:db8::1", 17, 53))
	u.Add(usedFlow(2, "2001:db8:e::1", "2001:db8::2", 17, 53)) // as many: the lower one is shown
	want := []AddressUsage{
		{1, netip.MustParseAddr("198.51.100.1"), 5, map[uint8]int{6: 4, 17: 1}, Target{6, netip.MustParseAddr("192.0.2.1"), 443, 3}},
		{2, netip.MustParseAddr("198.51.100.1"), 3, map[uint8]int{6: 3}, Target{6, netip.MustParseAddr("192.0.2.1"), 443, 3}},
		{2, netip.MustParseAddr("2001:db8:e::1"), 2, map[uint8]int{17: 2}, Target{17, netip.MustParseAddr("2001:db8::1"), 53, 1}},
	}
	if got := u.Addresses(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if u.Missed() != 0 || u.Tolerance() != 0 {
		t.Errorf("missed %d, tolerance %d", u.Missed(), u.Tolerance())
	}
}

// With room for few targets, in any order of the flows, the counts keep to the
// tolerance and the heavy target is found.
func TestUsageIsBounded(t *testing.T) {
	const limit, light, heavy = 50, 5000, 1000
	r := rand.New(rand.NewPCG(1, 2))
	var list []Flow
	for i := range light {
		list = append(list, usedFlow(1, "198.51.100.1", "192.0.2.1", 6, uint16(i)))
	}
	for range heavy {
		list = append(list, usedFlow(1, "198.51.100.1", "192.0.2.9", 17, 53))
	}
	for range 20 {
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		u := NewUsage(limit)
		for _, f := range list {
			if u.Add(f); len(u.targets) > limit {
				t.Fatalf("%d targets", len(u.targets))
			}
		}
		full := u.Addresses()[0].Fullest
		if full.Proto != 17 || full.DstPort != 53 {
			t.Fatalf("%+v is the fullest", full)
		}
		if full.Flows > heavy || full.Flows+u.Tolerance() < heavy {
			t.Errorf("%d flows, tolerance %d", full.Flows, u.Tolerance())
		}
		if u.Tolerance() == 0 || u.Tolerance() > len(list)/(limit+1) {
			t.Errorf("tolerance %d", u.Tolerance())
		}
	}
}

func TestUsageBoundsAddresses(t *testing.T) {
	u := NewUsage(1)
	for range 2 {
		u.Add(usedFlow(1, "198.51.100.1", "192.0.2.1", 6, 443))
		u.Add(usedFlow(1, "198.51.100.2", "192.0.2.1", 6, 443))
	}
	if got := u.Addresses(); len(got) != 1 || got[0].Flows != 2 || u.Missed() != 2 {
		t.Errorf("%+v, missed %d", got, u.Missed())
	}
}

func TestResultIsBounded(t *testing.T) {
	var r Result
	for range 2 {
		for mark := range uint32(MaxMarks + 10) {
			r.Count(mark)
		}
	}
	if r.Seen != 2*(MaxMarks+10) || len(r.ByMark) != MaxMarks || r.ByMark[5] != 2 || r.Unlisted != 20 {
		t.Errorf("seen %d, marks %d, of mark 5 %d, unlisted %d", r.Seen, len(r.ByMark), r.ByMark[5], r.Unlisted)
	}
}

func TestCheckFilter(t *testing.T) {
	for _, c := range []struct {
		mark, mask uint32
		ok         bool
	}{{0, 0, false}, {1, 0, false}, {3, 1, false}, {0, 1, true}, {1, 1, true}, {0x10010000, 0x1fff0000, true}} {
		if err := CheckFilter(c.mark, c.mask); (err == nil) != c.ok {
			t.Errorf("%#x/%#x: %v", c.mark, c.mask, err)
		}
	}
}
