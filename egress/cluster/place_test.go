package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// placeable is a cluster of n nodes with one red gateway that is nowhere yet.
func placeable(n, replicas int) Snapshot {
	var s Snapshot
	for i := range n {
		node := nodeN(i + 1)
		node.Labels[LabelZone] = fmt.Sprintf("z%d", i%3)
		s.Nodes = append(s.Nodes, node)
	}
	s.Networks, s.Pools = colours("red")
	g := gatewayOn("r", "red")
	g.Replicas = replicas
	s.Gateways = []Gateway{g}
	return s
}

// where are the nodes of a gateway, draining ones with a "-".
func where(g Gateway) string {
	var words []string
	for _, i := range g.Instances {
		word := i.Node
		if !i.Draining.IsZero() {
			word = "-" + word
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestPlaceSpreadsOverZones(t *testing.T) {
	for replicas := 1; replicas <= 6; replicas++ {
		s := placeable(9, replicas)
		if problems := decide(&s, day()); len(problems) > 0 {
			t.Fatal(problems)
		}
		zones := map[string]int{}
		l := newLookup(&s)
		for _, i := range s.Gateways[0].Instances {
			zones[l.nodes[i.Node].Labels[LabelZone]]++
		}
		least, most := 99, 0
		for _, z := range []string{"z0", "z1", "z2"} {
			least, most = min(least, zones[z]), max(most, zones[z])
		}
		if len(s.Gateways[0].Instances) != replicas || most-least > 1 {
			t.Errorf("%d replicas: %v", replicas, zones)
		}
	}
}

func TestPlaceEverywhere(t *testing.T) {
	s := placeable(4, 0)
	s.Nodes[1].Ready = false
	s.Nodes[2].Labels["egress"] = "yes"
	s.Nodes[3].Unschedulable = true
	decide(&s, day())
	if got := where(s.Gateways[0]); got != "n1 n3" {
		t.Error(got)
	}
	s.Gateways[0].NodeSelector = "has(egress)"
	decide(&s, day())
	if got := where(s.Gateways[0]); got != "-n1 n3" {
		t.Error(got)
	}
	decide(&s, day().Add(time.Minute))
	if got := where(s.Gateways[0]); got != "n3" {
		t.Error(got)
	}
	s.Networks[0].Hosts[0].NodeSelector = "!has(egress)"
	s.Gateways[0].NodeSelector = ""
	decide(&s, day())
	if got := where(s.Gateways[0]); got != "n3" { // its block on n1 is not free before
		t.Error(got)
	}
	decide(&s, day())
	if got := where(s.Gateways[0]); got != "n1 n3" { // the new one first
		t.Error(got)
	}
	decide(&s, day())
	if got := where(s.Gateways[0]); got != "n1 -n3" {
		t.Error(got)
	}
}

// TestCordon: the new instance comes first, then the old one drains, for the
// grace period and with its addresses; when the node is back before, it stays if it
// is needed.
func TestCordon(t *testing.T) {
	s := placeable(2, 1)
	decide(&s, day())
	old := s.Gateways[0].Instances[0].Node
	at := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == old })
	other := s.Nodes[1-at].Name
	s.Nodes[at].Unschedulable = true
	both := func(first, second string) string {
		words := []string{first, second}
		slices.SortFunc(words, func(a, b string) int { return strings.Compare(strings.TrimPrefix(a, "-"), strings.TrimPrefix(b, "-")) })
		return strings.Join(words, " ")
	}
	decide(&s, day())
	if got := where(s.Gateways[0]); got != both(old, other) {
		t.Fatal(got)
	}
	decide(&s, day().Add(time.Second))
	if got := where(s.Gateways[0]); got != both("-"+old, other) {
		t.Fatal(got)
	}
	if len(s.Pools[0].Allocations) != 4 {
		t.Errorf("allocations %v", s.Pools[0].Allocations)
	}
	decide(&s, day().Add(time.Minute))
	if got := where(s.Gateways[0]); got != both("-"+old, other) {
		t.Fatal(got)
	}
	back := s
	back.Nodes = slices.Clone(s.Nodes)
	back.Nodes[at].Unschedulable, back.Nodes[1-at].Unschedulable = false, true
	decide(&back, day().Add(time.Minute))
	if got := where(back.Gateways[0]); got != both(old, "-"+other) {
		t.Fatal(got)
	}
	decide(&s, day().Add(61*time.Second))
	if got := where(s.Gateways[0]); got != other {
		t.Fatal(got)
	}
	decide(&s, day().Add(61*time.Second))
	if len(s.Pools[0].Allocations) != 2 {
		t.Errorf("allocations %v", s.Pools[0].Allocations)
	}
}

func TestDeletedGateway(t *testing.T) {
	s := placeable(3, 2)
	decide(&s, day())
	s.Gateways[0].Deleted = day().Add(time.Hour)
	decide(&s, day().Add(time.Hour))
	for _, i := range s.Gateways[0].Instances {
		if i.Draining != day().Add(time.Hour) {
			t.Errorf("%+v", i)
		}
	}
	decide(&s, day().Add(time.Hour+59*time.Second))
	if len(s.Gateways[0].Instances) != 2 {
		t.Error(where(s.Gateways[0]))
	}
	decide(&s, day().Add(time.Hour+time.Minute))
	if len(s.Gateways[0].Instances) != 0 {
		t.Error(where(s.Gateways[0]))
	}
}

// TestNodeNotReady: it may be forwarding, so that its addresses stay its own.
func TestNodeNotReady(t *testing.T) {
	s := placeable(3, 3)
	decide(&s, day())
	s.Nodes[1].Ready = false
	problems := decide(&s, day())
	if got := where(s.Gateways[0]); got != "n1 n2 n3" {
		t.Error(got)
	}
	if len(problems) != 1 || problems[0].Reason != ReasonUnplaced {
		t.Error(problems)
	}
	s.Nodes = append(s.Nodes, nodeN(4))
	for range 2 {
		decide(&s, day())
	}
	if got := where(s.Gateways[0]); got != "n1 -n2 n3 n4" {
		t.Error(got)
	}
	decide(&s, day().Add(24*time.Hour))
	if got := where(s.Gateways[0]); got != "n1 -n2 n3 n4" || len(s.Pools[0].Allocations) != 8 {
		t.Error(got, s.Pools[0].Allocations)
	}
	s.Nodes[1].Ready = true
	decide(&s, day().Add(24*time.Hour))
	if got := where(s.Gateways[0]); got != "n1 n3 n4" {
		t.Error(got)
	}
}

func TestAllocateExhausted(t *testing.T) {
	s := placeable(6, 6)
	s.Pools[0].Raw.Prefixes = []string{"198.51.0.0/30", "2001:db8::/124"}
	problems := decide(&s, day())
	want := "EgressPool red: spec.prefixes: 2 more IPv4 blocks of /32 are needed, by egress/r@n5, egress/r@n6, and none is free: add a prefix"
	if len(problems) != 1 || problems[0].String() != want {
		t.Errorf("%v\nwant %s", problems, want)
	}
	if n := len(s.Pools[0].Allocations); n != 10 {
		t.Errorf("%d allocations", n)
	}
	s.Pools[0].Raw.Prefixes = append(s.Pools[0].Raw.Prefixes, "198.51.9.0/31")
	before := s.Pools[0].Allocations
	if problems := decide(&s, day()); len(problems) > 0 {
		t.Error(problems)
	}
	for _, x := range before {
		if !slices.Contains(s.Pools[0].Allocations, x) {
			t.Errorf("%+v was taken away", x)
		}
	}
}

// TestAllocateLargeBlocks: of a pool too large to count, around what is taken.
func TestAllocateLargeBlocks(t *testing.T) {
	s := placeable(3, 3)
	s.Networks[0].Hosts[0].Interfaces[0].Addresses = []string{"2001:db8::1/64", "198.51.0.6/24"}
	s.Networks[0].Hosts[0].StaticRoutes = nil
	s.Pools[0].Raw.Prefixes = []string{"2001:db8::/32", "198.51.0.0/28"}
	s.Pools[0].BlockSize6, s.Pools[0].BlockSize4 = 64, 30
	if problems := decide(&s, day()); len(problems) > 0 {
		t.Fatal(problems)
	}
	var got []string
	for _, x := range s.Pools[0].Allocations {
		got = append(got, x.Block.String()+" "+x.Node)
	}
	want := "198.51.0.0/30 n1, 198.51.0.8/30 n2, 198.51.0.12/30 n3, 2001:db8:0:1::/64 n1, 2001:db8:0:2::/64 n2, 2001:db8:0:3::/64 n3"
	if strings.Join(got, ", ") != want {
		t.Error(got)
	}
}

// TestNoNodes: who does not know the nodes (yet) takes nothing away.
func TestNoNodes(t *testing.T) {
	s := placeable(3, 2)
	decide(&s, day())
	before, blocks := where(s.Gateways[0]), holds(&s)
	s.Nodes = nil
	for range 2 {
		decide(&s, day().Add(time.Hour))
	}
	if where(s.Gateways[0]) != before || !slices.Equal(holds(&s), blocks) {
		t.Error(where(s.Gateways[0]), holds(&s))
	}
}

// TestNodeWavers: a node that is not ready for a moment keeps its gateway, and gets
// no other.
func TestNodeWavers(t *testing.T) {
	s := placeable(3, 2)
	decide(&s, day())
	before := where(s.Gateways[0])
	at := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == s.Gateways[0].Instances[0].Node })
	s.Nodes[at].Ready, s.Nodes[at].NotReadySince = false, day()
	s.Gateways = append(s.Gateways, gatewayOn("all", "red"))
	for range 2 {
		decide(&s, day().Add(NotReadyGrace-1))
	}
	if got := where(s.Gateways[0]); got != before {
		t.Errorf("%s, then %s", before, got)
	}
	if s.Gateways[1].at(s.Nodes[at].Name) != nil {
		t.Error("a gateway was put on a node that is not ready")
	}
	if next := NextPlace(s, day()); next != day().Add(NotReadyGrace) {
		t.Error(next)
	}
	for range 2 {
		decide(&s, day().Add(NotReadyGrace))
	}
	if got := s.Gateways[0]; len(got.Instances) != 3 || got.at(s.Nodes[at].Name).Draining.IsZero() {
		t.Error(where(got))
	}
	if next := NextPlace(s, day().Add(NotReadyGrace)); next != day().Add(NotReadyGrace+time.Minute) {
		t.Error(next)
	}
	if next := NextPlace(s, day().Add(time.Hour)); !next.IsZero() {
		t.Error(next)
	}
}
