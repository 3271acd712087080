package vrf_test

import (
	"net/netip"
	"testing"

	"github.com/egret-router/egret/lab/golden"
	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// ports is a fake with three devices that are up, one with an IPv6 address of
// somebody else.
func ports() *vrftest.Kernel {
	return vrftest.New(owner,
		vrf.Link{Name: "eth1", Kind: "veth", Up: true, Carrier: true, Addresses: []vrf.Address{foreignAddress("2001:db8:f::1/64")}},
		vrf.Link{Name: "eth2", Kind: "veth", Up: true, Carrier: true},
		vrf.Link{Name: "eth3", Kind: "veth", Carrier: true})
}

// TestGoldenPlans applies one want or accident after the other to the same kernel.
func TestGoldenPlans(t *testing.T) {
	k := ports()
	down := overlapping()
	for _, ipv6 := range []bool{false, true} {
		down.Rules = append(down.Rules, vrf.Rule{Priority: 805, IPv6: ipv6, Mark: 0x10010000, Mask: 0x1fff0000, Action: vrf.RuleBlackhole})
	}
	slot := overlapping()
	spare := hop(vrf.NextHop{Gateway: addr("172.16.5.9"), Device: "up.5"})
	slot.NextHops[2] = spare
	slot.Groups[2].Members[0].ID = spare.ID
	moved := overlapping()
	moved.VRFs[0].Ports[0].Addresses = []netip.Prefix{prefix("172.16.0.1/29"), prefix("fd00::1/48")}
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
	for _, step := range []struct {
		name string
		hand func()
		want vrf.Config
	}{
		{"1-create", func() {}, overlapping()},
		{"2-network-down", func() {}, down},
		{"3-network-up", func() {}, overlapping()},
		{"4-slot-replaced", func() {}, slot},
		{"5-prefix-lengths", func() {}, moved},
		{"6-port-released-by-hand", func() { must(t, k.SetMaster("eth1", "")) }, overlapping()},
		{"7-carrier-lost-and-back", func() { k.SetCarrier("eth2", false); k.SetCarrier("eth2", true) }, overlapping()},
		{"8-device-down-and-up", func() { k.SetUp("eth1", false); k.SetUp("eth1", true) }, overlapping()},
		{"9-other-table", func() {}, table},
		{"10-teardown", func() {}, vrf.Config{}},
	} {
		step.hand()
		plan := vrf.Diff(snapshot(t, k), step.want)
		golden.Check(t, step.name+".golden", plan.String())
		must(t, k.Apply(t.Context(), plan).Err())
		if again := vrf.Diff(snapshot(t, k), step.want); !again.Empty() || len(again.Errors) > 0 {
			t.Errorf("%s: left:\n%s", step.name, again)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
