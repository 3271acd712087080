package vrf

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

var (
	sampleHops = []NextHop{
		{ID: 5, Gateway: netip.MustParseAddr("192.0.2.1"), OnLink: true},
		{ID: 6, Gateway: netip.MustParseAddr("fe80::1"), IPv6: true},
		{ID: 7, Blackhole: true, IPv6: true},
		{ID: 8, Tunnel: Tunnel{Endpoint: netip.MustParseAddr("192.0.2.7"), VNI: 4097}},
		{ID: 10, IPv6: true, Tunnel: Tunnel{Endpoint: netip.MustParseAddr("192.0.2.7"), Source: netip.MustParseAddr("192.0.2.8"), VNI: 1<<24 - 1}},
		{ID: 12, Tunnel: Tunnel{Endpoint: netip.MustParseAddr("2001:db8::7"), Source: netip.MustParseAddr("2001:db8::8"), VNI: 1}},
	}
	sampleGroup     = Group{ID: 9, Members: []Member{{ID: 5, Weight: 1}, {ID: 6, Weight: 256}}}
	sampleResilient = Group{ID: 11, Members: []Member{{ID: 5, Weight: 1}},
		Resilient: Resilient{Buckets: 256, IdleTimer: 120 * time.Second, UnbalancedTimer: 30 * time.Millisecond}}
	sampleRoutes = []Route{
		{Table: 10001, Prefix: netip.MustParsePrefix("10.0.0.0/24"), Metric: 20, Type: Unicast, NextHop: 9},
		{Table: 254, Prefix: netip.MustParsePrefix("::/0"), Metric: 4278198272, Type: Unreachable},
	}
	sampleRules = []Rule{
		{Priority: 810, Mark: 0x10010000, Mask: 0x1fff0000, Action: RuleLookup, Table: 10001},
		{Priority: 990, IPv6: true, Mark: 0x10000000, Mask: 0x10000000, Action: RuleUnreachable},
		{Priority: 811, Mask: 0x10000000, Action: RuleGoto, Target: 990},
	}
	sampleAddresses = []Address{
		{Prefix: netip.MustParsePrefix("172.16.0.1/30"), Protocol: 108, Valid: Forever, Preferred: Forever},
		{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Peer: netip.MustParsePrefix("10.0.0.2/32"), Label: "eth1:x",
			Broadcast: netip.MustParseAddr("10.0.0.255"), Metric: 7, Valid: 3600, Preferred: 1800, Scope: 253},
		{Prefix: netip.MustParsePrefix("fd00::1/64"), Flags: 0x202, Valid: Forever, Preferred: Forever},
	}
)

func TestRoundTrip(t *testing.T) {
	for _, want := range sampleHops {
		h, err := parseNextHop(encodeNextHop(want, 108))
		if err != nil || h.NextHop != want || h.Protocol != 108 || h.Odd {
			t.Errorf("%+v is read as %+v, %v", want, h, err)
		}
	}
	for _, want := range []Group{sampleGroup, sampleResilient} {
		h, err := parseNextHop(encodeGroup(want, 108))
		if err != nil || h.ID != want.ID || !reflect.DeepEqual(h.members, want.Members) || h.resilient != want.Resilient || h.Odd {
			t.Errorf("%+v is read as %+v, %v", want, h, err)
		}
	}
	for _, want := range sampleRoutes {
		r, ok, err := parseRoute(encodeRoute(want, 109, 0))
		if err != nil || !ok || r.Route != want || r.Protocol != 109 {
			t.Errorf("%+v is read as %+v, %v, %v", want, r, ok, err)
		}
	}
	for _, want := range sampleRules {
		r, ok, err := parseRule(encodeRule(want, 108))
		if err != nil || !ok || r.Rule != want || r.Protocol != 108 || r.Odd {
			t.Errorf("%+v is read as %+v, %v, %v", want, r, ok, err)
		}
	}
	for _, want := range sampleAddresses {
		a, index, ok, err := parseAddress(encodeAddress(want, 3))
		if err != nil || !ok || index != 3 || a != want {
			t.Errorf("%+v is read as %+v, %v, %v", want, a, ok, err)
		}
	}
}

func TestBlackholeBehindRoute(t *testing.T) {
	shown := sampleRoutes[0]
	shown.Type = Blackhole
	r, _, err := parseRoute(encodeRoute(shown, 108, 0))
	if err != nil || r.Route != sampleRoutes[0] {
		t.Errorf("read as %+v, %v", r, err)
	}
}

func TestKernelAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-56-amd64": true, "5.18.0": true, "5.18-rc1": true, "5.17.9": false, "4.19.0-27": false, "10.0": true, "odd": true, "": true,
	} {
		if kernelAtLeast(release, 5, 18) != want {
			t.Errorf("%q is at least 5.18: not %t", release, want)
		}
	}
}

// The fuzz targets hold that no bytes make a reader panic, and that what is read
// can be written and read again.

func FuzzParseNextHop(f *testing.F) {
	for _, n := range sampleHops {
		f.Add([]byte(encodeNextHop(n, 108)))
	}
	f.Add([]byte(encodeGroup(sampleGroup, 108)))
	f.Add([]byte(encodeGroup(sampleResilient, 108)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseNextHop(b)
		if err != nil || h.Odd {
			return
		}
		again := encodeNextHop(h.NextHop, h.Protocol)
		if len(h.members) > 0 {
			again = encodeGroup(Group{ID: h.ID, Members: h.members, Resilient: h.resilient}, h.Protocol)
		}
		h2, err := parseNextHop(again)
		if err != nil || h2.ID != h.ID || !reflect.DeepEqual(h2.members, h.members) ||
			(len(h.members) > 0 && h2.resilient != h.resilient) || (len(h.members) == 0 && h2.NextHop != h.NextHop) {
			t.Errorf("%+v becomes %+v, %v", h, h2, err)
		}
	})
}

func FuzzParseRoute(f *testing.F) {
	for _, r := range sampleRoutes {
		f.Add([]byte(encodeRoute(r, 108, 0)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok, err := parseRoute(b)
		if err != nil || !ok {
			return
		}
		r2, ok, err := parseRoute(encodeRoute(r.Route, r.Protocol, 0))
		if err != nil || !ok || r2 != r {
			t.Errorf("%+v becomes %+v, %v, %v", r, r2, ok, err)
		}
	})
}

func FuzzParseRule(f *testing.F) {
	for _, r := range sampleRules {
		f.Add([]byte(encodeRule(r, 108)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok, err := parseRule(b)
		if err != nil || !ok || r.Odd {
			return
		}
		r.Unresolved = false // a header flag that only the kernel sets
		r2, ok, err := parseRule(encodeRule(r.Rule, r.Protocol))
		if err != nil || !ok || r2 != r {
			t.Errorf("%+v becomes %+v, %v, %v", r, r2, ok, err)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, a := range sampleAddresses {
		f.Add([]byte(encodeAddress(a, 3)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, index, ok, err := parseAddress(b)
		if err != nil || !ok {
			return
		}
		a.Flags &= settableAddrFlags
		a2, index2, ok, err := parseAddress(encodeAddress(a, index))
		if err != nil || !ok || a2 != a || index2 != index {
			t.Errorf("%+v becomes %+v, %v, %v", a, a2, ok, err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(encodeQuery(RouteQuery{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Mark: 1, Proto: 6}, 3, 0)))
	f.Add([]byte(encodeRoute(sampleRoutes[0], 108, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b)
		if err != nil && a != (parsedAnswer{}) || (a.Type != Unicast && a.Gateway.IsValid()) {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

func FuzzParseError(f *testing.F) {
	refused := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffea)) // -EINVAL
	request := make(message, 16)
	binary.NativeEndian.PutUint32(request, 16)
	words := append(refused, request...)
	(*message)(&words).attr(1, []byte("Nexthop id does not exist\x00"))
	if err := parseError(0x200, words); err == nil || err.Error() != "invalid argument: Nexthop id does not exist" {
		f.Errorf("read as %v", err)
	}
	f.Add(uint16(0x200), words)
	f.Add(uint16(0x300), words)
	f.Add(uint16(0), make([]byte, 20))
	f.Fuzz(func(t *testing.T, flags uint16, b []byte) {
		if err := parseError(flags, b); err == nil && (len(b) < 20 || binary.NativeEndian.Uint32(b) != 0) {
			t.Error("a failure is read as none")
		}
	})
}
