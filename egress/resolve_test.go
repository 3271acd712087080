package egress

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// twoNetworks is the standing example: red and blue with the same transfer
// subnet, the same peer addresses and the same destinations.
func twoNetworks() *Spec {
	network := func(name, port string, peerAS uint32) Network {
		accept := []bgp.ImportRule{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Max: 32}, {Prefix: netip.MustParsePrefix("::/0"), Max: 128}}
		return Network{
			Name:        name,
			Ports:       []vrf.Port{{Name: port, Addresses: []netip.Prefix{netip.MustParsePrefix("172.16.0.1/30"), netip.MustParsePrefix("fd00:16::1/64")}}},
			OnNoNextHop: NoNextHopDrop,
			BGP: &BGP{ASN: 64512, RouterID: netip.MustParseAddr("172.16.0.1"),
				GracefulRestart: &bgp.GracefulRestart{RestartTime: 30 * time.Second},
				Peers: []bgp.Peer{{Address: netip.MustParseAddr("172.16.0.2"), ASN: peerAS, IPv4: true, Import: accept},
					{Address: netip.MustParseAddr("fd00:16::2"), ASN: peerAS, IPv6: true, Import: accept}}},
			Probes: []probes.Config{{Name: name + "/icmp0", Network: name, Device: name, Type: probes.ICMP,
				Targets: []probes.Target{{Address: netip.MustParseAddr("10.0.0.5")}}, Require: probes.Any,
				Interval: 300 * time.Millisecond, AttemptTimeout: 300 * time.Millisecond, Rise: 2, Fall: 2}},
		}
	}
	prefixes := func(ps ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, p := range ps {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	return &Spec{
		Clients:  Clients{Interfaces: []string{"eth0"}, Prefixes: prefixes("10.244.0.0/16", "fd00:244::/32")},
		Networks: []Network{network("red", "eth1", 65001), network("blue", "eth2", 65002)},
		Pools: []Pool{
			{Name: "red-pool", Network: "red", Prefixes: prefixes("198.51.100.0/28", "2001:db8:100::/124")},
			{Name: "blue-pool", Network: "blue", Prefixes: prefixes("198.51.100.0/28", "2001:db8:100::/124"), Attributes: bgp.Attributes{Communities: []uint32{64512<<16 | 100}}},
		},
		Policies: []Policy{
			{Name: "team-a", Clients: prefixes("10.244.1.0/24", "fd00:244:1::/48"), Rules: []Rule{
				{Destination: netip.MustParsePrefix("0.0.0.0/0"), Action: ActionNetwork, Network: "red", Pool: "red-pool"},
				{Destination: netip.MustParsePrefix("::/0"), Action: ActionNetwork, Network: "red", Pool: "red-pool"}}},
			{Name: "team-b", Clients: prefixes("10.244.2.0/24", "fd00:244:2::/48"), Rules: []Rule{
				{Destination: netip.MustParsePrefix("10.0.0.0/8"), Action: ActionNetwork, Network: "blue", Pool: "blue-pool"},
				{Destination: netip.MustParsePrefix("10.9.0.0/16"), Action: ActionSkip},
				{Destination: netip.MustParsePrefix("10.8.0.0/16"), Action: ActionReject},
				{Destination: netip.MustParsePrefix("fd00:10::/32"), Action: ActionNetwork, Network: "blue", Pool: "blue-pool"}}},
		},
		Settings: Settings{Resync: time.Minute, Ownership: DefaultOwnership()},
	}
}

// readyState is a machine with the ports up and both speakers in sync.
func readyState() State {
	link := func(name string) vrf.Link { return vrf.Link{Name: name, Up: true, Carrier: true} }
	learned := []bgp.Route{
		{Prefix: netip.MustParsePrefix("10.0.0.0/24"), NextHops: []netip.Addr{netip.MustParseAddr("172.16.0.2")}},
		{Prefix: netip.MustParsePrefix("fd00:10::/64"), NextHops: []netip.Addr{netip.MustParseAddr("fd00:16::2")}},
	}
	return State{
		Links:   map[string]vrf.Link{"eth0": link("eth0"), "eth1": link("eth1"), "eth2": link("eth2")},
		Learned: map[string][]bgp.Route{"red": learned, "blue": learned},
		Verdicts: map[string]probes.Verdict{
			"red/icmp0": probes.Up, "blue/icmp0": probes.Up},
	}
}

func TestResolveAdvertisesOnlyWhatWorks(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Spec, *State)
		up     bool
		reason string
	}{
		{"all well", func(*Spec, *State) {}, true, ""},
		{"probe down", func(_ *Spec, st *State) { st.Verdicts["red/icmp0"] = probes.Down }, false, "probe red/icmp0 is down"},
		{"no verdict on a cold start", func(_ *Spec, st *State) { delete(st.Verdicts, "red/icmp0") }, false, "probe red/icmp0 has no verdict yet"},
		{"no verdict, but the kernel was forwarding", func(_ *Spec, st *State) {
			delete(st.Verdicts, "red/icmp0")
			st.Adopted = map[string]Adopted{"red": {Index: 7, Forwarding: true}}
		}, true, "probe red/icmp0 has no verdict yet; the kernel was forwarding"},
		{"no verdict, and the kernel was blocking", func(_ *Spec, st *State) {
			delete(st.Verdicts, "red/icmp0")
			st.Adopted = map[string]Adopted{"red": {Index: 7}}
		}, false, "probe red/icmp0 has no verdict yet"},
		{"no route", func(_ *Spec, st *State) { st.Learned["red"] = nil }, false, "no route learned yet"},
		{"no carrier", func(_ *Spec, st *State) { st.Links["eth1"] = vrf.Link{Name: "eth1", Up: true} }, false, "interface eth1 has no carrier"},
		{"no interface", func(_ *Spec, st *State) { delete(st.Links, "eth1") }, false, "interface eth1 does not exist"},
		{"unresolved", func(_ *Spec, st *State) {
			st.Learned["red"] = []bgp.Route{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), NextHops: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
		}, false, "no next hop is on a connected prefix, nor behind another route"},
		{"nothing expected, link up", func(s *Spec, st *State) {
			s.Networks[0].BGP = nil
		}, true, ""},
		{"two probes, one unknown", func(s *Spec, _ *State) {
			p := s.Networks[0].Probes[0]
			p.Name = "red/other"
			s.Networks[0].Probes = append(s.Networks[0].Probes, p)
		}, false, "probe red/other has no verdict yet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec, st := twoNetworks(), readyState()
			tt.change(spec, &st)
			d := Resolve(spec, st)
			red, blue := d.network("red"), d.network("blue")
			if red.Up != tt.up || red.Reason != tt.reason {
				t.Errorf("red: up %v %q, want %v %q", red.Up, red.Reason, tt.up, tt.reason)
			}
			if !blue.Up {
				t.Errorf("blue is down (%s): one network's trouble reached another", blue.Reason)
			}
			for _, c := range d.BGP {
				if c.Network == "red" && (len(c.Advertise) > 0) != tt.up {
					t.Errorf("red advertises %v while up is %v", c.Advertise, tt.up)
				}
			}
			if blocked := blockedBy(d.Kernel.Rules, red.Mark); blocked == tt.up {
				t.Errorf("red's traffic is blocked: %v, while up is %v", blocked, tt.up)
			}
		})
	}
}

func blockedBy(rules []vrf.Rule, mark vrf.Mark) bool {
	n := 0
	for _, r := range rules {
		if r.Mark == mark && r.Action == vrf.RuleBlackhole {
			n++
		}
	}
	return n == 2 // both families
}

func TestResolveIgnoresOrder(t *testing.T) {
	spec, st := twoNetworks(), readyState()
	want := Resolve(spec, st)
	slices.Reverse(spec.Networks)
	got := Resolve(spec, st)
	if plan, again := vrf.Diff(vrf.Snapshot{Owner: spec.Settings.Ownership.Owner()}, want.Kernel).String(),
		vrf.Diff(vrf.Snapshot{Owner: spec.Settings.Ownership.Owner()}, got.Kernel).String(); plan != again {
		t.Errorf("the plan depends on the order of networks:\n%s\n---\n%s", plan, again)
	}
	if !reflect.DeepEqual(want.Networks, got.Networks) {
		t.Errorf("decisions depend on the order of networks:\n%+v\n%+v", want.Networks, got.Networks)
	}
}

func TestResolveFailsClosedWithoutLiveHop(t *testing.T) {
	spec, st := twoNetworks(), readyState()
	st.Links["eth1"] = vrf.Link{Name: "eth1", Up: true}
	d := Resolve(spec, st)
	table := d.network("red").Table
	blackholes := map[vrf.NextHopID]bool{}
	for _, h := range d.Kernel.NextHops {
		blackholes[h.ID] = h.Blackhole
	}
	groups := map[vrf.NextHopID]vrf.Group{}
	for _, g := range d.Kernel.Groups {
		groups[g.ID] = g
	}
	n := 0
	for _, r := range d.Kernel.Routes {
		if r.Table != table || r.Type != vrf.Unicast {
			continue
		}
		n++
		g := groups[r.NextHop]
		if len(g.Members) != 1 || !blackholes[g.Members[0].ID] {
			t.Errorf("route %s keeps the group %+v, want one blackhole", r.Prefix, g)
		}
	}
	if n != 2 {
		t.Errorf("%d routes kept, want 2: losing carrier must not change the routes", n)
	}
}

// TestGroupIDSurvivesMembers: the group of a set of next hops keeps its id when
// members die, so that no route has to be touched.
func TestGroupIDSurvivesMembers(t *testing.T) {
	spec, st := twoNetworks(), readyState()
	spec.Networks[0].Ports = append(spec.Networks[0].Ports, vrf.Port{Name: "eth3", Addresses: []netip.Prefix{netip.MustParsePrefix("172.16.1.1/30")}})
	st.Links["eth3"] = vrf.Link{Name: "eth3", Up: true, Carrier: true}
	st.Learned["red"] = []bgp.Route{{Prefix: netip.MustParsePrefix("10.0.0.0/24"),
		NextHops: []netip.Addr{netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("172.16.1.2")}}}
	both := Resolve(spec, st)
	st.Links["eth3"] = vrf.Link{Name: "eth3", Up: true}
	one := Resolve(spec, st)
	if !slices.Equal(both.Kernel.Routes, one.Kernel.Routes) {
		t.Errorf("routes changed with a member:\n%+v\n%+v", both.Kernel.Routes, one.Kernel.Routes)
	}
	if reflect.DeepEqual(both.Kernel.Groups, one.Kernel.Groups) {
		t.Error("the dead member is still in its group")
	}
}

func TestMaxNextHopsCapsAfterHealth(t *testing.T) {
	spec, st := twoNetworks(), readyState()
	spec.Networks[0].MaxNextHops = 1
	spec.Networks[0].Ports = append(spec.Networks[0].Ports, vrf.Port{Name: "eth3", Addresses: []netip.Prefix{netip.MustParsePrefix("172.16.1.1/30")}})
	st.Links["eth3"] = vrf.Link{Name: "eth3", Up: true, Carrier: true}
	st.Links["eth1"] = vrf.Link{Name: "eth1", Up: true}
	st.Learned["red"] = []bgp.Route{{Prefix: netip.MustParsePrefix("10.0.0.0/24"),
		NextHops: []netip.Addr{netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("172.16.1.2")}}}
	d := Resolve(spec, st)
	if !d.network("red").Up {
		t.Fatalf("red is down: %s", d.network("red").Reason)
	}
	hops := map[vrf.NextHopID]vrf.NextHop{}
	for _, h := range d.Kernel.NextHops {
		hops[h.ID] = h
	}
	for _, r := range d.Kernel.Routes {
		if r.Prefix.String() != "10.0.0.0/24" || r.Table != d.network("red").Table {
			continue
		}
		for _, g := range d.Kernel.Groups {
			if g.ID == r.NextHop && (len(g.Members) != 1 || hops[g.Members[0].ID].Device != "eth3") {
				t.Errorf("group %+v, want the live hop on eth3 alone", g)
			}
		}
	}
}

func TestAssignIndexes(t *testing.T) {
	names := []string{"red", "blue", "green", "amber"}
	first := assignIndexes(names, nil)
	slices.Reverse(names)
	if again := assignIndexes(names, nil); !reflect.DeepEqual(first, again) {
		t.Errorf("order changes indexes: %v, %v", first, again)
	}
	held := map[string]uint16{"red": 17, "gone": 23}
	got := assignIndexes([]string{"red", "blue"}, held)
	if got["red"] != 17 {
		t.Errorf("red has %d, want the 17 it holds", got["red"])
	}
	if got["blue"] == 17 || got["blue"] == 23 {
		t.Errorf("blue took %d, which another network holds", got["blue"])
	}
	var many []string
	for i := range maxIndex {
		many = append(many, "n"+time.Duration(i).String())
	}
	seen := map[uint16]bool{}
	for name, n := range assignIndexes(many, nil) {
		if n < 1 || n > maxIndex || seen[n] {
			t.Fatalf("%s has %d: out of range or taken twice", name, n)
		}
		seen[n] = true
	}
}

func TestPoolAddresses(t *testing.T) {
	v4, v6 := poolAddresses([]netip.Prefix{netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("198.51.100.4/30"), netip.MustParsePrefix("192.0.2.1/32")})
	if len(v6) != maxPoolAddresses {
		t.Errorf("%d IPv6 addresses of a /64, want the bound %d", len(v6), maxPoolAddresses)
	}
	var got []string
	for _, a := range v4 {
		got = append(got, a.String())
	}
	if want := []string{"192.0.2.1", "198.51.100.4", "198.51.100.5", "198.51.100.6", "198.51.100.7"}; !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
	if v4, _ := poolAddresses([]netip.Prefix{netip.MustParsePrefix("255.255.255.254/31")}); len(v4) != 2 {
		t.Errorf("%d addresses at the end of the address space, want 2", len(v4))
	}
}

// TestOneSideDials: a network listens only for peers that we do not dial.
func TestOneSideDials(t *testing.T) {
	spec := twoNetworks()
	spec.Networks[0].BGP.ListenPort, spec.Networks[1].BGP.ListenPort = 179, 179
	spec.Networks[0].BGP.Peers[1].Passive = true
	for _, c := range Resolve(spec, readyState()).BGP {
		if want := map[string]int{"red": 179, "blue": -1}[c.Network]; c.ListenPort != want {
			t.Errorf("%s listens on %d, want %d", c.Network, c.ListenPort, want)
		}
	}
}
