package nat

import (
	"fmt"
	"net/netip"
	"slices"
)

// guards render what holds whatever else is in the table: no flow begins at an
// uplink, and by a port of a network leaves nothing but that network's sources.
func (r *renderer) guards() {
	uplinks := r.set(setUplinks, "ifname", "", false)
	ports := r.set(mapGuardPorts, "ifname", "verdict", false)
	for _, n := range r.cfg.Networks {
		for _, dev := range n.devices() {
			uplinks[deviceKey(dev)] = ""
		}
		for _, port := range n.ports() {
			ports[deviceKey(port)] = "goto " + objectName(prefixGuardNet, n.Name)
		}
		r.guardNetwork(n)
	}
	// Established translated flows come first, since nearly every packet is of one.
	// They began at a client and passed the guards; the packets of their original
	// direction that somebody sends in by an uplink are in that network's zone, and
	// so of no flow. In forward, what came by a port has the VRF device as iifname, what leaves
	// has the port as oifname. Traffic between other devices is not ours.
	r.base(chainGuardForward, "filter", "forward", priorityForward,
		fmt.Sprintf("ct state established ct mark & %s != 0 accept", mark(EgressMark)),
		"oifname @"+setUplinks+" ct state invalid,untracked "+r.drop(counterInvalid),
		"iifname @"+setUplinks+" ct state invalid,untracked "+r.drop(counterInvalid),
		"iifname @"+setUplinks+" ct direction original "+r.drop(counterInbound))
	r.base(chainGuardUplink, "filter", "postrouting", priorityUplink, "oifname vmap @"+mapGuardPorts)
}

// guardNetwork renders the last word on what leaves by the ports of a network.
// The mark comes first because two networks may have the same pool addresses.
//
// Sources with a link-local address are the node's own: Linux never forwards
// one (RFC 4291 section 2.5.6). The unspecified address stands in duplicate
// address detection (RFC 4862), in router solicitation, in MLD reports (RFC
// 3590) and in IGMP reports of a port without an address.
func (r *renderer) guardNetwork(n Network) {
	marks := r.set(objectName(prefixGuardMarks, n.Name), "mark", "", false)
	for _, e := range r.exits {
		if e.Network == n.Name {
			marks[mark(e.Mark)] = ""
		}
	}
	sources := slices.Clone(n.Sources)
	for _, a := range n.Own {
		if a = a.WithZone("").Unmap(); a.IsValid() {
			sources = append(sources, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	set4, set6 := objectName(prefixGuard4, n.Name), objectName(prefixGuard6, n.Name)
	r.spans(set4, covering(only4(sources)), true)
	r.spans(set6, covering(only6(sources)), false)
	drop := r.drop(objectName(prefixGuardDrops, n.Name))
	r.chain(objectName(prefixGuardNet, n.Name),
		fmt.Sprintf("meta mark & %s != 0 %s != @%s %s", mark(EgressMark), ourMark, objectName(prefixGuardMarks, n.Name), drop),
		"ip saddr @"+set4+" accept",
		"ip6 saddr @"+set6+" accept",
		"ip6 saddr fe80::/10 accept",
		"ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld-listener-report, mld2-listener-report } accept",
		"ip saddr 0.0.0.0 ip protocol igmp accept",
		drop)
}
