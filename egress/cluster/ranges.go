package cluster

import (
	"net/netip"
	"slices"
)

// ranges is a set of prefixes that do not overlap, except where one lies inside
// another, which is then not in it.
type ranges struct {
	sorted []netip.Prefix
}

// find is the place of the first prefix whose address is above a, or equal.
func (r *ranges) find(a netip.Addr) int {
	i, _ := slices.BinarySearchFunc(r.sorted, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return i
}

// overlapping is the first prefix in the set that overlaps p.
func (r *ranges) overlapping(p netip.Prefix) (netip.Prefix, bool) {
	i := r.find(p.Addr())
	if i > 0 && r.sorted[i-1].Overlaps(p) {
		return r.sorted[i-1], true
	}
	if i < len(r.sorted) && r.sorted[i].Overlaps(p) {
		return r.sorted[i], true
	}
	return netip.Prefix{}, false
}

func (r *ranges) overlaps(p netip.Prefix) bool {
	_, yes := r.overlapping(p)
	return yes
}

// insert adds p, and drops what lies inside it.
func (r *ranges) insert(p netip.Prefix) {
	if other, yes := r.overlapping(p); yes && other.Bits() <= p.Bits() {
		return
	}
	i := r.find(p.Addr())
	end := i
	for end < len(r.sorted) && r.sorted[end].Overlaps(p) {
		end++
	}
	r.sorted = slices.Replace(r.sorted, i, end, p)
}

// free is the lowest prefix of the given length in one of the prefixes, which are
// sorted, that overlaps nothing in the set. Below from there is none, if from is
// valid. The steps are as many as the set has prefixes, however large they are.
func (r *ranges) free(prefixes []netip.Prefix, bits int, from netip.Addr) (netip.Prefix, bool) {
	for _, within := range prefixes {
		if within.Bits() > bits {
			continue
		}
		at := within.Addr()
		if from.IsValid() && at.Less(from) {
			if !within.Contains(from) {
				continue
			}
			at = from
		}
		for at.IsValid() && within.Contains(at) {
			block := netip.PrefixFrom(at, bits).Masked()
			taken, yes := r.overlapping(block)
			if !yes {
				return block, true
			}
			if taken.Bits() > bits {
				taken = block
			}
			at = last(taken).Next()
		}
	}
	return netip.Prefix{}, false
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		switch rest := p.Bits() - 8*i; {
		case rest <= 0:
			b[i] = 0xff
		case rest < 8:
			b[i] |= 0xff >> rest
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
