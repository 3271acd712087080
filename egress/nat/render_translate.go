package nat

import (
	"fmt"
	"net/netip"
	"slices"
)

// translation renders the NAT hook, which sees the first packet of each flow.
// The flow's ct mark is set here, and not before, since the flow is sure of its
// exit only when it leaves. Exits are many and pools are few, so it is the
// pool's part of the mark that says how to translate. What has no pool's goes
// untranslated to the guard, which also judges the whole mark.
func (r *renderer) translation() {
	pools := r.set(mapPools, "mark", "verdict", false)
	for _, p := range r.pools {
		pools[mark(EgressMark|uint32(p.ID))] = "goto " + objectName(prefixSnat, p.Name)
		r.snat(p)
	}
	r.base(chainTranslate, "nat", "postrouting", priorityTranslate, "oifname @"+setUplinks+" goto "+chainTransUp)
	r.chain(chainTransUp,
		fmt.Sprintf("ct mark set meta mark & %s", mark(MarkMask)),
		fmt.Sprintf("meta mark & %s vmap @%s", mark(EgressMark|PoolMask), mapPools))
}

// snat renders a pool. The kernel keeps a client's source port where it can and
// takes another one where two clients of an address clash. What finds no address
// goes on to the drop.
func (r *renderer) snat(p Pool) {
	texts := r.snatFamily("ip", objectName(prefixPool4, p.Name), p.PerFlow, poolAddrs(p.Pool4, true))
	texts = append(texts, r.snatFamily("ip6", objectName(prefixPool6, p.Name), p.PerFlow, poolAddrs(p.Pool6, false))...)
	r.chain(objectName(prefixSnat, p.Name), append(texts, r.drop(counterNoAddress))...)
}

// withPorts matches the protocols whose header begins with the two ports. (They
// are there: conntrack has put fragments together.)
const withPorts = "meta l4proto { tcp, udp, udplite, sctp, dccp } "

// snatFamily renders the addresses of one family. Several are in a map by
// bucket, and a client, or a flow, hashes to a bucket.
func (r *renderer) snatFamily(ip, name string, perFlow bool, addrs []netip.Addr) []string {
	switch len(addrs) {
	case 0:
		return nil
	case 1:
		return []string{"snat " + ip + " to " + addrText(addrs[0])}
	}
	n := r.buckets(len(addrs))
	r.out.Sets[name] = r.cache.bucketSet(addrs, n, addrs[0].Is4())
	to := func(key string) string {
		return "snat " + ip + " to " + bucketOf(key, n, bucketSeed) + " map @" + name
	}
	if !perFlow {
		return []string{to(ip + " saddr")}
	}
	ends := ip + " saddr . " + ip + " daddr"
	return []string{withPorts + to(ends+" . th sport . th dport"), to(ends)}
}

// bucketOf is the expression for the bucket, of n, of a key.
func bucketOf(key string, n int, seed uint32) string {
	return fmt.Sprintf("jhash %s mod %d seed 0x%08x", key, n, seed)
}

// poolAddrs are the different addresses of one family, ascending.
func poolAddrs(addrs []netip.Addr, ipv4 bool) []netip.Addr {
	out := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if a = a.WithZone("").Unmap(); a.IsValid() && a.Is4() == ipv4 {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
