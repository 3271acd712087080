package vrf_test

import (
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
)

// TestKernelRouteGet asks for packets that are sent, without any VRF.
func TestKernelRouteGet(t *testing.T) {
	r := newRig(t)
	want := routing("192.0.2.1")
	must(t, r.real.Apply(t.Context(), vrf.Diff(snapshot(t, r.real), want)).Err())
	const lookup, down, gone = 0x10010000, 0x10020000, 0x10030000
	r.gw.Must("ip", "addr", "add", "10.9.0.1/24", "dev", "eth3")
	r.gw.Must("ip", "-6", "addr", "add", "fd00:9::1/64", "dev", "eth3")
	for _, test := range []struct {
		query vrf.RouteQuery
		want  vrf.RouteAnswer
	}{
		{vrf.RouteQuery{Dst: addr("10.0.1.1"), Mark: lookup},
			vrf.RouteAnswer{Table: 5000, Type: vrf.Unicast, Gateway: addr("192.0.2.1"), Device: "eth1", NextHop: want.NextHops[0].ID}},
		{vrf.RouteQuery{Dst: addr("2001:db8::1"), Mark: lookup},
			vrf.RouteAnswer{Table: 5000, Type: vrf.Unicast, Gateway: addr("fe80::2"), Device: "eth1", NextHop: want.Groups[1].ID}},
		{vrf.RouteQuery{Dst: addr("10.9.0.2")}, vrf.RouteAnswer{Table: 254, Type: vrf.Unicast, Device: "eth3"}},
		{vrf.RouteQuery{Dst: addr("10.9.0.1")}, vrf.RouteAnswer{Table: 255, Type: vrf.Local}},
		{vrf.RouteQuery{Dst: addr("fd00:9::2")}, vrf.RouteAnswer{Table: 254, Type: vrf.Unicast, Device: "eth3"}},
		{vrf.RouteQuery{Dst: addr("10.0.2.1"), Mark: lookup}, vrf.RouteAnswer{Type: vrf.Blackhole}},     // a next hop
		{vrf.RouteQuery{Dst: addr("10.0.3.1"), Mark: lookup}, vrf.RouteAnswer{Type: vrf.Blackhole}},     // a group of it
		{vrf.RouteQuery{Dst: addr("8.8.8.8"), Mark: lookup}, vrf.RouteAnswer{Type: vrf.Unreachable}},    // the fallback
		{vrf.RouteQuery{Dst: addr("10.0.1.1"), Mark: down}, vrf.RouteAnswer{Type: vrf.Blackhole}},       // a rule
		{vrf.RouteQuery{Dst: addr("10.0.1.1"), Mark: gone}, vrf.RouteAnswer{Type: vrf.Prohibit}},        // a rule
		{vrf.RouteQuery{Dst: addr("2001:db8::1"), Mark: down}, vrf.RouteAnswer{Type: vrf.Blackhole}},    // a rule
		{vrf.RouteQuery{Dst: addr("2001:db8::1"), Mark: gone}, vrf.RouteAnswer{Type: vrf.Prohibit}},     // a rule
		{vrf.RouteQuery{Dst: addr("2001:db8:1::1"), Mark: lookup}, vrf.RouteAnswer{Type: vrf.Prohibit}}, // a route
		{vrf.RouteQuery{Dst: addr("2600::1"), Mark: lookup}, vrf.RouteAnswer{Type: vrf.Unreachable}},
		{vrf.RouteQuery{Dst: addr("8.8.8.8")}, vrf.RouteAnswer{Type: vrf.Unreachable}}, // no route
		{vrf.RouteQuery{Dst: addr("2600::1")}, vrf.RouteAnswer{Type: vrf.Unreachable}},
	} {
		got, err := r.real.RouteGet(t.Context(), test.query)
		if err != nil {
			t.Errorf("%+v: %v", test.query, err)
		}
		if test.want.Table == 0 {
			got.Table, got.NextHop = 0, 0 // IPv6 tells
		}
		if got != test.want {
			t.Errorf("%+v: %+v, want %+v", test.query, got, test.want)
		}
	}
	for _, bad := range []vrf.RouteQuery{
		{}, {Dst: addr("10.0.0.1"), Src: addr("fd00::1")}, {Src: addr("10.8.0.1"), Dst: addr("10.0.0.1"), Interface: "eth99"},
	} {
		if got, err := r.real.RouteGet(t.Context(), bad); err == nil {
			t.Errorf("%+v: %+v", bad, got)
		}
	}
}

// TestKernelRouteGetVRF asks for packets of clients, which come in by a device, whose
// source is no address of ours, and which a mark brings to a network.
func TestKernelRouteGetVRF(t *testing.T) {
	r := newRig(t, lab.VRF, lab.VLAN)
	want := withPath()
	must(t, r.real.Apply(t.Context(), vrf.Diff(snapshot(t, r.real), want)).Err())
	r.gw.Must("ip", "addr", "add", "10.9.0.1/24", "dev", "eth4")
	r.gw.Must("ip", "-6", "addr", "add", "fd00:9::1/64", "dev", "eth4", "nodad")
	for _, setting := range []string{"net.ipv4.ip_forward 1", "net.ipv6.conf.all.forwarding 1",
		"net.ipv4.conf.all.rp_filter 0", "net.ipv4.conf.eth4.rp_filter 0"} {
		key, value, _ := strings.Cut(setting, " ")
		must(t, r.gw.Sysctl(key, value))
	}
	client4 := vrf.RouteQuery{Src: addr("10.244.1.7"), Dst: addr("10.0.0.9"), Interface: "eth4", Proto: 6, SrcPort: 4321, DstPort: 443}
	client6 := vrf.RouteQuery{Src: addr("fd00:244::7"), Dst: addr("2001:db8::9"), Interface: "eth4", Proto: 17, SrcPort: 4321, DstPort: 53}
	groups := map[string]vrf.NextHopID{}
	for i, name := range []string{"red4", "red6", "blue4", "blue6"} {
		groups[name] = want.Groups[i].ID
	}
	for _, test := range []struct {
		query vrf.RouteQuery
		mark  vrf.Mark
		want  vrf.RouteAnswer
	}{
		{client4, 0x10010000, vrf.RouteAnswer{Table: 10001, Type: vrf.Unicast, Gateway: addr("172.16.0.2"), Device: "eth1", NextHop: groups["red4"]}},
		{client6, 0x10010000, vrf.RouteAnswer{Table: 10001, Type: vrf.Unicast, Gateway: addr("fd00::2"), Device: "eth1", NextHop: groups["red6"]}},
		{client4, 0x10650000, vrf.RouteAnswer{Table: 10101, Type: vrf.Unicast, Gateway: addr("172.16.0.2"), Device: "eth1", NextHop: groups["red4"]}},
		{client6, 0x10650000, vrf.RouteAnswer{Table: 10101, Type: vrf.Unicast, Gateway: addr("fd00::2"), Device: "eth1", NextHop: groups["red6"]}},
		{client4, 0x10030000, vrf.RouteAnswer{Type: vrf.Unreachable}}, // the catch-all
		{client6, 0x10030000, vrf.RouteAnswer{Type: vrf.Unreachable}},
	} {
		test.query.Mark = test.mark
		got, err := r.real.RouteGet(t.Context(), test.query)
		if err != nil || got != test.want {
			t.Errorf("%+v: %+v, %v, want %+v", test.query, got, err, test.want)
		}
	}
	// Of several next hops every one is somebody's, and the same for the same flow.
	for _, query := range []vrf.RouteQuery{client4, client6} {
		query.Mark = 0x10020000
		seen := map[string]bool{}
		must(t, r.gw.Sysctl("net.ipv4.fib_multipath_hash_policy", "1"))
		must(t, r.gw.Sysctl("net.ipv6.fib_multipath_hash_policy", "1"))
		for port := range uint16(64) {
			query.SrcPort = 1000 + port
			got, err := r.real.RouteGet(t.Context(), query)
			again, _ := r.real.RouteGet(t.Context(), query)
			if err != nil || got != again || got.Table != 10002 {
				t.Fatalf("%+v: %+v and %+v, %v", query, got, again, err)
			}
			seen[got.Device] = true
		}
		if len(seen) != 2 {
			t.Errorf("%+v takes only %v", query, seen)
		}
	}
}
