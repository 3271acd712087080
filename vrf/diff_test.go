package vrf_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// TestForeignInTheWay: what others have is reported for the network it concerns,
// nothing of theirs is touched, the other network is built in full, and the state
// that is reached is stable.
func TestForeignInTheWay(t *testing.T) {
	red := overlapping().NextHops[0] // of network red
	for _, test := range []struct {
		name, network, message string
		others                 func(*vrftest.Kernel)
		untouched              string // must appear in no step
	}{
		{"device with the name of a VRF", "red", `device "red" exists and is not ours`,
			func(k *vrftest.Kernel) { k.AddLink(vrf.Link{Name: "red", Kind: "dummy"}) }, " red"},
		{"VRF of others with the name", "red", `device "red" exists and is not ours`,
			func(k *vrftest.Kernel) { k.AddLink(vrf.Link{Name: "red", Kind: "vrf", Table: 10001}) }, " red"},
		{"VRF of others on the table", "red", `table 10001 belongs to VRF "theirs"`,
			func(k *vrftest.Kernel) { k.AddLink(vrf.Link{Name: "theirs", Kind: "vrf", Table: 10001}) }, "10001"},
		{"port in a bridge", "red", `port "eth1" is enslaved to "br0"`, func(k *vrftest.Kernel) {
			k.AddLink(vrf.Link{Name: "br0", Kind: "bridge", Up: true})
			must(t, k.SetMaster("eth1", "br0"))
		}, "eth1"},
		{"port missing", "red", `port "eth1" does not exist`, func(k *vrftest.Kernel) { k.DeleteLink("eth1") }, "eth1"},
		{"parent missing", "blue", `parent "eth3" of port "up.5" does not exist`, func(k *vrftest.Kernel) { k.DeleteLink("eth3") }, "up.5"},
		{"VLAN of others", "blue", `VLAN 5 of "eth3" is device "theirs"`, func(k *vrftest.Kernel) {
			k.AddLink(vrf.Link{Name: "theirs", Kind: "vlan", Parent: "eth3", VLANID: 5})
		}, "up.5"},
		{"device with the name of a VLAN", "blue", `device "up.5" exists and is not ours`,
			func(k *vrftest.Kernel) { k.AddLink(vrf.Link{Name: "up.5", Kind: "dummy"}) }, "up.5"},
		{"IPv6 address with another length", "red", `is on port "eth1" as "fd00::1/48"`, func(k *vrftest.Kernel) {
			must(t, k.Do(vrf.PutAddress{Device: "eth1", Address: foreignAddress("fd00::1/48")}))
		}, "fd00::1/64 dev eth1"},
		{"next-hop id", "red", "the id is taken by an object that is not ours",
			func(k *vrftest.Kernel) { k.AddForeignNextHop(vrf.NextHop{ID: red.ID, Blackhole: true}, 3) }, red.String()},
		{"rule at the priority", "red", "priority 810 has a rule that is not ours",
			func(k *vrftest.Kernel) {
				k.AddForeignRule(vrf.Rule{Priority: 810, Action: vrf.RuleLookup, Table: 254}, 3)
			},
			"ip rule add pref 810"},
		{"carrier", "red", `device "eth1" has no carrier`, func(k *vrftest.Kernel) { k.SetCarrier("eth1", false) }, "nexthop add id 0x0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := ports()
			test.others(k)
			before := foreigners(k)
			plan := vrf.Diff(snapshot(t, k), overlapping())
			if !slices.ContainsFunc(plan.Errors, func(e vrf.NetworkError) bool {
				return e.Network == test.network && strings.Contains(e.Error(), test.message)
			}) {
				t.Fatalf("no error %q of network %q in\n%s", test.message, test.network, plan)
			}
			for _, op := range plan.Ops {
				if strings.Contains(op.String(), test.untouched) && !strings.Contains(op.String(), "master") {
					t.Errorf("step %q", op)
				}
			}
			must(t, k.Apply(t.Context(), plan).Err())
			if again := vrf.Diff(snapshot(t, k), overlapping()); !again.Empty() || len(again.Errors) != len(plan.Errors) {
				t.Errorf("left:\n%s", again)
			}
			other := map[string]string{"red": "blue", "blue": "red"}[test.network]
			if test.name != "rule at the priority" {
				checkWhole(t, snapshot(t, k).Config, other)
			}
			if test.name != "port in a bridge" && foreigners(k) != before {
				t.Errorf("foreigners were\n%s\nare\n%s", before, foreigners(k))
			}
		})
	}
}

// checkWhole: everything that belongs to one network of overlapping is there.
func checkWhole(t *testing.T, have vrf.Config, network string) {
	t.Helper()
	for _, v := range overlapping().VRFs {
		if v.Name != network {
			continue
		}
		i := slices.IndexFunc(have.VRFs, func(h vrf.VRF) bool { return h.Name == network })
		if i < 0 || len(have.VRFs[i].Ports) != len(v.Ports) {
			t.Fatalf("network %q is %+v", network, have.VRFs)
		}
		routes, rules := 0, 0
		for _, r := range have.Routes {
			if r.Table == v.Table {
				routes++
			}
		}
		for _, r := range have.Rules {
			if r.Table == v.Table {
				rules++
			}
		}
		if routes != 4 || rules != 2 {
			t.Errorf("network %q has %d routes and %d rules, want 4 and 2", network, routes, rules)
		}
	}
}

// TestForeignRoute stands apart: the table exists only after the first apply.
func TestForeignRoute(t *testing.T) {
	k := ports()
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), overlapping())).Err())
	foreign := vrf.Route{Table: 10001, Prefix: prefix("10.7.0.0/16"), Metric: 20, Type: vrf.Blackhole}
	k.AddForeignRoute(foreign, 77)
	want := overlapping()
	mine := want.Routes[0]
	mine.Prefix = foreign.Prefix
	want.Routes = append(want.Routes, mine)
	plan := vrf.Diff(snapshot(t, k), want)
	if !plan.Empty() || len(plan.Errors) != 1 || plan.Errors[0].Network != "red" {
		t.Errorf("plan:\n%s", plan)
	}
}

// TestMistakesOfTheCaller: a want that contradicts itself is told, and the rest of
// it is reached.
func TestMistakesOfTheCaller(t *testing.T) {
	for _, test := range []struct {
		name, message string
		spoil         func(*vrf.Config)
	}{
		{"two VRFs of one name", "wanted twice", func(c *vrf.Config) {
			c.VRFs = append(c.VRFs, vrf.VRF{Name: "red", Index: 9, Table: 10009})
		}},
		{"two VRFs of one table", "table 10001 is also network", func(c *vrf.Config) {
			c.VRFs = append(c.VRFs, vrf.VRF{Name: "zebra", Index: 9, Table: 10001})
		}},
		{"a port twice", `port "eth1" is also network "blue"'s`, func(c *vrf.Config) {
			c.VRFs[1].Ports = append(c.VRFs[1].Ports, vrf.Port{Name: "eth1"})
		}},
		{"loopback as port", `port "lo" cannot be enslaved`, func(c *vrf.Config) {
			c.VRFs[0].Ports = append(c.VRFs[0].Ports, vrf.Port{Name: "lo"})
		}},
		{"a group without members", "no members", func(c *vrf.Config) { c.Groups[0].Members = nil }},
		{"a member twice", "is twice in it", func(c *vrf.Config) {
			c.Groups[0].Members = append(c.Groups[0].Members, c.Groups[0].Members[0])
		}},
		{"an unknown member", "is not wanted itself", func(c *vrf.Config) { c.Groups[0].Members[0].ID = 0x20000008 }},
		{"a weight of 0", "weight 0", func(c *vrf.Config) { c.Groups[0].Members[0].Weight = 0 }},
		{"a blackhole in company", "is not alone", func(c *vrf.Config) {
			black := hop(vrf.NextHop{Blackhole: true})
			c.NextHops = append(c.NextHops, black)
			c.Groups[0].Members = append(c.Groups[0].Members, vrf.Member{ID: black.ID, Weight: 1})
		}},
		{"an id out of range", "the id is not in 0x20000000-0x2fffffff", func(c *vrf.Config) {
			c.NextHops = append(c.NextHops, vrf.NextHop{ID: 5, Blackhole: true})
		}},
		{"an unknown next hop", "next hop is not wanted itself", func(c *vrf.Config) { c.Routes[0].NextHop = 0x20000008 }},
		{"a unicast route to nowhere", "no next hop", func(c *vrf.Config) { c.Routes[0].NextHop = 0 }},
		{"an unreachable route with a next hop", "only a unicast route", func(c *vrf.Config) { c.Routes[0].Type = vrf.Unreachable }},
		{"a route twice", "is wanted twice", func(c *vrf.Config) {
			r := c.Routes[0]
			r.Learned = true
			c.Routes = append(c.Routes, r)
		}},
		{"a rule out of range", "the priority is not in 800-999", func(c *vrf.Config) { c.Rules[0].Priority = 100 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, want := ports(), overlapping()
			test.spoil(&want)
			plan := vrf.Diff(snapshot(t, k), want)
			if len(plan.Errors) == 0 || !strings.Contains(plan.Errors[0].Error(), test.message) {
				t.Fatalf("no error %q in\n%s", test.message, plan)
			}
			must(t, k.Apply(t.Context(), plan).Err())
			if again := vrf.Diff(snapshot(t, k), want); !again.Empty() {
				t.Errorf("left:\n%s", again)
			}
			checkWhole(t, snapshot(t, k).Config, "blue")
		})
	}
}

// TestFailureStaysInItsNetwork: with everything of red failing, blue is whole.
func TestFailureStaysInItsNetwork(t *testing.T) {
	k := ports()
	k.FailIf(func(a vrf.Action) error {
		if strings.Contains(a.String(), "red") || strings.Contains(a.String(), "eth1") {
			return errInjected
		}
		return nil
	})
	result := k.Apply(t.Context(), vrf.Diff(snapshot(t, k), overlapping()))
	failed := result.Failed()
	if len(failed) != 1 || !errors.Is(failed["red"], errInjected) {
		t.Errorf("failed: %v", failed)
	}
	checkWhole(t, snapshot(t, k).Config, "blue")
}

// TestBlockedUntilWhole: the rule that blocks a network stays when something its
// traffic needs could not be made.
func TestBlockedUntilWhole(t *testing.T) {
	k, want := ports(), overlapping()
	blocked := overlapping()
	rule := vrf.Rule{Priority: 805, Mark: 0x10010000, Mask: 0x1fff0000, Action: vrf.RuleBlackhole}
	blocked.Rules = append(blocked.Rules, rule)
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), blocked)).Err())
	must(t, k.Do(vrf.DeleteNextHop{ID: want.Groups[0].ID}))
	k.FailIf(func(a vrf.Action) error {
		if put, ok := a.(vrf.PutGroup); ok && put.Group.ID == want.Groups[0].ID {
			return errInjected
		}
		return nil
	})
	if err := k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err(); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	if !slices.Contains(snapshot(t, k).Config.Rules, rule) {
		t.Error("the network was let in without its next hops")
	}
	k.FailIf(nil)
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
	if slices.Contains(snapshot(t, k).Config.Rules, rule) {
		t.Error("the network stays blocked")
	}
}

// TestBlockedNetworkStaysBlocked: as long as a network cannot be, what blocks its
// traffic stays, though it is no longer wanted.
func TestBlockedNetworkStaysBlocked(t *testing.T) {
	k, want := ports(), overlapping()
	rule := vrf.Rule{Priority: 805, Mark: 0x10010000, Mask: 0x1fff0000, Action: vrf.RuleBlackhole}
	want.Rules = append(want.Rules, rule)
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
	k.AddLink(vrf.Link{Name: "theirs", Kind: "vrf", Table: 10003})
	want = overlapping()
	want.VRFs[0].Table = 10003
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
	if !slices.Contains(snapshot(t, k).Config.Rules, rule) {
		t.Error("the network was let in")
	}
}

// TestTeardownStopsBehindRules: while a lookup cannot be deleted, its table and its
// VRF stay.
func TestTeardownStopsBehindRules(t *testing.T) {
	k := ports()
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), overlapping())).Err())
	k.FailIf(func(a vrf.Action) error {
		if del, ok := a.(vrf.DeleteRule); ok && del.Rule.Table == 10002 {
			return errInjected
		}
		return nil
	})
	if err := k.Apply(t.Context(), vrf.Teardown(snapshot(t, k))).Err(); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	have := snapshot(t, k).Config
	if len(have.VRFs) != 1 || have.VRFs[0].Name != "blue" || len(openLookups(have)) > 0 {
		t.Errorf("left over: %+v", have)
	}
}

// TestFirstApplyNeverOpens lets every step of the first plan fail in turn: no lookup
// is ever added without what catches the traffic that its table has no answer for.
func TestFirstApplyNeverOpens(t *testing.T) {
	steps := len(vrf.Diff(snapshot(t, ports()), overlapping()).Ops)
	for n := 1; n <= steps; n++ {
		k := ports()
		k.FailNth(n, errInjected)
		k.Apply(t.Context(), vrf.Diff(snapshot(t, k), overlapping()))
		if open := openLookups(snapshot(t, k).Config); len(open) > 0 {
			t.Errorf("step %d failing: open %v", n, open)
		}
	}
}

// TestRouteKeepsItsGroup: a route that cannot move to its new group, because a
// member of that cannot be, keeps the old one, though nobody wants it any more.
func TestRouteKeepsItsGroup(t *testing.T) {
	k, want := ports(), overlapping()
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
	before := snapshot(t, k).Config
	missing := hop(vrf.NextHop{Gateway: addr("172.16.0.2"), Device: "eth9"})
	group := vrf.Group{ID: vrf.GroupIDFor(owner, "new"), Members: []vrf.Member{{ID: missing.ID, Weight: 1}}}
	want.NextHops[0], want.Groups[0], want.Routes[0].NextHop = missing, group, group.ID
	plan := vrf.Diff(snapshot(t, k), want)
	must(t, k.Apply(t.Context(), plan).Err())
	if diff := sameConfig(before, snapshot(t, k).Config); diff != "" || len(plan.Errors) != 1 {
		t.Errorf("plan:\n%s\nchanged:\n%s", plan, diff)
	}
}

// TestAddressOfOthersSuffices: a wanted address that somebody else has put on the
// port is neither added nor, later, removed.
func TestAddressOfOthersSuffices(t *testing.T) {
	k, want := ports(), overlapping()
	must(t, k.Do(vrf.PutAddress{Device: "eth1", Address: foreignAddress("172.16.0.1/30")}))
	must(t, k.Apply(t.Context(), vrf.Diff(snapshot(t, k), want)).Err())
	must(t, k.Apply(t.Context(), vrf.Teardown(snapshot(t, k))).Err())
	l, _ := snapshot(t, k).Link("eth1")
	if len(l.Addresses) != 2 {
		t.Errorf("eth1 has %+v", l.Addresses)
	}
}
