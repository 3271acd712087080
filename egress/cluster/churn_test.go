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
