package cluster

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
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

// TestChurn lets nodes, gateways and pools change at random, and holds after every
// step that no address has two holders, that what holds a block keeps it, and that
// nothing moves without need.
func TestChurn(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := randomSnapshot(seed)
		now := day()
		for step := range 40 {
			now = now.Add(time.Duration(r.IntN(40)) * time.Second)
			churn(r, &s, now)
			before := s
			decide(&s, now)
			if err := held(&before, &s, now); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
		// Left alone it comes to rest.
		for range 4 {
			now = now.Add(time.Hour)
			decide(&s, now)
		}
		again := s
		decide(&again, now)
		if fmt.Sprint(again.Gateways) != fmt.Sprint(s.Gateways) || fmt.Sprint(again.Pools) != fmt.Sprint(s.Pools) {
			t.Fatalf("seed %d does not come to rest", seed)
		}
	}
}

func churn(r *rand.Rand, s *Snapshot, now time.Time) {
	s.Nodes, s.Gateways, s.Pools = slices.Clone(s.Nodes), slices.Clone(s.Gateways), slices.Clone(s.Pools)
	switch n := &s.Nodes[r.IntN(len(s.Nodes))]; r.IntN(8) {
	case 0:
		n.Ready, n.NotReadySince = !n.Ready, time.Time{}
		if r.IntN(2) == 0 {
			n.NotReadySince = now
		}
	case 1:
		n.Unschedulable = !n.Unschedulable
	case 2:
		if len(s.Nodes) > 1 {
			i := r.IntN(len(s.Nodes))
			s.Nodes = slices.Delete(s.Nodes, i, i+1)
		}
	case 3:
		if i := 1 + r.IntN(12); !slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Name == fmt.Sprintf("n%d", i) }) {
			s.Nodes = append(s.Nodes, nodeN(i))
			slices.SortFunc(s.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
		}
	case 4:
		s.Pools[r.IntN(3)].BlockSize4 = 30 + r.IntN(3)
	}
	if len(s.Gateways) == 0 {
		return
	}
	switch g := &s.Gateways[r.IntN(len(s.Gateways))]; r.IntN(6) {
	case 0:
		g.Replicas = r.IntN(5)
	case 1:
		g.Blocks = r.IntN(3)
	case 2:
		if g.Deleted.IsZero() {
			g.Deleted = now
		} else { // gone, and made anew
			g.Deleted, g.Instances, g.UID = time.Time{}, nil, g.UID+"'"
		}
	case 3:
		g.NodeSelector = []string{"", "zone == 'red'"}[r.IntN(2)]
	}
}

// single is an error if an address of a network has two holders.
func single(s *Snapshot) error {
	holders := map[string][]netip.Prefix{}
	for _, p := range s.Pools {
		for _, x := range p.Allocations {
			for _, other := range holders[p.Raw.Network] {
				if other.Overlaps(x.Block) {
					return fmt.Errorf("%s and %s of network %s overlap", other, x.Block, p.Raw.Network)
				}
			}
			holders[p.Raw.Network] = append(holders[p.Raw.Network], x.Block)
		}
	}
	return nil
}

// held is what must be true from one state of the controller to the next.
func held(before, after *Snapshot, now time.Time) error {
	if err := single(after); err != nil {
		return err
	}
	l := newLookup(after)
	c := newChecks(after, l)
	p := &placer{lookup: l, now: now}
	for i := range after.Gateways {
		g, was := &after.Gateways[i], &before.Gateways[i]
		usable, active := 0, 0
		for _, at := range was.Instances {
			if n := l.nodes[at.Node]; n != nil && p.usable(g, n) {
				usable++
			}
		}
		for _, at := range g.Instances {
			if at.Draining.IsZero() {
				active++
			}
		}
		if c.gateway(g) && g.Deleted.IsZero() && g.Replicas > 0 && active > g.Replicas+len(was.Instances)-usable {
			return fmt.Errorf("%s: %d are active, %d wanted", g.Key(), active, g.Replicas)
		}
		for _, at := range was.Instances {
			if n := l.nodes[at.Node]; n == nil || !p.usable(g, n) || !g.Deleted.IsZero() || !at.Draining.IsZero() || g.Replicas > 0 && usable > g.Replicas {
				continue
			}
			if now := g.at(at.Node); now == nil || !now.Draining.IsZero() {
				return fmt.Errorf("%s left %s without need", g.Key(), at.Node)
			}
		}
	}
	for i, pool := range before.Pools {
		now := &after.Pools[i]
		for _, x := range pool.Allocations {
			gone := !slices.ContainsFunc(after.Gateways, func(g Gateway) bool { return g.Key() == x.Gateway && g.UID == x.UID && g.at(x.Node) != nil })
			cut := slices.ContainsFunc(after.Gateways, func(g Gateway) bool {
				return g.Key() == x.Gateway && len(slices.DeleteFunc(slices.Clone(pool.Allocations), func(y Allocation) bool {
					return y.Gateway != x.Gateway || y.Node != x.Node || y.Block.Addr().Is4() != x.Block.Addr().Is4()
				})) > max(g.Blocks, 1)
			})
			if !gone && !cut && !slices.Contains(now.Allocations, x) {
				return fmt.Errorf("%+v was taken away", x)
			}
		}
	}
	return nil
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
