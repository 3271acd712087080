package egress

import (
	"strings"

	"github.com/egret-router/egret/egress/sysctl"
)

// sysctls are the kernel settings the data plane needs. Forwarding comes last:
// it must not be on before the rest is right. Settings of an interface are
// optional: it may not exist yet, and its arrival is an event that brings the
// next round; those of conntrack exist once its module is loaded.
func sysctls(spec *Spec) []sysctl.Setting {
	out := []sysctl.Setting{
		// The effective rp_filter is the maximum of "all" and the device's. With 1
		// or 2 on a client interface the reverse lookup happens in the VRF's table
		// and drops all policy traffic; the guards of egress/nat take its place.
		{Key: "net.ipv4.conf.all.rp_filter", Value: "0"},
		{Key: "net.ipv4.conf.all.src_valid_mark", Value: "0"},
		// Layer-4 hash: flows of one client spread over the next hops. Policy 1 would
		// take the hash that a packet comes with, which a local client's socket draws
		// anew when it retransmits: its flow would move. Policy 3 works it out, from
		// addresses, protocol and ports.
		{Key: "net.ipv4.fib_multipath_hash_fields", Value: "55"},
		{Key: "net.ipv6.fib_multipath_hash_fields", Value: "55"},
		{Key: "net.ipv4.fib_multipath_hash_policy", Value: "3"},
		{Key: "net.ipv6.fib_multipath_hash_policy", Value: "3"},
		// With the compatibility mode on, a change of a group is announced for every
		// route that uses it: 26 ms instead of 0.3 ms under 100,000 routes.
		{Key: "net.ipv4.nexthop_compat_mode", Value: "0"},
		{Key: "net.netfilter.nf_conntrack_acct", Value: "1", Optional: true},
		// A full conntrack table drops new flows of everybody. About 320 bytes a flow.
		{Key: "net.netfilter.nf_conntrack_max", Value: "1048576", Optional: true, AtLeast: true},
		{Key: "net.netfilter.nf_conntrack_timestamp", Value: "1", Optional: true},
	}
	for _, i := range spec.Clients.Interfaces {
		out = append(out, sysctl.Setting{Key: ifKey("ipv4", i, "rp_filter"), Value: "0", Optional: true},
			sysctl.Setting{Key: ifKey("ipv4", i, "src_valid_mark"), Value: "0", Optional: true})
	}
	for _, n := range spec.Networks {
		out = append(out, sysctl.Setting{Key: ifKey("ipv4", n.Name, "rp_filter"), Value: "0", Optional: true})
		for _, p := range n.Ports {
			out = append(out, sysctl.Setting{Key: ifKey("ipv4", p.Name, "rp_filter"), Value: "0", Optional: true},
				// A router advertisement must not add routes or addresses to a VRF.
				sysctl.Setting{Key: ifKey("ipv6", p.Name, "accept_ra"), Value: "0", Optional: true},
				sysctl.Setting{Key: ifKey("ipv6", p.Name, "keep_addr_on_down"), Value: "1", Optional: true})
		}
	}
	return append(out, sysctl.Setting{Key: "net.ipv4.ip_forward", Value: "1"},
		sysctl.Setting{Key: "net.ipv6.conf.all.forwarding", Value: "1"})
}

func ifKey(family, device, name string) string {
	return "net." + family + ".conf." + strings.ReplaceAll(device, ".", "/") + "." + name
}
