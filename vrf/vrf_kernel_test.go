package vrf_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// overlapping is a want of two networks with equal addresses, peers and
// destinations; blue also has a VLAN.
func overlapping() vrf.Config {
	c := vrf.Config{VRFs: []vrf.VRF{
		{Name: "red", Index: 1, Table: 10001, Ports: []vrf.Port{
			{Name: "eth1", Addresses: []netip.Prefix{prefix("172.16.0.1/30"), prefix("fd00::1/64")}},
		}},
		{Name: "blue", Index: 2, Table: 10002, Ports: []vrf.Port{
			{Name: "eth2", Addresses: []netip.Prefix{prefix("172.16.0.1/30"), prefix("fd00::1/64")}},
			{Name: "up.5", VLAN: &vrf.VLAN{Parent: "eth3", ID: 5}, Addresses: []netip.Prefix{prefix("172.16.5.1/24"), prefix("fe80::5/64")}},
		}},
	}}
	for _, v := range c.VRFs {
		for _, ipv6 := range []bool{false, true} {
			uplinks(&c, v, ipv6)
		}
	}
	return c
}

// uplinks adds a group over the ports of v with routes and rules.
func uplinks(c *vrf.Config, v vrf.VRF, ipv6 bool) {
	group := vrf.Group{ID: vrf.GroupIDFor(owner, fmt.Sprint(v.Name, ipv6))}
	gateways := map[string]string{"eth1": "172.16.0.2", "eth2": "172.16.0.2", "up.5": "172.16.5.2"}
	to, any := "10.0.0.0/24", "0.0.0.0/0"
	if ipv6 {
		gateways = map[string]string{"eth1": "fd00::2", "eth2": "fd00::2", "up.5": "fe80::2"}
		to, any = "2001:db8::/48", "::/0"
	}
	for _, p := range v.Ports {
		n := hop(vrf.NextHop{Gateway: addr(gateways[p.Name]), Device: p.Name, IPv6: ipv6})
		c.NextHops = append(c.NextHops, n)
		group.Members = append(group.Members, vrf.Member{ID: n.ID, Weight: 1})
	}
	c.Groups = append(c.Groups, group)
	mark := vrf.Mark(0x10000000 | uint32(v.Index)<<16)
	c.Routes = append(c.Routes,
		vrf.Route{Table: v.Table, Prefix: prefix(to), Metric: 20, Type: vrf.Unicast, NextHop: group.ID},
		vrf.Route{Table: v.Table, Prefix: prefix(any), Metric: fallbackMetric, Type: vrf.Unreachable})
	c.Rules = append(c.Rules,
		vrf.Rule{Priority: 810, IPv6: ipv6, Mark: mark, Mask: 0x1fff0000, Action: vrf.RuleLookup, Table: v.Table})
	if catchAll := (vrf.Rule{Priority: 990, IPv6: ipv6, Mark: 0x10000000, Mask: 0x10000000, Action: vrf.RuleUnreachable}); !slices.Contains(c.Rules, catchAll) {
		c.Rules = append(c.Rules, catchAll)
	}
}

// foreignAddresses puts addresses of others on ports, in both kernels.
func (r *rig) foreignAddresses() {
	r.t.Helper()
	put := func(command, device string, a vrf.Address) {
		r.do(command, vrf.PutAddress{Device: device, Address: a})
	}
	// Debian's ip(8) cannot set the protocol.
	r.apply(vrf.PutAddress{Device: "eth1", Address: vrf.Address{
		Prefix: prefix("2001:db8:f::1/64"), Protocol: 77, Valid: vrf.Forever, Preferred: vrf.Forever,
	}})
	put("addr replace 2001:db8:f::2/64 dev eth1 valid_lft 3600 preferred_lft 1800", "eth1", vrf.Address{Prefix: prefix("2001:db8:f::2/64")})
	put("addr replace fe80::77/64 dev eth1", "eth1", vrf.Address{Prefix: prefix("fe80::77/64")})
	put("addr replace 10.9.0.1/24 dev eth1", "eth1", vrf.Address{Prefix: prefix("10.9.0.1/24")})
	put("addr replace 2001:db8:e::1/64 dev eth3", "eth3", vrf.Address{Prefix: prefix("2001:db8:e::1/64")})
}

// TestKernelVRF takes two overlapping networks through everything that hands and
// cables do to them, on the real kernel and on the fake.
func TestKernelVRF(t *testing.T) {
	r := newRig(t, lab.VRF, lab.VLAN)
	r.foreignAddresses()
	r.hand("route add 198.18.0.0/15 via 10.9.0.9", func(*vrftest.Kernel) error { return nil })
	want := overlapping()
	r.repaired(want)
	if out := r.gw.Must("ip", "-6", "addr", "show", "dev", "eth1"); strings.Count(out, "2001:db8:f::") != 2 {
		t.Errorf("addresses of others on eth1:\n%s", out)
	}
	if life := r.gw.Must("ip", "-6", "addr", "show", "dev", "eth1", "to", "2001:db8:f::2"); !strings.Contains(life, "valid_lft 3") || !strings.Contains(life, "preferred_lft 1") {
		t.Errorf("the lifetimes are lost:\n%s", life)
	}
	r.loseObjects(want)
	r.loseLinks(want)
	r.changeWants(want)

	r.step = "teardown"
	r.reach(vrf.Config{})
	for _, family := range []string{"-4", "-6"} {
		for _, table := range []string{"10001", "10002", "10003"} {
			if left, _ := r.gw.Run("ip", family, "route", "show", "table", table); left != "" {
				t.Errorf("table %s has %q", table, left)
			}
		}
	}
	if left := r.gw.Must("ip", "-d", "link"); strings.Contains(left, "egret") || strings.Contains(left, "vrf ") {
		t.Errorf("links left:\n%s", left)
	}
}

// loseObjects deletes every kind of object by hand.
func (r *rig) loseObjects(want vrf.Config) {
	r.t.Helper()
	for _, n := range want.NextHops {
		r.do(fmt.Sprintf("nexthop del id %d", n.ID), vrf.DeleteNextHop{ID: n.ID})
		r.repaired(want)
	}
	for _, g := range want.Groups {
		r.do(fmt.Sprintf("nexthop del id %d", g.ID), vrf.DeleteNextHop{ID: g.ID, Group: true})
		r.repaired(want)
	}
	for _, route := range want.Routes {
		r.do(strings.TrimPrefix(vrf.DeleteRoute{Route: route}.String(), "ip "), vrf.DeleteRoute{Route: route})
		r.repaired(want)
	}
	for _, rule := range want.Rules {
		r.do(strings.TrimPrefix(vrf.DeleteRule{Rule: rule}.String(), "ip "), vrf.DeleteRule{Rule: rule})
		r.repaired(want)
	}
	for _, v := range want.VRFs {
		for _, p := range v.Ports {
			for _, a := range p.Addresses {
				r.do("addr del "+a.String()+" dev "+p.Name, vrf.DeleteAddress{Device: p.Name, Prefix: a})
				r.repaired(want)
			}
		}
	}
}

// loseLinks takes ports, cables and devices away.
func (r *rig) loseLinks(want vrf.Config) {
	r.t.Helper()
	r.do("link set eth1 nomaster", vrf.SetMaster{Device: "eth1"})
	r.repaired(want)
	r.do("link set eth1 master blue", vrf.SetMaster{Device: "eth1", Master: "blue"})
	r.repaired(want)
	for _, device := range []string{"eth1", "eth3"} {
		r.up(device, false)
		r.repaired(want)
		r.up(device, false)
		r.up(device, true)
		r.repaired(want)
		r.plug(device, false)
		r.plug(device, true)
		r.repaired(want)
	}
	// What the repairs cannot bring back: the addresses of others that went with
	// a device that others took down.
	r.foreignAddresses()
	for _, device := range []string{"red", "up.5", "blue"} {
		r.do("link del "+device, vrf.DeleteLink{Device: device})
		r.repaired(want)
	}
	r.up("red", false)
	r.repaired(want)
	r.apply(vrf.AddVRF{Name: "half", Table: 10009, Group: halfMade(r)})
	r.repaired(want)
}

// halfMade is the group of a device that was created but not yet named.
func halfMade(r *rig) uint32 {
	for _, op := range vrf.Diff(vrf.Snapshot{Owner: owner}, overlapping()).Ops {
		if add, ok := op.Action.(vrf.AddVRF); ok {
			return add.Group
		}
	}
	r.t.Fatal("no VRF in the plan")
	return 0
}

// changeWants walks through other wants and back.
func (r *rig) changeWants(want vrf.Config) {
	r.t.Helper()
	slot := overlapping()
	for i, g := range slot.Groups {
		if len(g.Members) == 2 {
			spare := hop(vrf.NextHop{Gateway: addr("172.16.5.9"), Device: "up.5"})
			if slices.ContainsFunc(slot.NextHops, func(n vrf.NextHop) bool { return n.IPv6 && n.ID == g.Members[1].ID }) {
				spare = hop(vrf.NextHop{Gateway: addr("fe80::9"), Device: "up.5", IPv6: true})
			}
			slot.NextHops = append(slot.NextHops, spare)
			slot.Groups[i].Members = []vrf.Member{g.Members[0], {ID: spare.ID, Weight: 1}}
		}
	}
	r.visit("a spare in the second slot", slot)

	closed := overlapping()
	black := hop(vrf.NextHop{Blackhole: true})
	black6 := hop(vrf.NextHop{Blackhole: true, IPv6: true})
	closed.NextHops = []vrf.NextHop{black, black6}
	for i := range closed.Groups {
		closed.Groups[i].Members = []vrf.Member{{ID: []vrf.NextHopID{black.ID, black6.ID}[i%2], Weight: 1}}
	}
	r.visit("groups of a blackhole", closed)
	r.visit("back", want)

	table := overlapping()
	table.VRFs[0].Table = 10003
	for i := range table.Routes {
		if table.Routes[i].Table == 10001 {
			table.Routes[i].Table = 10003
		}
	}
	for i := range table.Rules {
		if table.Rules[i].Table == 10001 {
			table.Rules[i].Table = 10003
		}
	}
	r.visit("another table", table)

	swapped := overlapping()
	swapped.VRFs[0].Ports, swapped.VRFs[1].Ports = swapped.VRFs[1].Ports, swapped.VRFs[0].Ports
	r.visit("ports swapped", swapped)
	names := overlapping()
	names.VRFs[0].Name, names.VRFs[1].Name = "blue", "red"
	r.visit("names swapped", names)

	lengths := overlapping()
	lengths.VRFs[0].Ports[0].Addresses = []netip.Prefix{prefix("172.16.0.1/29"), prefix("fd00::1/48")}
	r.visit("prefix lengths", lengths)
	primary := overlapping()
	primary.VRFs[0].Ports[0].Addresses = append(primary.VRFs[0].Ports[0].Addresses, prefix("172.16.0.2/30"))
	r.visit("a second address of a subnet", primary)
	primary = overlapping()
	primary.VRFs[0].Ports[0].Addresses[0] = prefix("172.16.0.2/30")
	for i, n := range primary.NextHops {
		if n.Device == "eth1" && !n.IPv6 {
			primary.NextHops[i] = hop(vrf.NextHop{Gateway: addr("172.16.0.1"), Device: "eth1"})
			primary.Groups[0].Members[0].ID = primary.NextHops[i].ID
		}
	}
	r.visit("without the primary address", primary)

	alone := overlapping()
	alone.VRFs = alone.VRFs[:1]
	alone.NextHops, alone.Groups = alone.NextHops[:2], alone.Groups[:2]
	alone.Routes = slices.DeleteFunc(alone.Routes, func(x vrf.Route) bool { return x.Table != 10001 })
	alone.Rules = slices.DeleteFunc(alone.Rules, func(x vrf.Rule) bool { return x.Table == 10002 })
	r.visit("without blue", alone)
	r.visit("everything again", want)
}

func (r *rig) visit(step string, want vrf.Config) {
	r.t.Helper()
	r.step = step
	r.repaired(want)
}

// TestKernelKeepsAddresses runs with the settings that a gateway has: duplicate
// address detection on, and addresses kept when a device goes down.
func TestKernelKeepsAddresses(t *testing.T) {
	lab.Require(t, lab.VRF, lab.VLAN)
	l := lab.New(t)
	gw, far := l.MustNamespace("gw"), l.MustNamespace("far")
	for key, value := range map[string]string{"accept_dad": "1", "keep_addr_on_down": "1"} {
		for _, where := range []string{"all", "default"} {
			must(t, gw.Sysctl("net.ipv6.conf."+where+"."+key, value))
		}
	}
	for _, device := range []string{"eth1", "eth2", "eth3"} {
		l.MustLink(gw, device, far, device)
	}
	gw.Must("ip", "addr", "add", "2001:db8:f::1/64", "dev", "eth1")
	k := openIn(t, gw, slog.New(slog.DiscardHandler))
	for _, hand := range []func(){
		func() {},
		func() { gw.Must("ip", "link", "set", "eth1", "nomaster") },
		func() { must(t, gw.SetLink("eth1", false)); must(t, gw.SetLink("eth1", true)) },
		func() { must(t, gw.SetLink("eth3", false)) },
	} {
		hand()
		plan := vrf.Diff(snapshot(t, k), overlapping())
		if plan.Empty() || len(plan.Errors) > 0 {
			t.Fatalf("plan:\n%s", plan)
		}
		must(t, k.Apply(t.Context(), plan).Err())
		have := snapshot(t, k)
		if again := vrf.Diff(have, overlapping()); !again.Empty() {
			t.Fatalf("second plan:\n%s\nfirst:\n%s", again, plan)
		}
		if diff := sameConfig(overlapping(), have.Config); diff != "" {
			t.Fatalf("-want +have:\n%s", diff)
		}
		if out := gw.Must("ip", "-6", "route", "show", "vrf", "red"); !strings.Contains(out, "2001:db8:f::/64 dev eth1") || !strings.Contains(out, "fd00::/64 dev eth1") {
			t.Fatalf("the addresses have no routes:\n%s", out)
		}
	}
}

// TestKernelRandom walks both kernels through random wants, with cables pulled
// and devices taken down in between.
func TestKernelRandom(t *testing.T) {
	r := newRig(t, lab.VRF, lab.VLAN)
	for seed := range *seeds / 4 {
		g := newGenerator(seed)
		device := pick(g, devices)
		switch g.IntN(4) {
		case 0:
			r.up(device, false)
			r.up(device, true)
		case 1:
			r.plug(device, false)
			r.plug(device, true)
		}
		r.step = fmt.Sprintf("seed %d", seed)
		r.reach(g.config())
	}
	r.step = "teardown"
	r.reach(vrf.Config{})
}

// TestKernelTenThousandRoutes measures what a full table costs.
func TestKernelTenThousandRoutes(t *testing.T) {
	r := newRig(t, lab.VRF, lab.VLAN)
	if err := r.gw.Sysctl("net.ipv4.nexthop_compat_mode", "0"); err != nil {
		t.Fatal(err)
	}
	want := overlapping()
	for i := range 10000 {
		want.Routes = append(want.Routes, vrf.Route{
			Table: 10001, Prefix: prefix(fmt.Sprintf("20.%d.%d.0/24", i/256, i%256)), Metric: 20,
			Type: vrf.Unicast, NextHop: want.Groups[0].ID, Learned: true,
		})
	}
	clock := time.Now()
	lap := func(what string) {
		t.Logf("%-40s %v", what, time.Since(clock).Round(100*time.Microsecond))
		clock = time.Now()
	}
	have := snapshot(t, r.real)
	plan := vrf.Diff(have, want)
	lap("plan 10,000 routes")
	if result := r.real.Apply(t.Context(), plan); result.Err() != nil {
		t.Fatal(result.Err())
	}
	lap("apply them")
	have = snapshot(t, r.real)
	lap("snapshot of them")
	if again := vrf.Diff(have, want); !again.Empty() {
		t.Fatalf("%d steps left", len(again.Ops))
	}
	lap("second, empty plan")
	want.Groups[0].Members[0].Weight = 2
	plan = vrf.Diff(have, want)
	if len(plan.Ops) != 1 {
		t.Fatalf("a change of one group takes %d steps", len(plan.Ops))
	}
	clock = time.Now()
	if result := r.real.Apply(t.Context(), plan); result.Err() != nil {
		t.Fatal(result.Err())
	}
	lap("change the group under them")
	clock = time.Now()
	if result := r.real.Apply(t.Context(), vrf.Teardown(snapshot(t, r.real))); result.Err() != nil {
		t.Fatal(result.Err())
	}
	lap("tear down")
	if diff := sameConfig(vrf.Config{}, snapshot(t, r.real).Config); diff != "" {
		t.Fatal(diff)
	}
}
