package egress

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/vrf"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// routesOf are the routes to prefixes through gateways in red's table, each with
// the gateways of its group: "10.1.0.0/16 172.16.0.2%eth1,172.16.0.3%eth1".
func routesOf(t *testing.T, d Desired, learned bool) string {
	t.Helper()
	hops := map[vrf.NextHopID]vrf.NextHop{}
	for _, h := range d.Kernel.NextHops {
		hops[h.ID] = h
	}
	groups := map[vrf.NextHopID][]string{}
	for _, g := range d.Kernel.Groups {
		for _, m := range g.Members {
			h := hops[m.ID]
			if h.Gateway.Zone() != "" {
				t.Errorf("the kernel's gateway %s has a zone", h.Gateway)
			}
			groups[g.ID] = append(groups[g.ID], fmt.Sprintf("%s%%%s", h.Gateway, h.Device))
		}
		slices.Sort(groups[g.ID])
	}
	var out []string
	for _, r := range d.Kernel.Routes {
		if r.Table == d.network("red").Table && r.Type == vrf.Unicast && r.Learned == learned {
			out = append(out, r.Prefix.String()+" "+strings.Join(groups[r.NextHop], ","))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func TestRecursiveNextHops(t *testing.T) {
	type route struct {
		prefix string
		hops   []string
	}
	for name, tt := range map[string]struct {
		static, learned []route
		want            string
		unresolved      int
	}{
		"through a learned route": {
			learned: []route{{"192.0.2.0/24", []string{"172.16.0.2"}}, {"10.1.0.0/16", []string{"192.0.2.7"}}},
			want:    "10.1.0.0/16 172.16.0.2%eth1; 192.0.2.0/24 172.16.0.2%eth1"},
		"the longest route decides, and its multipath is inherited": {
			learned: []route{{"192.0.0.0/16", []string{"172.16.0.4"}}, {"192.0.2.0/24", []string{"172.16.0.2", "172.16.0.3"}}, {"10.1.0.0/16", []string{"192.0.2.7"}}},
			want:    "10.1.0.0/16 172.16.0.2%eth1,172.16.0.3%eth1; 192.0.0.0/16 172.16.0.4%eth1; 192.0.2.0/24 172.16.0.2%eth1,172.16.0.3%eth1"},
		"a static route before a learned one": {
			static:  []route{{"192.0.2.0/24", []string{"172.16.0.3"}}},
			learned: []route{{"192.0.2.0/24", []string{"172.16.0.2"}}, {"10.1.0.0/16", []string{"192.0.2.7"}}},
			want:    "10.1.0.0/16 172.16.0.3%eth1; 192.0.2.0/24 172.16.0.2%eth1"},
		"over two routes": {
			learned: []route{{"192.0.2.0/24", []string{"198.18.0.1"}}, {"198.18.0.0/24", []string{"172.16.0.2"}}, {"10.1.0.0/16", []string{"192.0.2.7", "172.16.0.3"}}},
			want:    "10.1.0.0/16 172.16.0.2%eth1,172.16.0.3%eth1; 192.0.2.0/24 172.16.0.2%eth1; 198.18.0.0/24 172.16.0.2%eth1"},
		"not through a default route": {
			learned:    []route{{"0.0.0.0/0", []string{"172.16.0.2"}}, {"10.1.0.0/16", []string{"192.0.2.7"}}},
			want:       "0.0.0.0/0 172.16.0.2%eth1",
			unresolved: 1},
		"not through itself": {
			learned:    []route{{"192.0.2.0/24", []string{"192.0.2.7"}}},
			unresolved: 1},
		"not in a circle": {
			learned:    []route{{"192.0.2.0/24", []string{"198.18.0.1"}}, {"198.18.0.0/24", []string{"192.0.2.1"}}, {"10.1.0.0/16", []string{"192.0.2.7"}}},
			unresolved: 3},
		"out of a circle by another next hop": {
			learned: []route{{"192.0.2.0/24", []string{"192.0.2.1", "172.16.0.2"}}},
			want:    "192.0.2.0/24 172.16.0.2%eth1"},
		"IPv6": {
			learned: []route{{"2001:db8:9::/48", []string{"fd00:16::2"}}, {"fd00:10::/32", []string{"2001:db8:9::1"}}},
			want:    "2001:db8:9::/48 fd00:16::2%eth1; fd00:10::/32 fd00:16::2%eth1"},
		"link-local on a port, and on a device of somebody else": {
			learned: []route{{"fd00:10::/32", []string{"fe80::2%eth1"}}, {"10.1.0.0/16", []string{"fe80::2%eth1"}}, {"10.2.0.0/16", []string{"fe80::2%eth2"}}},
			want:    "10.1.0.0/16 fe80::2%eth1; fd00:10::/32 fe80::2%eth1", unresolved: 1},
	} {
		spec, st := twoNetworks(), readyState()
		red := &spec.Networks[0]
		red.Ports[0].Addresses[0] = netip.MustParsePrefix("172.16.0.1/29")
		for _, s := range tt.static {
			r := StaticRoute{Prefix: netip.MustParsePrefix(s.prefix)}
			for _, a := range addrs(s.hops...) {
				r.NextHops = append(r.NextHops, NextHop{Address: a})
			}
			red.StaticRoutes = append(red.StaticRoutes, r)
		}
		st.Learned["red"] = nil
		for _, l := range tt.learned {
			st.Learned["red"] = append(st.Learned["red"], bgp.Route{Prefix: netip.MustParsePrefix(l.prefix), NextHops: addrs(l.hops...)})
		}
		d := Resolve(spec, st)
		if got := routesOf(t, d, true); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
		if n := d.network("red").Unresolved; n != tt.unresolved {
			t.Errorf("%s: %d unresolved, want %d", name, n, tt.unresolved)
		}
	}
}

// TestRecursionAlwaysEnds: whatever the routes say, resolution ends, and only
// gateways on the link come out.
func TestRecursionAlwaysEnds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	at := func() netip.Addr { return netip.AddrFrom4([4]byte{172, 16, byte(rng.IntN(2)), byte(rng.IntN(16))}) }
	for range 2000 {
		spec, st := twoNetworks(), readyState()
		st.Learned["red"] = nil
		for range rng.IntN(12) {
			r := bgp.Route{Prefix: netip.PrefixFrom(at(), 20+rng.IntN(13)).Masked()}
			for range 1 + rng.IntN(3) {
				if a := at(); !slices.Contains(r.NextHops, a) {
					r.NextHops = append(r.NextHops, a)
				}
			}
			if !slices.ContainsFunc(st.Learned["red"], func(o bgp.Route) bool { return o.Prefix == r.Prefix }) {
				st.Learned["red"] = append(st.Learned["red"], r)
			}
		}
		d := Resolve(spec, st)
		for _, h := range d.Kernel.NextHops {
			if h.Device == "eth1" && h.Gateway.Is4() && !netip.MustParsePrefix("172.16.0.0/30").Contains(h.Gateway) {
				t.Fatalf("gateway %s is not on the link: %v", h.Gateway, st.Learned["red"])
			}
		}
		if dec := d.network("red"); dec.LearnedRoutes+dec.Unresolved != len(st.Learned["red"]) {
			t.Fatalf("%d routes and %d unresolved of %d", dec.LearnedRoutes, dec.Unresolved, len(st.Learned["red"]))
		}
	}
}
