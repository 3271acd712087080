package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/egret-router/egret/egress/config"
)

// holds are the blocks of IPv4 and their holders.
func holds(s *Snapshot) []string {
	var list []string
	for _, p := range s.Pools {
		for _, x := range p.Allocations {
			if x.Block.Addr().Is4() {
				list = append(list, p.Name+" "+x.Block.String()+" "+InstanceID(x.Gateway, x.Node))
			}
		}
	}
	return list
}

// TestFreedOneWriteLater: a block is not another's before the status said that its
// holder is gone.
func TestFreedOneWriteLater(t *testing.T) {
	s := placeable(2, 1)
	s.Gateways[0].NodeSelector = "kubernetes.io/hostname == 'n1'"
	s.Pools[0].Raw.Prefixes = []string{"198.51.0.9/32"}
	decide(&s, day())
	other := gatewayOn("z", "red")
	other.NodeSelector = "kubernetes.io/hostname == 'n2'"
	s.Gateways = append(s.Gateways, other)
	decide(&s, day())
	s.Gateways[0].Deleted = day()
	old := []string{"red 198.51.0.9/32 egress/r@n1"}
	for _, wait := range []time.Duration{0, 59 * time.Second, 60 * time.Second} { // gone with the last
		if decide(&s, day().Add(wait)); !slices.Equal(holds(&s), old) {
			t.Fatalf("after %v: %v", wait, holds(&s))
		}
	}
	if where(s.Gateways[0]) != "" {
		t.Fatal(where(s.Gateways[0]))
	}
	decide(&s, day().Add(time.Minute))
	if want := []string{"red 198.51.0.9/32 egress/z@n2"}; !slices.Equal(holds(&s), want) {
		t.Error(holds(&s))
	}
}

// TestAllocateHeals: whoever wrote a block of two holders into the status, one of
// them loses it; and nobody keeps what is not in the pool, or an older gateway's.
func TestAllocateHeals(t *testing.T) {
	s := placeable(3, 3)
	decide(&s, day())
	want := holds(&s)
	s.Pools[0].Allocations = append(s.Pools[0].Allocations,
		Allocation{prefix("198.51.0.0/32"), "egress/r", "n3", "uid-r"}, Allocation{prefix("198.51.0.0/31"), "egress/r", "n3", "uid-r"},
		Allocation{prefix("203.0.113.0/32"), "egress/r", "n1", "uid-r"}, Allocation{prefix("198.51.0.7/32"), "egress/gone", "n1", "uid-gone"})
	decide(&s, day())
	if err := single(&s); err != nil || len(holds(&s)) != 3 {
		t.Error(err, holds(&s))
	}
	s = placeable(3, 3)
	decide(&s, day())
	twin := Pool{Name: "twin", Raw: config.RawPool{Network: "red", Prefixes: []string{"198.51.0.0/28"}},
		Allocations: []Allocation{{prefix("198.51.0.0/32"), "egress/t", "n1", "uid-t"}}}
	g := gatewayOn("t", "red", 1)
	g.Pool = "twin"
	s.Gateways, s.Pools = append(s.Gateways, g), append(s.Pools, twin)
	decide(&s, day())
	if got := holds(&s); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// One made anew under the old name does not inherit.
	s.Gateways[0].UID = "new"
	decide(&s, day())
	for _, x := range s.Pools[0].Allocations {
		if x.UID != "new" {
			t.Errorf("%+v", x)
		}
	}
}
