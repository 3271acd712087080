package steer

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/vrf"
)

// Health is what is known of a gateway by asking it.
type Health uint8

// A gateway whose health is Unknown goes on as the kernel has it.
const (
	Unknown Health = iota
	Ready
	// Draining gateways keep the flows that they have.
	Draining
	Down
)

func (h Health) String() string {
	return [...]string{"unknown", "ready", "draining", "down"}[min(h, Down)]
}

// Observed is what Decide is told of the world.
type Observed struct {
	Links  []vrf.Link
	Health map[string]Health // by the gateway's ID
	// Sets are those the kernel has.
	Sets []KernelSet
	// Empty are the numbers of sets that have no flows and take none.
	Empty map[uint16]bool
	// Former are the bits of other masks of marks that flows may still have.
	Former []uint32
	// Choices are those that the packet filter has, see Choices.
	Choices map[string]map[string]string
}

// Choices finds in the packet filter which set each client of a bounded rule has: by
// the map's name and the client's address, a verdict. They belong to rules.
func Choices(rules nat.Ruleset) map[string]map[string]string {
	out := map[string]map[string]string{}
	for name, s := range rules.Sets {
		if strings.HasPrefix(name, prefixChoose4) || strings.HasPrefix(name, prefixChoose6) {
			out[name] = s.Elements
		}
	}
	return out
}

// KernelSet is a set of gateways as the kernel has it.
type KernelSet struct {
	Number uint16
	// Markers are the gateways that it is of, sorted; see markerOf.
	Markers []netip.Addr
	// Hops are where its flows go now, without ids, for either family.
	Hops []vrf.NextHop
}

// Sets finds the sets of gateways in the kernel, by number.
func Sets(have vrf.Snapshot) []KernelSet {
	hops := make(map[vrf.NextHopID]vrf.NextHop, len(have.Config.NextHops))
	for _, n := range have.Config.NextHops {
		id := n.ID
		n.ID, n.IPv6 = 0, false
		hops[id] = n
	}
	groups := make(map[vrf.NextHopID][]vrf.Member, len(have.Config.Groups))
	for _, g := range have.Config.Groups {
		groups[g.ID] = g.Members
	}
	byNumber := map[uint16]*KernelSet{}
	for _, r := range have.Config.Routes {
		if r.Table <= tableBase || r.Table > tableBase+maxNumber {
			continue
		}
		number := uint16(r.Table - tableBase)
		s := byNumber[number]
		if s == nil {
			s = &KernelSet{Number: number}
			byNumber[number] = s
		}
		switch {
		case r.Type == vrf.Blackhole && r.Prefix.IsSingleIP() && markerPrefix.Contains(r.Prefix.Addr()):
			s.Markers = append(s.Markers, r.Prefix.Addr())
		case r.Type == vrf.Unicast:
			for _, m := range groups[r.NextHop] {
				if h := hops[m.ID]; !h.Blackhole && h.Device != "" && !slices.Contains(s.Hops, h) {
					s.Hops = append(s.Hops, h)
				}
			}
		}
	}
	out := make([]KernelSet, 0, len(byNumber))
	for _, s := range byNumber {
		slices.SortFunc(s.Markers, netip.Addr.Compare)
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b KernelSet) int { return cmp.Compare(a.Number, b.Number) })
	return out
}
