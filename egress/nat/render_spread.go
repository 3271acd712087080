package nat

import (
	"hash/fnv"
	"strconv"
)

// spread renders the spreads. A policy only marks the packet with the spread's
// code, and the clients chain looks that up, instead of the policy going to the
// buckets itself: whenever something changes, Linux 6.1 walks every path through
// the maps to check it, so policies times destinations times buckets would cost
// seconds where their sum costs milliseconds. The code is gone when
// classification ends, and so can be another one in each ruleset.
func (r *renderer) spread() {
	codes := r.set(mapSpreads, "mark", "verdict", false)
	for _, s := range r.cfg.Spreads {
		code, ok := r.spreads[s.Name]
		if !ok {
			continue
		}
		codes[mark(code)] = "goto " + objectName(prefixChoose, s.Name)
		r.chain(objectName(prefixSpread, s.Name), setMark(code))
		r.chain(objectName(prefixChoose, s.Name), append([]string{clearMark}, r.choose(s)...)...)
	}
}

// choose renders the choice of an exit. Its end is reached when somebody took
// out a bucket.
func (r *renderer) choose(s Spread) []string {
	n := len(s.Exits)
	var texts []string
	if n > 1 {
		name := objectName(prefixBuckets, s.Name)
		buckets := r.set(name, "integer", "verdict", false)
		for i, exit := range s.Exits {
			buckets[strconv.Itoa(i)] = r.bucket(exit)
		}
		for _, ip := range []string{"ip", "ip6"} {
			texts = append(texts, bucketOf(ip+" saddr", n, spreadSeed)+" vmap @"+name)
		}
	}
	if n == 1 {
		return append(texts, r.bucket(s.Exits[0]))
	}
	return append(texts, "goto "+chainDecideDrop)
}

func (r *renderer) bucket(exit string) string {
	if _, ok := r.exits[exit]; ok {
		return "goto " + objectName(prefixExit, exit)
	}
	return "goto " + chainDecideDrop
}

// firstCode is the lowest of the codes of spreads, the last being EgressMark
// with all bits of PoolMask.
const firstCode = markRefuseReject + 1

// spreadCodes gives each spread, by name, a mark of hop set 0: by the name's
// hash, and the next one that is free, so that few change when a spread comes
// or goes.
func spreadCodes(spreads []Spread) map[string]uint32 {
	const count uint32 = EgressMark | PoolMask - firstCode + 1
	names := map[string]bool{}
	for _, s := range spreads {
		names[s.Name] = true
	}
	codes, taken := map[string]uint32{}, map[uint32]bool{}
	for _, name := range sorted(names) {
		if uint32(len(codes)) == count {
			break
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(name))
		offset := h.Sum32() % count
		for taken[offset] {
			offset = (offset + 1) % count
		}
		taken[offset] = true
		codes[name] = firstCode + offset
	}
	return codes
}
