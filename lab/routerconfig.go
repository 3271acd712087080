package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Family is an address family.
type Family string

// The two families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// Families are both, for loops.
func Families() []Family { return []Family{IPv4, IPv6} }

// FamilyOf is the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

func (f Family) bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// suffix distinguishes names in the daemons' configurations.
func (f Family) suffix() string { return strings.TrimPrefix(string(f), "ipv") }

// A RouterConfig describes an upstream router, for either daemon. It speaks
// each family over sessions of that family, keeps the routes of a peer that
// restarts gracefully, and installs what it learns in its kernel. What it
// announces is announced whether or not it could deliver it: that is the trap
// which the gateway's probes are for.
type RouterConfig struct {
	ASN      uint32
	RouterID netip.Addr
	Peers    []RouterPeer
	// Announce lists the destinations that all peers learn.
	Announce []netip.Prefix
	// Accept lists the prefixes that are accepted from all peers, with all that lie within them;
	// other routes are kept as filtered. An empty list accepts nothing.
	Accept []netip.Prefix
	// HoldTime defaults to 30 s; keepalives go out at a third of it.
	HoldTime time.Duration
	// NoGracefulRestart makes the router withdraw a lost peer's routes at once.
	NoGracefulRestart bool
	// BFD are sessions that no protocol asks for.
	BFD []RouterBFD
}

// A RouterPeer is a neighbour on a connected network.
type RouterPeer struct {
	Address  netip.Addr
	ASN      uint32
	Password string // TCP MD5 (RFC 2385), if not empty
}

func (c RouterConfig) holdSeconds() int {
	if c.HoldTime == 0 {
		return 30
	}
	return max(3, int(c.HoldTime/time.Second))
}

func (c RouterConfig) of(f Family) RouterConfig {
	one := c
	one.Peers, one.Announce, one.Accept = nil, nil, nil
	for _, p := range c.Peers {
		if FamilyOf(p.Address) == f {
			one.Peers = append(one.Peers, p)
		}
	}
	for _, p := range c.Announce {
		if FamilyOf(p.Addr()) == f {
			one.Announce = append(one.Announce, p)
		}
	}
	for _, p := range c.Accept {
		if FamilyOf(p.Addr()) == f {
			one.Accept = append(one.Accept, p)
		}
	}
	return one
}

// FRR is the configuration as text for FRR 8.4 and later.
func (c RouterConfig) FRR() string {
	var b strings.Builder
	fmt.Fprintf(&b, "frr defaults traditional\nlog stdout informational\n")
	for _, f := range Families() {
		c.of(f).frrFilters(&b, f)
	}
	fmt.Fprintf(&b, "router bgp %d\n bgp router-id %s\n", c.ASN, c.RouterID)
	b.WriteString(" bgp log-neighbor-changes\n no bgp default ipv4-unicast\n no bgp network import-check\n")
	if c.NoGracefulRestart {
		b.WriteString(" bgp graceful-restart-disable\n")
	}
	for _, p := range c.Peers {
		fmt.Fprintf(&b, " neighbor %s remote-as %d\n", p.Address, p.ASN)
		fmt.Fprintf(&b, " neighbor %s timers %d %d\n", p.Address, c.holdSeconds()/3, c.holdSeconds())
		fmt.Fprintf(&b, " neighbor %s timers connect 1\n neighbor %s advertisement-interval 0\n", p.Address, p.Address)
		if p.Password != "" {
			fmt.Fprintf(&b, " neighbor %s password %s\n", p.Address, p.Password)
		}
	}
	for _, f := range Families() {
		one := c.of(f)
		fmt.Fprintf(&b, " address-family %s unicast\n", f)
		for _, p := range one.Announce {
			fmt.Fprintf(&b, "  network %s\n", p)
		}
		for _, p := range one.Peers {
			fmt.Fprintf(&b, "  neighbor %[1]s activate\n  neighbor %[1]s soft-reconfiguration inbound\n", p.Address)
			fmt.Fprintf(&b, "  neighbor %[1]s route-map accept%[2]s in\n  neighbor %[1]s route-map announce%[2]s out\n", p.Address, f.suffix())
		}
		b.WriteString(" exit-address-family\n")
	}
	b.WriteString("exit\n")
	return b.String()
}

// frrFilters writes the prefix lists and route maps of one family. A prefix
// list without an entry would match everything, hence the last entries.
func (c RouterConfig) frrFilters(b *strings.Builder, f Family) {
	ip := map[Family]string{IPv4: "ip", IPv6: "ipv6"}[f]
	for _, p := range c.Accept {
		fmt.Fprintf(b, "%s prefix-list accept%s permit %s%s\n", ip, f.suffix(), p, orLonger(p, f))
	}
	for _, p := range c.Announce {
		fmt.Fprintf(b, "%s prefix-list announce%s permit %s\n", ip, f.suffix(), p)
	}
	for _, list := range []string{"accept", "announce"} {
		fmt.Fprintf(b, "%s prefix-list %s%s deny any\n", ip, list, f.suffix())
		fmt.Fprintf(b, "route-map %[1]s%[2]s permit 10\n match %[3]s address prefix-list %[1]s%[2]s\nexit\n", list, f.suffix(), ip)
	}
}

func orLonger(p netip.Prefix, f Family) string {
	if p.Bits() == f.bits() {
		return ""
	}
	return fmt.Sprintf(" le %d", f.bits())
}

// BIRD is the configuration as text for BIRD 2.
func (c RouterConfig) BIRD() string {
	var b strings.Builder
	fmt.Fprintf(&b, "log stderr all;\nrouter id %s;\nprotocol device { scan time 5; }\n", c.RouterID)
	c.birdBFD(&b)
	for _, f := range Families() {
		one := c.of(f)
		fmt.Fprintf(&b, "protocol kernel kernel%s { %s { import none; export where source = RTS_BGP; }; merge paths yes; }\n", f.suffix(), f)
		fmt.Fprintf(&b, "protocol static announce%s {\n  %s;\n", f.suffix(), f)
		for _, p := range one.Announce {
			fmt.Fprintf(&b, "  route %s blackhole;\n", p)
		}
		b.WriteString("}\n")
		for i, p := range one.Peers {
			one.birdPeer(&b, f, i, p)
		}
	}
	return b.String()
}

func (c RouterConfig) birdPeer(b *strings.Builder, f Family, i int, p RouterPeer) {
	fmt.Fprintf(b, "protocol bgp peer%s_%d {\n  local as %d;\n  neighbor %s as %d;\n", f.suffix(), i, c.ASN, p.Address, p.ASN)
	fmt.Fprintf(b, "  hold time %d;\n  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n", c.holdSeconds())
	// "aware", the default, withdraws a lost peer's routes at once, unless told to restart gracefully itself.
	restart := "on"
	if c.NoGracefulRestart {
		restart = "off"
	}
	fmt.Fprintf(b, "  graceful restart %s;\n", restart)
	if p.Password != "" {
		fmt.Fprintf(b, "  password %q;\n", p.Password)
	}
	accept := "none"
	if len(c.Accept) > 0 {
		var set []string
		for _, prefix := range c.Accept {
			set = append(set, prefix.String()+"+")
		}
		accept = "where net ~ [ " + strings.Join(set, ", ") + " ]"
	}
	fmt.Fprintf(b, "  %s {\n    import keep filtered;\n    import %s;\n    export where source = RTS_STATIC;\n  };\n}\n", f, accept)
}
