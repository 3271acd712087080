package egress

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/vrf"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestAdvertisements(t *testing.T) {
	communities := bgp.Attributes{Communities: []uint32{7}}
	pools := []Pool{
		{Name: "a", Prefixes: prefixes("198.51.100.0/29", "2001:db8::/65"), Advertise: AdvertiseAggregate},
		{Name: "b", Prefixes: prefixes("198.51.100.8/29", "203.0.113.0/29")},
		{Name: "c", Prefixes: prefixes("198.51.100.16/31"), Advertise: AdvertiseHosts, Attributes: communities},
		{Name: "d", Prefixes: prefixes("2001:db8:0:0:8000::/65", "192.0.2.0/32"), Advertise: AdvertiseAggregate},
		{Name: "e", Prefixes: prefixes("192.0.2.1/32"), Advertise: AdvertiseAggregate, Attributes: communities},
		{Name: "f", Prefixes: prefixes("100.64.0.0/30"), Advertise: AdvertiseNone},
	}
	named := []bgp.Advertisement{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Attributes: communities}, {Prefix: netip.MustParsePrefix("203.0.113.0/29")}}
	var got []string
	now := map[netip.Prefix]bool{}
	for _, a := range advertisements(named, pools) {
		got = append(got, fmt.Sprint(a.Prefix, len(a.Communities)))
		now[a.Prefix] = true
	}
	want := []string{
		"198.51.100.0/24 1", "203.0.113.0/29 0",
		"192.0.2.0/32 0", "198.51.100.0/29 0", "2001:db8::/64 0",
		"198.51.100.8/29 0",
		"198.51.100.16/32 1", "198.51.100.17/32 1",
		"192.0.2.1/32 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("advertises\n%q, want\n%q", got, want)
	}
	for _, p := range pools {
		if ok := p.advertisedBy(now); ok != (p.Name != "f") {
			t.Errorf("pool %s is advertised: %t", p.Name, ok)
		}
	}
	delete(now, named[0].Prefix)
	if !pools[2].advertisedBy(now) {
		t.Error("a pool is not advertised by its hosts")
	}
	delete(now, netip.MustParsePrefix("198.51.100.17/32"))
	if pools[2].advertisedBy(now) {
		t.Error("a pool is advertised without one of its hosts")
	}
}

// TestAggregate is a property: the aggregate covers exactly what went in, and
// no two of its prefixes could be one.
func TestAggregate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var in []netip.Prefix
		for range rnd.IntN(12) {
			bits := 26 + rnd.IntN(7)
			a := netip.AddrFrom4([4]byte{198, 51, 100, byte(rnd.IntN(64))})
			in = append(in, netip.PrefixFrom(a, bits).Masked())
		}
		out := aggregate(in)
		contains := func(list []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for i := range 80 {
			a := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			if contains(in, a) != contains(out, a) {
				t.Fatalf("%v aggregates to %v: %s differs", in, out, a)
			}
		}
		for i, p := range out {
			for _, q := range out[i+1:] {
				parent := netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked()
				if p.Overlaps(q) || p.Bits() == q.Bits() && parent.Contains(q.Addr()) {
					t.Fatalf("%v aggregates to %v", in, out)
				}
			}
		}
	}
}

// TestNamedPrefixes has a prefix advertised by name while its network is up,
// refused from peers, and discarded where no pool has it.
func TestNamedPrefixes(t *testing.T) {
	spec := twoNetworks()
	aggregate, pool := netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.51.100.0/28")
	spec.Networks[0].BGP.Advertise = []bgp.Advertisement{{Prefix: aggregate}, {Prefix: pool}}
	for _, up := range []bool{true, false} {
		st := readyState()
		if !up {
			st.Learned = nil
		}
		d := Resolve(spec, st)
		i := slices.IndexFunc(d.BGP, func(c bgp.Config) bool { return c.Network == spec.Networks[0].Name })
		c := d.BGP[i]
		if has := slices.ContainsFunc(c.Advertise, func(a bgp.Advertisement) bool { return a.Prefix == aggregate }); has != up {
			t.Errorf("up %t: advertises %v", up, c.Advertise)
		}
		if !slices.Contains(c.Reject, aggregate) {
			t.Errorf("rejects %v", c.Reject)
		}
		count := map[netip.Prefix]int{}
		for _, r := range d.Kernel.Routes {
			if r.Type == vrf.Blackhole && r.Table == d.network(c.Network).Table {
				count[r.Prefix]++
			}
		}
		if count[aggregate] != 1 || count[pool] != 1 {
			t.Errorf("blackhole routes %v", count)
		}
	}
}

// TestIPv6NextHopOfIPv4Route has a learned IPv4 route go through an IPv6 next
// hop on the link (RFC 8950).
func TestIPv6NextHopOfIPv4Route(t *testing.T) {
	spec, st := twoNetworks(), readyState()
	p := netip.MustParsePrefix("10.77.0.0/16")
	st.Learned["red"] = []bgp.Route{
		{Prefix: p, NextHops: []netip.Addr{netip.MustParseAddr("fd00:16::2")}},
	}
	d := Resolve(spec, st)
	i := slices.IndexFunc(d.Kernel.Routes, func(r vrf.Route) bool { return r.Prefix == p })
	if i < 0 {
		t.Fatal("no route")
	}
	g := slices.IndexFunc(d.Kernel.Groups, func(g vrf.Group) bool { return g.ID == d.Kernel.Routes[i].NextHop })
	h := slices.IndexFunc(d.Kernel.NextHops, func(h vrf.NextHop) bool { return h.ID == d.Kernel.Groups[g].Members[0].ID })
	if hop := d.Kernel.NextHops[h]; hop.Gateway != netip.MustParseAddr("fd00:16::2") || !hop.IPv6 || hop.Device != "eth1" {
		t.Errorf("next hop %+v", hop)
	}
}
