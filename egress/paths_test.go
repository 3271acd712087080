package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/vrf"
)

// fourHops is one network with four next hops that are probed, and a rule that
// lets a client use two of them.
func fourHops() *Spec {
	spec := twoNetworks()
	red := &spec.Networks[0]
	red.BGP, red.Probes = nil, nil
	red.Ports[0].Addresses = []netip.Prefix{netip.MustParsePrefix("172.16.0.1/24"), netip.MustParsePrefix("fd00:16::1/64")}
	red.NextHopProbes = []probes.Config{{Name: "red/nh", Network: "red", Device: "red", Type: probes.ICMP,
		Require: probes.Any, Interval: time.Second, AttemptTimeout: time.Second, Rise: 1, Fall: 1}}
	red.Failback = FailbackNewFlows
	spec.Networks = spec.Networks[:1]
	spec.Pools = spec.Pools[:1]
	spec.Policies = spec.Policies[:1]
	spec.Policies[0].Rules = []Rule{
		{Destination: netip.MustParsePrefix("0.0.0.0/0"), Action: ActionNetwork, Network: "red", Pool: "red-pool", MaxNextHops: 2,
			NextHops: named("172.16.0.11", "172.16.0.12", "172.16.0.13", "172.16.0.14")},
		{Destination: netip.MustParsePrefix("::/0"), Action: ActionNetwork, Network: "red", Pool: "red-pool",
			NextHops: named("fd00:16::11", "fd00:16::12", "fd00:16::13", "fd00:16::14")},
	}
	return spec
}

func named(addresses ...string) []NextHop {
	var out []NextHop
	for _, a := range addresses {
		out = append(out, NextHop{Address: netip.MustParseAddr(a)})
	}
	return out
}

// machine is a kernel that carries out everything perfectly.
type machine struct {
	t     *testing.T
	spec  *Spec
	st    State
	d     Desired
	empty map[uint16]bool
}

func newMachine(t *testing.T, spec *Spec) *machine {
	m := &machine{t: t, spec: spec, empty: map[uint16]bool{}}
	m.st = readyState()
	m.st.Learned = nil
	for _, n := range spec.Networks {
		for _, p := range n.NextHopProbes {
			for i := 1; i <= 4; i++ {
				for _, a := range []string{fmt.Sprintf("172.16.0.1%d", i), fmt.Sprintf("fd00:16::1%d", i)} {
					m.st.Verdicts[nextHopProbeName(p, netip.MustParseAddr(a))] = probes.Up
				}
			}
		}
	}
	m.step()
	return m
}

// step resolves, and lets the kernel have the result.
func (m *machine) step() Desired {
	m.t.Helper()
	m.d = Resolve(m.spec, m.st)
	seen := Observe(vrf.Snapshot{Owner: m.spec.Settings.Ownership.Owner(), Config: m.d.Kernel,
		Links: []vrf.Link{m.st.Links["eth0"], m.st.Links["eth1"]}}, m.spec.Settings.Ownership)
	seen.Learned, seen.Verdicts, seen.Drained = m.st.Learned, m.st.Verdicts, m.empty
	m.st = seen
	return m.d
}

// settled checks that a second look changes nothing.
func (m *machine) settled() {
	m.t.Helper()
	before := m.d
	after := m.step()
	if diff := cmp.Diff(before.Kernel, after.Kernel, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		m.t.Fatalf("a second round wants something else of the kernel: -first +second\n%s", diff)
	}
	if !nat.Render(before.NAT).Equal(nat.Render(after.NAT)) {
		m.t.Fatal("a second round wants something else of the packet filter")
	}
}

func (m *machine) verdict(a string, v probes.Verdict) {
	m.st.Verdicts["red/nh@"+a] = v
}

// members are the next hops in use of the network's IPv4 paths, by number.
func (m *machine) members(active bool) map[uint16][]string {
	out := map[uint16][]string{}
	for _, p := range m.d.Networks[0].Paths {
		if !p.V6 && p.Active == active {
			out[p.Number] = addrStrings(p.Members)
		}
	}
	return out
}

func addrStrings(as []netip.Addr) []string {
	var out []string
	for _, a := range as {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return out
}

func TestClientsGetTwoOfFourNextHops(t *testing.T) {
	m := newMachine(t, fourHops())
	paths := m.members(true)
	if len(paths) != 4 {
		t.Fatalf("%d paths, want one for each next hop: %v", len(paths), paths)
	}
	uses := map[string]int{}
	for n, hops := range paths {
		if len(hops) != 2 {
			t.Errorf("path %d has %v, want two next hops", n, hops)
		}
		for _, h := range hops {
			uses[h]++
		}
	}
	for h, n := range uses {
		if n != 2 {
			t.Errorf("%s is in %d paths, want 2", h, n)
		}
	}
	var spread nat.Spread
	for _, s := range m.d.NAT.Spreads {
		if len(s.Exits) > 1 {
			spread = s
		}
	}
	count := map[string]int{}
	for _, e := range spread.Exits {
		count[e]++
	}
	if len(spread.Exits) != 64 || len(count) != 4 {
		t.Fatalf("buckets %v", count)
	}
	for e, n := range count {
		if n != 16 {
			t.Errorf("%s has %d of 64 buckets", e, n)
		}
	}
	m.settled()
}

// TestLostNextHopIsStoodInFor: only the lost one's place changes, in the same
// groups, and nothing in the packet filter.
func TestLostNextHopIsStoodInFor(t *testing.T) {
	m := newMachine(t, fourHops())
	before, natBefore, routes := m.members(true), m.d.NAT, m.d.Kernel.Routes
	m.verdict("172.16.0.12", probes.Down)
	m.step()
	after := m.members(true)
	for n, hops := range before {
		now := after[n]
		if len(now) != 2 || slices.Contains(now, "172.16.0.12") {
			t.Errorf("path %d had %v and has %v", n, hops, now)
		}
		for _, h := range hops {
			if h != "172.16.0.12" && !slices.Contains(now, h) {
				t.Errorf("path %d lost %s too: %v, now %v", n, h, hops, now)
			}
		}
	}
	if !slices.Equal(routes, m.d.Kernel.Routes) {
		t.Error("routes changed")
	}
	if !nat.Render(natBefore).Equal(nat.Render(m.d.NAT)) {
		t.Error("the packet filter changed")
	}
	m.settled()
}

// TestReturningNextHopGetsNewFlowsOnly: paths that a spare stands in on stay as
// they are, draining, and go when they are empty; new flows get the next hop.
func TestReturningNextHopGetsNewFlowsOnly(t *testing.T) {
	m := newMachine(t, fourHops())
	nominal := m.members(true)
	m.verdict("172.16.0.12", probes.Down)
	m.step()
	patched := m.members(true)
	m.verdict("172.16.0.12", probes.Up)
	m.step()
	active, draining := m.members(true), m.members(false)
	if len(active) != 4 || len(draining) != 2 {
		t.Fatalf("active %v, draining %v, want 4 and 2", active, draining)
	}
	for n, hops := range draining {
		if !slices.Equal(hops, patched[n]) {
			t.Errorf("draining path %d had %v and has %v", n, patched[n], hops)
		}
	}
	sets := func(paths map[uint16][]string) (out []string) {
		for _, hops := range paths {
			out = append(out, fmt.Sprint(hops))
		}
		slices.Sort(out)
		return out
	}
	if got := sets(active); !slices.Equal(got, sets(nominal)) {
		t.Errorf("new flows get %v, want %v", got, sets(nominal))
	}
	m.settled()
	for _, e := range m.d.NAT.Exits {
		if uint32(hopSetMark(0))&e.Mark == 0 {
			t.Errorf("exit %s is closed", e.Name)
		}
	}
	// The next loss stands in on the draining ones as well.
	m.verdict("172.16.0.13", probes.Down)
	m.step()
	for n, hops := range m.members(false) {
		if slices.Contains(hops, "172.16.0.13") || len(hops) != 2 {
			t.Errorf("draining path %d has %v", n, hops)
		}
	}
	m.verdict("172.16.0.13", probes.Up)
	m.step()
	for n := range m.members(false) {
		m.empty[n] = true
	}
	m.st.Drained = m.empty
	m.step()
	if left := m.members(false); len(left) != 0 {
		t.Errorf("empty paths are left: %v", left)
	}
	m.empty = map[uint16]bool{}
	m.st.Drained = nil
	m.settled()
}

func TestFailbackNever(t *testing.T) {
	spec := fourHops()
	spec.Networks[0].Failback = FailbackNever
	m := newMachine(t, spec)
	m.verdict("172.16.0.12", probes.Down)
	m.step()
	patched := m.members(true)
	m.verdict("172.16.0.12", probes.Up)
	m.step()
	if now := m.members(true); fmt.Sprint(now) != fmt.Sprint(patched) || len(m.members(false)) > 0 {
		t.Errorf("after the return %v, want %v as while it was away", now, patched)
	}
	// A place that nobody could take is filled again.
	for _, a := range []string{"172.16.0.11", "172.16.0.12", "172.16.0.13"} {
		m.verdict(a, probes.Down)
	}
	m.step()
	m.verdict("172.16.0.11", probes.Up)
	m.step()
	for n, hops := range m.members(true) {
		if len(hops) != 2 {
			t.Errorf("path %d has %v, want two", n, hops)
		}
	}
}

// TestAllNextHopsLost: every group is one blackhole, the network is down, and
// back as it was when they return.
func TestAllNextHopsLost(t *testing.T) {
	m := newMachine(t, fourHops())
	nominal := m.members(true)
	all := []string{"172.16.0.11", "172.16.0.12", "172.16.0.13", "172.16.0.14", "fd00:16::11", "fd00:16::12", "fd00:16::13", "fd00:16::14"}
	for _, a := range all {
		m.verdict(a, probes.Down)
	}
	m.step()
	if red := m.d.network("red"); red.Up {
		t.Error("the network is up without a next hop")
	}
	hops := map[vrf.NextHopID]vrf.NextHop{}
	for _, h := range m.d.Kernel.NextHops {
		hops[h.ID] = h
	}
	for _, g := range m.d.Kernel.Groups {
		if len(g.Members) != 1 || !hops[g.Members[0].ID].Blackhole {
			t.Errorf("group %+v is no blackhole", g)
		}
	}
	m.settled()
	for _, a := range all {
		m.verdict(a, probes.Up)
	}
	m.step()
	if got := m.members(true); fmt.Sprint(got) != fmt.Sprint(nominal) {
		t.Errorf("after the return %v, want %v", got, nominal)
	}
}

// TestEditKeepsFlows: a rule that names other next hops gets other paths, and
// those of the flows that are there stay until they are empty, without next
// hops that fail meanwhile.
func TestEditKeepsFlows(t *testing.T) {
	m := newMachine(t, fourHops())
	before := m.members(true)
	edited := fourHops()
	edited.Policies[0].Rules[0].NextHops = named("172.16.0.13", "172.16.0.14")
	m.spec = edited
	m.step()
	if n := len(m.members(false)); n != 4 {
		t.Fatalf("%d paths are draining, want the 4 from before", n)
	}
	m.settled()
	marks := map[uint32]bool{}
	for _, e := range m.d.NAT.Exits {
		marks[e.Mark] = true
	}
	for n := range before {
		if !marks[uint32(exitMark(n, assignIndexes([]string{"red-pool"}, nil)["red-pool"]))] {
			t.Errorf("the guard would stop flows of path %d", n)
		}
	}
	groupsOf := func(number uint16) (out []string) {
		for _, p := range m.st.Paths {
			if p.Number == number {
				for _, g := range p.Groups {
					for _, h := range m.st.Members[g.ID] {
						out = append(out, h.Gateway.String())
					}
				}
			}
		}
		slices.Sort(out)
		return out
	}
	for n, hops := range before {
		if got := groupsOf(n); !slices.Equal(got, hops) {
			t.Errorf("path %d had %v and has %v", n, hops, got)
		}
	}
	m.verdict("172.16.0.11", probes.Down)
	m.step()
	for n, hops := range before {
		want := slices.DeleteFunc(slices.Clone(hops), func(a string) bool { return a == "172.16.0.11" })
		if got := groupsOf(n); !slices.Equal(got, want) {
			t.Errorf("path %d has %v after the loss of .11, want %v", n, got, want)
		}
	}
}

// TestRestartFindsPaths: a new process with the same Spec and no verdicts
// changes nothing, whatever had happened before.
func TestRestartFindsPaths(t *testing.T) {
	m := newMachine(t, fourHops())
	m.verdict("172.16.0.12", probes.Down)
	m.step()
	m.verdict("172.16.0.12", probes.Up)
	m.step()
	m.verdict("172.16.0.14", probes.Down)
	m.step()
	before := m.members(true)
	m.st.Verdicts = map[string]probes.Verdict{}
	m.settled()
	if got := m.members(true); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("after the restart %v, before %v", got, before)
	}
}

// TestPathsDoNotDependOnOrder: the same numbers whatever the order of the file.
func TestPathsDoNotDependOnOrder(t *testing.T) {
	a := Resolve(fourHops(), newMachine(t, fourHops()).st)
	spec := fourHops()
	slices.Reverse(spec.Policies[0].Rules)
	slices.Reverse(spec.Policies[0].Rules[1].NextHops)
	b := Resolve(spec, newMachine(t, spec).st)
	if fmt.Sprint(a.Networks) != fmt.Sprint(b.Networks) {
		t.Errorf("paths differ with the order:\n%+v\n%+v", a.Networks, b.Networks)
	}
}

// TestPathNumbersRunOut: what finds no number is dropped and counted.
func TestPathNumbersRunOut(t *testing.T) {
	spec := fourHops()
	var rules []Rule
	for i := range 1100 {
		r := spec.Policies[0].Rules[0]
		r.Destination = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		r.NextHops = slices.Clone(r.NextHops)
		r.NextHops[0].Preference = uint16(i)
		r.NextHops[1].Preference, r.NextHops[2].Preference, r.NextHops[3].Preference = uint16(i), uint16(i), uint16(i)
		rules = append(rules, r)
	}
	spec.Policies[0].Rules = rules
	if n, _ := CountNumbers(spec); n != 4401 {
		t.Errorf("%d numbers are needed, want 4401", n)
	}
	m := newMachine(t, spec)
	red := m.d.network("red")
	if red.Exhausted != 4401-maxIndex {
		t.Errorf("%d paths found no number, want %d", red.Exhausted, 4401-maxIndex)
	}
	closed := 0
	for _, e := range m.d.NAT.Exits {
		if e.Mark == 0 {
			closed++
		}
	}
	if closed != red.Exhausted {
		t.Errorf("%d exits are closed, want %d", closed, red.Exhausted)
	}
}

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }
