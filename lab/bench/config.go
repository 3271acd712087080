package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/egret-router/egret/lab"
)

// egretConfig is the configuration file of a case: static routes, no BGP and
// no probes, so that nothing but the measured packets moves.
func egretConfig(c benchCase, flowtableKnown bool) string {
	var b strings.Builder
	if flowtableKnown {
		fmt.Fprintf(&b, "flowtable: %t\n", c.Flowtable)
	}
	fmt.Fprintf(&b, "clients:\n  interfaces: [cl0]\n  prefixes: [%s, %q]\nmetrics: {listen: \"off\"}\nresync: 1h\nnetworks:\n", clients4, clients6)
	for i := range c.Networks {
		fmt.Fprintf(&b, "  - name: n%d\n    interfaces: [u%d]\n    addresses: [%s/24, %q]\n    staticRoutes:\n", i, i, gateway4, gateway6+"/64")
		fmt.Fprintf(&b, "      - {prefix: %s, nextHops: [%s]}\n      - {prefix: %q, nextHops: [%q]}\n", servers4, peer4, servers6, peer6)
	}
	b.WriteString("pools:\n")
	for i := range c.Networks {
		fmt.Fprintf(&b, "  - {name: p%d, network: n%d, prefixes: [%s, %q]}\n", i, i, poolAddr(i, lab.IPv4), poolAddr(i, lab.IPv6))
	}
	b.WriteString("policies:\n")
	if c.Policies == 1 {
		writeOnePolicy(&b, c)
	} else {
		writeManyPolicies(&b, c)
	}
	return b.String()
}

// writeOnePolicy sends all clients by destination: stream k to network k.
func writeOnePolicy(b *strings.Builder, c benchCase) {
	fmt.Fprintf(b, "  - name: all\n    clients: [%s, %q]\n    rules:\n", clients4, clients6)
	if c.Networks == 1 {
		b.WriteString("      - network: n0\n")
		return
	}
	for k := range streams {
		for _, f := range lab.Families() {
			fmt.Fprintf(b, "      - {destination: %q, network: n%d}\n", serverAddr(k, f), k%c.Networks)
		}
	}
}

// writeManyPolicies gives the i-th client prefix to policy i modulo their
// number, so that neighbours never have the same one, and policy p to network p
// modulo theirs.
func writeManyPolicies(b *strings.Builder, c benchCase) {
	for p := range c.Policies {
		var prefixes []netip.Prefix
		for n := range prefixesEach {
			prefixes = append(prefixes, clientPrefix(n*c.Policies+p, lab.IPv4), clientPrefix(n*c.Policies+p, lab.IPv6))
		}
		fmt.Fprintf(b, "  - name: p%d\n    clients: [", p)
		for i, prefix := range prefixes {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(b, "%q", prefix)
		}
		fmt.Fprintf(b, "]\n    rules: [{network: n%d}]\n", p%c.Networks)
	}
}
