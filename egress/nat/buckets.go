package nat

import (
	"cmp"
	"net/netip"
	"slices"
)

// bucketSeed seeds the kernel's hash of a client's address. It never changes:
// with it, and with the same addresses, a client keeps its address over every
// restart and reload.
const bucketSeed = 0x65677265

// bucketCount is the number of buckets for a pool of n addresses: 256, and
// four times as many whenever there would be fewer than four for each address.
// Only crossing one of these bounds (64, 256, 1024 ... addresses) moves more
// clients than Buckets alone would.
func bucketCount(n int) int {
	count := 256
	for count < 4*n && count < 1<<16 {
		count *= 4
	}
	return count
}

// Buckets assigns n buckets to addresses: result[i] is the address of bucket i.
// It is rendezvous hashing with quotas: every bucket goes to the address with
// the highest score for it that is not full, an address being full with
// n/len(addrs) buckets, rounded down, or up for as many as it takes to place
// all. So the buckets are spread evenly to within one, and when an address
// comes or goes few buckets move beyond its share. The order of addrs and
// duplicates in it carry no meaning. Without addresses the result is nil.
func Buckets(addrs []netip.Addr, n int) []netip.Addr {
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if len(addrs) == 0 || n <= 0 {
		return nil
	}
	keys := make([]uint64, len(addrs))
	for i, a := range addrs {
		keys[i] = addrKey(a)
	}
	out := make([]netip.Addr, n)
	for bucket, i := range assign(keys, n) {
		out[bucket] = addrs[i]
	}
	return out
}

// claim is a bucket that an address holds, with its score.
type claim struct {
	score  uint64
	bucket int
}

// assign matches buckets to addresses as in a stable marriage: each bucket asks
// the addresses in the order of its scores, and a full address keeps the
// buckets with the highest scores. The outcome does not depend on the order in
// which buckets ask.
func assign(keys []uint64, n int) []int {
	limits := quotas(keys, n)
	held := make([][]claim, len(keys)) // heaps, lowest score first
	owner := make([]int, n)
	for first := range n {
		bucket, below := first, claim{score: ^uint64(0), bucket: -1}
		for asking := true; asking; {
			i, score := best(keys, bucket, below)
			mine := claim{score, bucket}
			owner[bucket] = i
			held[i] = push(held[i], mine)
			if asking = len(held[i]) > limits[i]; asking {
				var loser claim
				loser, held[i] = pop(held[i])
				bucket, below = loser.bucket, claim{loser.score, i}
			}
		}
	}
	return owner
}

// quotas share n buckets out; who gets one more is a matter of its key.
func quotas(keys []uint64, n int) []int {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(keys[a], keys[b]) })
	out := make([]int, len(keys))
	for rank, i := range order {
		out[i] = n / len(keys)
		if rank < n%len(keys) {
			out[i]++
		}
	}
	return out
}

// best is the address with the highest score for a bucket among those that come
// after the one the bucket asked last (below: its score, and its index in
// bucket). Equal scores go by index.
func best(keys []uint64, bucket int, below claim) (int, uint64) {
	index, top := -1, uint64(0)
	for i, key := range keys {
		score := mix(key ^ mix(uint64(bucket)+1))
		if score > below.score || score == below.score && i <= below.bucket {
			continue
		}
		if index < 0 || score > top {
			index, top = i, score
		}
	}
	return index, top
}

func less(a, b claim) bool {
	return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(b.bucket, a.bucket)) < 0
}

func push(heap []claim, c claim) []claim {
	heap = append(heap, c)
	for i := len(heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !less(heap[i], heap[parent]) {
			break
		}
		heap[i], heap[parent] = heap[parent], heap[i]
		i = parent
	}
	return heap
}

func pop(heap []claim) (claim, []claim) {
	top, last := heap[0], len(heap)-1
	heap[0] = heap[last]
	heap = heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top, heap
		}
		if child+1 < last && less(heap[child+1], heap[child]) {
			child++
		}
		if !less(heap[child], heap[i]) {
			return top, heap
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}

// addrKey hashes an address: FNV-1a of its 16 bytes, finished with mix.
func addrKey(a netip.Addr) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range a.As16() {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of splitmix64: a bijection in which every bit of the
// input moves half of the output.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// ClientAddress is the address that a client of a pool that is not PerFlow is
// translated to: one of addrs, of the client's family; invalid without any.
func ClientAddress(addrs []netip.Addr, client netip.Addr) netip.Addr {
	addrs = poolAddrs(addrs, client.Unmap().Is4())
	switch len(addrs) {
	case 0:
		return netip.Addr{}
	case 1:
		return addrs[0]
	}
	n := bucketCount(len(addrs))
	return Buckets(addrs, n)[PoolBucket(client, n)]
}
