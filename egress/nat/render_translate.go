package nat

import (
	"fmt"
	"net/netip"
	"slices"
)

// translation renders the NAT hook, which sees the first packet of each flow.
// The flow's ct mark is set here, and not before, since the flow is sure of its
// exit only when it leaves. A mark no exit has goes untranslated to the guard.
func (r *renderer) translation() {
	exits := r.set(mapExits, "mark", "verdict", false)
	for _, e := range r.exits {
		exits[mark(e.Mark)] = "goto " + objectName(prefixSnat, e.Name)
		r.snat(e)
	}
	r.base(chainTranslate, "nat", "postrouting", priorityTranslate, "oifname @"+setUplinks+" goto "+chainTransUp)
	r.chain(chainTransUp,
		fmt.Sprintf("ct mark set meta mark & %s", mark(MarkMask)),
		ourMark+" vmap @"+mapExits)
}

// snat renders the end of an exit. The kernel keeps a client's source port
// where it can and takes another one where two clients of an address clash.
// What finds no address goes on to the drop.
func (r *renderer) snat(e Exit) {
	var texts []string
	if addrs := poolAddrs(e.Pool4, true); len(addrs) == 1 {
		texts = append(texts, "snat ip to "+addrText(addrs[0]))
	} else if len(addrs) > 1 {
		texts = append(texts, "snat ip to "+r.bucketMap(objectName(prefixPool4, e.Name), "ip saddr", addrs, true))
	}
	if addrs := poolAddrs(e.Pool6, false); len(addrs) == 1 {
		texts = append(texts, "snat ip6 to "+addrText(addrs[0]))
	} else if len(addrs) > 1 {
		texts = append(texts, "snat ip6 to "+r.bucketMap(objectName(prefixPool6, e.Name), "ip6 saddr", addrs, false))
	}
	texts = append(texts, r.drop(counterNoAddress))
	r.chain(objectName(prefixSnat, e.Name), texts...)
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
