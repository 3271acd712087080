package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/egret-router/egret/egress/config"
)

// maxBlocks bounds the blocks that a gateway gets on each node, per family.
const maxBlocks = 256

// PoolAllocations is what a pool's status is to say.
type PoolAllocations struct {
	Pool        string
	Allocations []Allocation
}

// Allocate hands blocks of the pools to gateways, in the order of the Snapshot's
// pools; allocations are sorted by block.
//
// Every instance, also one that drains, holds Blocks (at least one) of each family
// that its pool has. What it holds it keeps. A block is free again when its
// instance is in neither the Snapshot nor the placements, so no earlier than one
// write of the status later; and no two pools of one network hand out the same
// address. Blocks with addresses that the network itself needs are left out.
//
// A pool that is wrong in itself, or overlaps another of its network whose name
// comes first, or is being deleted, hands out nothing new.
func Allocate(s Snapshot, placements []Placement) ([]PoolAllocations, []Problem) {
	l := newLookup(&s)
	checked := newChecks(&s, l)
	a := &allocator{lookup: l, gateways: map[string]*Gateway{}, taken: map[string]*ranges{}}
	for i := range s.Gateways {
		a.gateways[s.Gateways[i].Key()] = &s.Gateways[i]
	}
	keep := a.holders(&s, placements)
	kept := make([][]Allocation, len(s.Pools))
	for i := range s.Pools {
		kept[i] = a.keep(&s.Pools[i], keep)
	}
	wanted := map[string][]holder{}
	for _, p := range placements {
		if g := a.gateways[p.Gateway]; g != nil && checked.gateway(g) {
			for _, at := range p.Instances {
				wanted[g.Pool] = append(wanted[g.Pool], holder{g.Key(), at.Node})
			}
		}
	}
	result := make([]PoolAllocations, len(s.Pools))
	for i := range s.Pools {
		pool := &s.Pools[i]
		allocations := kept[i]
		if checked.pool(pool) && !pool.Deleted {
			allocations = a.fill(pool, allocations, wanted[pool.Name])
		}
		slices.SortFunc(allocations, compareAllocations)
		result[i] = PoolAllocations{pool.Name, allocations}
	}
	return result, sortProblems(a.problems)
}

func compareAllocations(a, b Allocation) int {
	return cmp.Or(a.Block.Compare(b.Block), cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Node, b.Node))
}

// holder is who may hold blocks: a gateway on a node.
type holder struct{ gateway, node string }

type allocator struct {
	lookup   *lookup
	gateways map[string]*Gateway
	// taken are the addresses of each network that nobody else may get.
	taken    map[string]*ranges
	problems []Problem
}

// holders are the instances that are, and those that will be.
func (a *allocator) holders(s *Snapshot, placements []Placement) map[holder]bool {
	keep := map[holder]bool{}
	for i := range s.Gateways {
		for _, at := range s.Gateways[i].Instances {
			keep[holder{s.Gateways[i].Key(), at.Node}] = true
		}
	}
	for _, p := range placements {
		for _, at := range p.Instances {
			keep[holder{p.Gateway, at.Node}] = true
		}
	}
	return keep
}

// network are the addresses of a network that are taken.
func (a *allocator) network(name string) *ranges {
	r := a.taken[name]
	if r == nil {
		r = &ranges{}
		a.taken[name] = r
		if n := a.lookup.networks[name]; n != nil {
			for addr := range n.own() {
				r.insert(whole(addr))
			}
		}
	}
	return r
}

// keep are the allocations of a pool that still hold.
func (a *allocator) keep(pool *Pool, keep map[holder]bool) []Allocation {
	var kept []Allocation
	taken, prefixes := a.network(pool.Raw.Network), pool.prefixes()
	count := map[holder][2]int{}
	allocations := slices.SortedFunc(slices.Values(pool.Allocations), compareAllocations)
	for _, x := range allocations {
		g, h := a.gateways[x.Gateway], holder{x.Gateway, x.Node}
		if g == nil || g.UID != x.UID || g.Pool != pool.Name || !keep[h] || !x.Block.IsValid() || x.Block != x.Block.Masked() {
			continue
		}
		n, i := count[h], familyIndex(x.Block)
		if n[i] >= max(g.Blocks, 1) || !insideOf(prefixes, x.Block) || taken.overlaps(x.Block) {
			continue
		}
		n[i]++
		count[h] = n
		taken.insert(x.Block)
		kept = append(kept, x)
	}
	return kept
}

// fill gives the holders what they lack.
func (a *allocator) fill(pool *Pool, allocations []Allocation, wanted []holder) []Allocation {
	taken, prefixes := a.network(pool.Raw.Network), pool.prefixes()
	for i, bits := range pool.blockSizes() {
		var have = map[holder]int{}
		for _, x := range allocations {
			if familyIndex(x.Block) == i {
				have[holder{x.Gateway, x.Node}]++
			}
		}
		of := slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return familyIndex(p) != i })
		if len(of) == 0 {
			continue
		}
		var short []string
		missing := 0
		from := netip.Addr{}
		for _, h := range wanted {
			g := a.gateways[h.gateway]
			for need := max(g.Blocks, 1) - have[h]; need > 0; need-- {
				block, ok := taken.free(of, bits, from)
				if !ok {
					short, missing = append(short, InstanceID(h.gateway, h.node)), missing+need
					break
				}
				from = block.Addr()
				taken.insert(block)
				allocations = append(allocations, Allocation{Block: block, Gateway: h.gateway, Node: h.node, UID: g.UID})
			}
		}
		a.exhausted(pool, of, bits, short, missing)
	}
	return allocations
}

func (a *allocator) exhausted(pool *Pool, of []netip.Prefix, bits int, short []string, missing int) {
	if missing == 0 {
		return
	}
	r := &reporter{kind: KindPool, name: pool.Name}
	names := strings.Join(short[:min(len(short), 5)], ", ")
	if more := len(short) - 5; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	r.add(ReasonExhausted, "spec.prefixes", "%d more %s blocks of /%d are needed, by %s, and none is free: add a prefix", missing, family(of[0].Addr()), bits, names)
	a.problems = append(a.problems, r.problems...)
}

func familyIndex(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

// blockSizes are the lengths of blocks of IPv4 and IPv6.
func (p *Pool) blockSizes() [2]int {
	return [2]int{cmp.Or(p.BlockSize4, 32), cmp.Or(p.BlockSize6, 128)}
}

// prefixes are those of the pool that can be read, sorted.
func (p *Pool) prefixes() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range p.Raw.Prefixes {
		prefix, err := netip.ParsePrefix(s)
		if a, e := netip.ParseAddr(s); e == nil {
			prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err == nil && prefix == prefix.Masked() && prefix.Addr().Zone() == "" && !prefix.Addr().Is4In6() {
			list = append(list, prefix)
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

func insideOf(prefixes []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Overlaps(p) })
}

// own are the addresses that a network needs for itself, on whatever node.
func (n *Network) own() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	note := func(s string) {
		if p, err := netip.ParsePrefix(s); err == nil {
			own[p.Addr()] = true
		} else if a, err := netip.ParseAddr(s); err == nil {
			own[a] = true
		} else if to, err := netip.ParseAddrPort(s); err == nil {
			own[to.Addr()] = true
		}
	}
	raws := []config.RawNetwork{n.Raw}
	for _, h := range n.Hosts {
		raws = append(raws, config.RawNetwork{Interfaces: h.Interfaces, Addresses: h.Addresses, StaticRoutes: h.StaticRoutes})
	}
	for _, raw := range raws {
		for _, s := range raw.Addresses {
			note(s)
		}
		for _, i := range raw.Interfaces {
			for _, s := range i.Addresses {
				note(s)
			}
		}
		for _, r := range raw.StaticRoutes {
			for _, hop := range r.NextHops {
				note(hop.Address)
			}
		}
	}
	for _, p := range n.Raw.Probes {
		for _, t := range p.Targets {
			note(t.Target)
		}
	}
	if n.Raw.BGP != nil {
		for _, p := range n.Raw.BGP.Peers {
			note(p.Address)
		}
	}
	maps.DeleteFunc(own, func(a netip.Addr, _ bool) bool { return !a.IsValid() || a.Zone() != "" })
	return own
}
