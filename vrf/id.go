package vrf

import (
	"encoding/binary"
	"hash/fnv"
)

// NextHopIDFor is the id of a next hop: a hash of its content (nh.ID is
// ignored) within the owner's range. Next hops take the even offsets of the
// range, groups the odd ones, so the two can never share an id.
//
// Two different contents may hash to one id; an Allocator resolves that.
func NextHopIDFor(owner Owner, nh NextHop) NextHopID {
	return slotID(owner.NextHopIDs, hashNextHop(nh), 0)
}

// GroupIDFor is the id of the group that the caller knows as key, within the
// owner's range. See NextHopIDFor.
func GroupIDFor(owner Owner, key string) NextHopID {
	return slotID(owner.NextHopIDs, hashString(key), 1)
}

// slotID maps a hash to one of the ids of r whose offset has the given parity.
// A range of less than two ids has no slots; its first id stands for all.
func slotID(r Range, hash uint64, parity uint32) NextHopID {
	slots := slotCount(r)
	if slots == 0 {
		return NextHopID(r.First)
	}
	return NextHopID(r.First + uint32(hash%slots)*2 + parity)
}

// slotCount is the number of ids of each parity in r.
func slotCount(r Range) uint64 {
	if r.Last < r.First {
		return 0
	}
	return (uint64(r.Last) - uint64(r.First) + 1) / 2
}

func hashNextHop(nh NextHop) uint64 {
	b := make([]byte, 0, 64)
	flags := byte(0)
	for i, set := range []bool{nh.OnLink, nh.Blackhole, nh.IPv6, nh.Gateway.IsValid()} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, flags)
	if nh.Gateway.IsValid() {
		gateway := nh.Gateway.As16()
		b = append(b, gateway[:]...)
	}
	b = append(b, nh.Device...)
	if nh.Tunnel.Endpoint.IsValid() {
		b = append(append(b, 0), nh.Tunnel.String()...)
	}
	return hashString(string(b))
}

// hashString is FNV-1a, finished so that its low bits depend on all of s.
func hashString(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s)) // a hash.Hash never returns an error
	x := binary.BigEndian.Uint64(h.Sum(nil))
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// Allocator hands out ids and resolves collisions: content that hashes to a
// taken id gets the next free one of its kind. It is deterministic in the order
// of its calls, so callers go through their next hops in a sorted order.
// An Allocator is not safe for concurrent use.
type Allocator struct {
	owner    Owner
	nextHops map[NextHopID]NextHop
	groups   map[NextHopID]string
	foreign  map[NextHopID]bool
}

// NewAllocator starts with the ids that have shows to be in foreign hands.
func NewAllocator(have Snapshot) *Allocator {
	a := &Allocator{
		owner:    have.Owner,
		nextHops: map[NextHopID]NextHop{},
		groups:   map[NextHopID]string{},
		foreign:  map[NextHopID]bool{},
	}
	for _, id := range have.Foreign.NextHops {
		a.foreign[id] = true
	}
	return a
}

// NextHop is the id for the content of nh (nh.ID is ignored). The same content
// always gets the same id. It is 0, which the kernel never accepts from us, when
// the range is full.
func (a *Allocator) NextHop(nh NextHop) NextHopID {
	nh.ID = 0
	return a.probe(NextHopIDFor(a.owner, nh), func(id NextHopID) (taken bool) {
		old, used := a.nextHops[id]
		if !used {
			a.nextHops[id] = nh
		}
		return used && old != nh
	})
}

// Group is the id for the group key, see NextHop.
func (a *Allocator) Group(key string) NextHopID {
	return a.probe(GroupIDFor(a.owner, key), func(id NextHopID) (taken bool) {
		old, used := a.groups[id]
		if !used {
			a.groups[id] = key
		}
		return used && old != key
	})
}

// probe walks from id over the ids of the same parity until taken says no.
func (a *Allocator) probe(id NextHopID, taken func(NextHopID) bool) NextHopID {
	r := a.owner.NextHopIDs
	slots := slotCount(r)
	for range slots {
		if !a.foreign[id] && !taken(id) {
			return id
		}
		offset := uint64(uint32(id)-r.First) + 2
		id = NextHopID(r.First + uint32(offset%(slots*2)))
	}
	return 0
}
