package vrf_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// rig is a gateway on the real kernel with cables to a far end, and the fake in
// the same state. What is done to one is done to the other, and both are compared.
type rig struct {
	t       *testing.T
	gw, far *lab.NS
	real    *vrf.Kernel
	fake    *vrftest.Kernel
	step    string
	log     logBuffer // of real
}

// devices of the gateway; the far end has the same names.
var devices = []string{"eth1", "eth2", "eth3", "eth4", "eth5", "eth6"}

func newRig(t *testing.T, features ...lab.Feature) *rig {
	lab.Require(t, append(features, lab.Root)...)
	l := lab.New(t)
	r := &rig{t: t, gw: l.MustNamespace("gw"), far: l.MustNamespace("far")}
	var links []vrf.Link
	for _, name := range devices {
		l.MustLink(r.gw, name, r.far, name)
		links = append(links, vrf.Link{Name: name, Kind: "veth", Up: true, Carrier: true})
	}
	r.real = openIn(t, r.gw, slog.New(slog.NewTextHandler(&r.log, nil)))
	r.fake = vrftest.New(owner, links...)
	return r
}

// logBuffer is a log that may be written and read at the same time.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func openIn(t testing.TB, ns *lab.NS, log *slog.Logger) *vrf.Kernel {
	t.Helper()
	var k *vrf.Kernel
	err := ns.Do(func() (err error) {
		k, err = vrf.Open(owner, log)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// hand is something done by hand: an ip(8) command and the same for the fake.
func (r *rig) hand(command string, same func(*vrftest.Kernel) error) {
	r.t.Helper()
	r.step = command
	r.gw.Must(append([]string{"ip"}, strings.Fields(command)...)...)
	if err := same(r.fake); err != nil {
		r.t.Fatalf("%s: fake: %v", command, err)
	}
	r.compare()
}

// do is hand for commands that an action expresses.
func (r *rig) do(command string, same vrf.Action) {
	r.t.Helper()
	r.hand(command, func(k *vrftest.Kernel) error { return k.Do(same) })
}

// apply carries out one action outside of any plan, on both.
func (r *rig) apply(a vrf.Action) {
	r.t.Helper()
	r.step = a.String()
	plan := vrf.Plan{Ops: []vrf.Op{{Action: a}}}
	if err := errors.Join(r.real.Apply(r.t.Context(), plan).Err(), r.fake.Apply(r.t.Context(), plan).Err()); err != nil {
		r.t.Fatal(err)
	}
	r.compare()
}

// plug connects or pulls the cable of a device.
func (r *rig) plug(device string, in bool) {
	r.t.Helper()
	r.step = fmt.Sprintf("cable of %s plugged %t", device, in)
	if err := r.far.SetLink(device, in); err != nil {
		r.t.Fatal(err)
	}
	r.fake.SetCarrier(device, in)
	r.compare()
}

func (r *rig) up(device string, up bool) {
	r.t.Helper()
	word := map[bool]string{true: "up", false: "down"}[up]
	r.hand("link set "+device+" "+word, func(k *vrftest.Kernel) error {
		k.SetUp(device, up)
		return nil
	})
}

// compare waits until both kernels say the same: a real one needs a moment to
// notice a cable.
func (r *rig) compare() {
	r.t.Helper()
	lab.Eventually(r.t, waitKernel, "both kernels to agree after "+r.step, func() error {
		real, fake := describe(snapshot(r.t, r.real)), describe(snapshot(r.t, r.fake))
		if real != fake {
			return errors.New("-real +fake:\n" + gocmp.Diff(strings.Split(real, "\n"), strings.Split(fake, "\n")))
		}
		return nil
	})
}

// reach applies want to both: equal plans, no errors, and nothing left to do.
func (r *rig) reach(want vrf.Config) vrf.Plan {
	r.t.Helper()
	plan, fake := vrf.Diff(snapshot(r.t, r.real), want), vrf.Diff(snapshot(r.t, r.fake), want)
	if plan.String() != fake.String() {
		r.t.Fatalf("after %s: plans differ (-real +fake):\n%s", r.step, gocmp.Diff(plan.String(), fake.String()))
	}
	if len(plan.Errors) > 0 {
		r.t.Fatalf("after %s: errors in plan:\n%s", r.step, plan)
	}
	if result := r.real.Apply(r.t.Context(), plan); result.Err() != nil {
		r.t.Fatalf("after %s: %v\nplan:\n%s", r.step, result.Err(), plan)
	}
	if result := r.fake.Apply(r.t.Context(), plan); result.Err() != nil {
		r.t.Fatalf("after %s: fake: %v", r.step, result.Err())
	}
	r.compare()
	have := snapshot(r.t, r.real)
	if again := vrf.Diff(have, want); !again.Empty() {
		r.t.Fatalf("after %s: second plan:\n%s\nfirst plan:\n%s", r.step, again, plan)
	}
	if diff := sameConfig(want, have.Config); diff != "" {
		r.t.Fatalf("after %s: -want +have:\n%s", r.step, diff)
	}
	return plan
}

// repaired is reach for a drift that must have left something to repair.
func (r *rig) repaired(want vrf.Config) {
	r.t.Helper()
	if plan := r.reach(want); plan.Empty() {
		r.t.Fatalf("after %s: nothing was repaired", r.step)
	}
}

// describe is what of a snapshot the fake and the real kernel have in common.
func describe(s vrf.Snapshot) string {
	var lines []string
	for _, l := range s.Links {
		if l.Name == "lo" {
			continue
		}
		lines = append(lines, fmt.Sprintf("link %s %s master=%s up=%t carrier=%t alias=%s group=%d table=%d vlan=%s.%d",
			l.Name, l.Kind, l.Master, l.Up, l.Carrier, l.Alias, l.Group, l.Table, l.Parent, l.VLANID))
		if l.Kind == "vxlan" || l.Kind == "veth" && l.Parent != "" {
			lines = append(lines, fmt.Sprintf("  port=%d gpe=%t arp=%t mac=%s mtu=%d", l.Port, l.GPE, !l.NoARP, l.MAC, l.MTU))
		}
		var addresses []string
		for _, a := range l.Addresses {
			if a.Protocol == 3 { // the kernel's own link-local address
				continue
			}
			secondary := a.Prefix.Addr().Is4() && a.Flags&1 != 0
			addresses = append(addresses, fmt.Sprintf("  %s %s proto %d secondary %t", l.Name, a.Prefix, a.Protocol, secondary))
		}
		slices.Sort(addresses)
		lines = append(lines, addresses...)
	}
	for _, n := range s.Config.NextHops {
		lines = append(lines, n.String())
	}
	for _, g := range s.Config.Groups {
		lines = append(lines, g.String())
	}
	for _, route := range s.Config.Routes {
		lines = append(lines, route.String())
	}
	for _, rule := range s.Config.Rules {
		lines = append(lines, fmt.Sprintf("ipv6=%t %s", rule.IPv6, rule))
	}
	lines = append(lines, fmt.Sprint("unresolved ", s.Unresolved))
	lines = append(lines, fmt.Sprint("foreign hops ", s.Foreign.NextHops))
	for _, rule := range s.Foreign.Rules {
		lines = append(lines, fmt.Sprintf("foreign ipv6=%t pref %d", rule.IPv6, rule.Priority))
	}
	return strings.Join(lines, "\n")
}

// routing is a want without VRFs, which every kernel can have.
func routing(gateway string) vrf.Config {
	hop4 := hop(vrf.NextHop{Gateway: addr(gateway), Device: "eth1", OnLink: true})
	other := hop(vrf.NextHop{Device: "eth2"})
	hop6 := hop(vrf.NextHop{Gateway: addr("fe80::2"), Device: "eth1", IPv6: true})
	black := hop(vrf.NextHop{Blackhole: true})
	black6 := hop(vrf.NextHop{Blackhole: true, IPv6: true})
	g4, g6 := vrf.GroupIDFor(owner, "four"), vrf.GroupIDFor(owner, "six")
	closed4, closed6 := vrf.GroupIDFor(owner, "closed4"), vrf.GroupIDFor(owner, "closed6")
	c := vrf.Config{
		NextHops: []vrf.NextHop{hop4, other, hop6, black, black6},
		Groups: []vrf.Group{
			{ID: g4, Members: []vrf.Member{{ID: other.ID, Weight: 1}, {ID: hop4.ID, Weight: 255}}},
			{ID: g6, Members: []vrf.Member{{ID: hop6.ID, Weight: 7}}},
			{ID: closed4, Members: []vrf.Member{{ID: black.ID, Weight: 1}}},
			{ID: closed6, Members: []vrf.Member{{ID: black6.ID, Weight: 1}}},
		},
		Routes: []vrf.Route{
			{Table: 5000, Prefix: prefix("10.0.0.0/24"), Type: vrf.Unicast, NextHop: g4},
			{Table: 5000, Prefix: prefix("10.0.1.0/24"), Metric: 20, Type: vrf.Unicast, NextHop: hop4.ID, Learned: true},
			{Table: 5000, Prefix: prefix("10.0.2.0/24"), Type: vrf.Unicast, NextHop: black.ID},
			{Table: 5000, Prefix: prefix("10.0.3.0/24"), Type: vrf.Unicast, NextHop: closed4},
			{Table: 5000, Prefix: prefix("2001:db8:3::/48"), Metric: 20, Type: vrf.Unicast, NextHop: closed6},
			{Table: 5000, Prefix: prefix("198.51.100.0/28"), Type: vrf.Blackhole},
			{Table: 5000, Prefix: prefix("0.0.0.0/0"), Metric: fallbackMetric, Type: vrf.Unreachable},
			{Table: 5000, Prefix: prefix("2001:db8::/48"), Metric: 20, Type: vrf.Unicast, NextHop: g6, Learned: true},
			{Table: 5000, Prefix: prefix("2001:db8:1::/48"), Metric: 20, Type: vrf.Prohibit},
			{Table: 5000, Prefix: prefix("::/0"), Metric: fallbackMetric, Type: vrf.Unreachable},
		},
	}
	for _, ipv6 := range []bool{false, true} {
		c.Rules = append(c.Rules,
			vrf.Rule{Priority: 800, IPv6: ipv6, Mark: 0x20000000, Mask: 0x20000000, Action: vrf.RuleLookup, Table: 254},
			vrf.Rule{Priority: 805, IPv6: ipv6, Mark: 0x10020000, Mask: 0x1fff0000, Action: vrf.RuleBlackhole},
			vrf.Rule{Priority: 805, IPv6: ipv6, Mark: 0x10030000, Mask: 0x1fff0000, Action: vrf.RuleProhibit},
			vrf.Rule{Priority: 810, IPv6: ipv6, Mark: 0x10010000, Mask: 0x1fff0000, Action: vrf.RuleLookup, Table: 5000},
			vrf.Rule{Priority: 820, IPv6: ipv6, Mask: 0x10000000, Action: vrf.RuleGoto, Target: 990},
			vrf.Rule{Priority: 821, IPv6: ipv6, Mark: 0x10040000, Mask: 0x10040000, Action: vrf.RuleGoto, Target: 830},
			vrf.Rule{Priority: 830, IPv6: ipv6, Mark: 0x100c0000, Mask: 0x100c0000, Action: vrf.RuleGoto, Target: 840},
			vrf.Rule{Priority: 840, IPv6: ipv6, Mark: 0x100c0000, Mask: 0x1fff0000, Action: vrf.RuleLookup, Table: 5000},
			vrf.Rule{Priority: 990, IPv6: ipv6, Mark: 0x10000000, Mask: 0x10000000, Action: vrf.RuleUnreachable})
	}
	return c
}

func hop(n vrf.NextHop) vrf.NextHop {
	n.ID = vrf.NextHopIDFor(owner, n)
	return n
}

// TestKernelRouting drives next hops, groups, routes and rules through a kernel
// that need not have VRFs.
func TestKernelRouting(t *testing.T) {
	r := newRig(t)
	r.hand("route add 198.18.0.0/15 dev eth3 table 5000 proto 77", func(*vrftest.Kernel) error { return nil })
	r.hand("nexthop add id 0x20000001 blackhole proto 3", func(k *vrftest.Kernel) error {
		k.AddForeignNextHop(vrf.NextHop{ID: 0x20000001, Blackhole: true}, 3)
		return nil
	})
	r.hand("rule add pref 850 from 192.0.2.1 lookup 99 protocol 108", func(k *vrftest.Kernel) error {
		k.AddForeignRule(vrf.Rule{Priority: 850, Action: vrf.RuleLookup, Table: 99}, 3)
		return nil
	})
	want := routing("192.0.2.1")
	r.repaired(want)

	for _, n := range want.NextHops {
		r.do(fmt.Sprintf("nexthop del id %d", n.ID), vrf.DeleteNextHop{ID: n.ID})
		r.repaired(want)
	}
	for _, g := range want.Groups {
		r.do(fmt.Sprintf("nexthop del id %d", g.ID), vrf.DeleteNextHop{ID: g.ID, Group: true})
		r.repaired(want)
	}
	for _, route := range want.Routes {
		command := strings.TrimPrefix(vrf.DeleteRoute{Route: route}.String(), "ip ")
		r.do(strings.TrimSuffix(command, " learned"), vrf.DeleteRoute{Route: route})
		r.repaired(want)
	}
	for _, rule := range want.Rules {
		r.do(strings.TrimPrefix(vrf.DeleteRule{Rule: rule}.String(), "ip "), vrf.DeleteRule{Rule: rule})
		r.repaired(want)
		r.apply(vrf.AddRule{Rule: rule}) // a double, which ip(8) cannot make
		r.repaired(want)
	}
	r.up("eth1", false)
	r.up("eth1", true)
	r.repaired(want)
	r.plug("eth1", false)
	r.plug("eth1", true)
	r.repaired(want)

	r.step = "another gateway"
	plan := r.reach(routing("192.0.2.9"))
	groups := slices.DeleteFunc(slices.Clone(plan.Ops), func(o vrf.Op) bool {
		put, ok := o.Action.(vrf.PutGroup)
		return !ok || !put.Replace
	})
	if len(groups) != 1 {
		t.Errorf("%d groups replaced, want 1:\n%s", len(groups), plan)
	}
	r.step = "teardown"
	r.reach(vrf.Config{})
	if left := r.gw.Must("ip", "nexthop"); strings.TrimSpace(left) != "id 536870913 blackhole proto boot" {
		t.Errorf("next hops left: %q", left)
	}
	if left := r.gw.Must("ip", "route", "show", "table", "5000"); !strings.HasPrefix(left, "198.18.0.0/15 dev eth3 proto 77") || strings.Count(left, "\n") != 1 {
		t.Errorf("routes left: %q", left)
	}
}

// TestApplySurvivesRace loses the carrier between Snapshot and Apply.
func TestApplySurvivesRace(t *testing.T) {
	r := newRig(t)
	want := routing("192.0.2.1")
	plan := vrf.Diff(snapshot(t, r.real), want)
	r.plug("eth1", false)
	result := r.real.Apply(t.Context(), plan)
	fake := r.fake.Apply(t.Context(), plan)
	if !errors.Is(result.Err(), unix.ENETDOWN) || !errors.Is(fake.Err(), unix.ENETDOWN) {
		t.Fatalf("errors %v, fake %v, want %v", result.Err(), fake.Err(), unix.ENETDOWN)
	}
	if len(result.Errors) != len(fake.Errors) || result.Applied != fake.Applied {
		t.Errorf("real: %v\nfake: %v", result.Errors, fake.Errors)
	}
	skipped := slices.DeleteFunc(slices.Clone(result.Errors), func(e vrf.OpError) bool { return !errors.Is(e, vrf.ErrSkipped) })
	if len(skipped) == 0 || result.Applied == 0 {
		t.Errorf("%d skipped, %d applied", len(skipped), result.Applied)
	}
	r.compare()
	r.plug("eth1", true)
	r.repaired(want)
}
