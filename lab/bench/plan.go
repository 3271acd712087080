package main

import (
	"fmt"
	"net/netip"
	"regexp"

	"github.com/egret-router/egret/lab"
)

// A kind is how a case's router is set up.
type kind string

const (
	generatorOnly kind = "generator"  // the generator into a device that drops at once
	wireOnly      kind = "wire"       // no router: one veth pair from source to sink
	plainForward  kind = "plain"      // routes only, conntrack not even registered
	masquerade    kind = "masquerade" // VRF, ip rule, iptables MASQUERADE, by hand
	egretRouter   kind = "egret"      // the real daemon with a configuration of ours
)

// The sizes of the large cases.
const (
	manyPolicies   = 1000
	prefixesEach   = 10 // client prefixes of each of the many policies
	manyNetworks   = 32
	streams        = 32 // clients that send, each to a server of its own
	flowsPerStream = 32
)

// A benchCase is one router that is measured.
type benchCase struct {
	Name      string `json:"name"`
	Kind      kind   `json:"kind"`
	Policies  int    `json:"policies,omitempty"`
	Networks  int    `json:"networks"`
	Flowtable bool   `json:"flowtable,omitempty"`
	// Edit is a shell script that changes what Egret has set up, after it has
	// converged and the daemon has ended.
	Edit string `json:"edit,omitempty"`
}

// These are measured first; what they cost is taken off all others.
var (
	generatorCase = benchCase{Name: "generator", Kind: generatorOnly, Networks: 1}
	wireCase      = benchCase{Name: "wire", Kind: wireOnly, Networks: 1}
)

// plainName names the case that all ratios refer to.
const plainName = "plain"

// allCases lists the cases in the order of the table. Those with a flowtable
// are left out where Egret does not know the setting yet.
func allCases(flowtable bool) []benchCase {
	cases := []benchCase{
		{Name: plainName, Kind: plainForward, Networks: 1},
		{Name: "vrf-masquerade", Kind: masquerade, Networks: 1},
	}
	for _, on := range []bool{false, true} {
		if on && !flowtable {
			continue
		}
		for _, size := range []struct{ policies, networks int }{{1, 1}, {manyPolicies, 1}, {1, manyNetworks}, {manyPolicies, manyNetworks}} {
			cases = append(cases, egretCase(size.policies, size.networks, on))
		}
	}
	return cases
}

func egretCase(policies, networks int, flowtable bool) benchCase {
	c := benchCase{Kind: egretRouter, Policies: policies, Networks: networks, Flowtable: flowtable}
	c.Name = fmt.Sprintf("egret-p%d-n%d", policies, networks)
	if flowtable {
		c.Name += "-ft"
	}
	return c
}

// A variant is a case whose router is edited: NAME=CASE:FILE.
var variantText = regexp.MustCompile(`^([a-z0-9.-]+)=([a-z0-9-]+):(.+)$`)

// withVariants appends a case for each variant.
func withVariants(cases []benchCase, variants []string) ([]benchCase, error) {
	byName := map[string]benchCase{}
	for _, c := range cases {
		byName[c.Name] = c
	}
	for _, v := range variants {
		m := variantText.FindStringSubmatch(v)
		if m == nil {
			return nil, fmt.Errorf("variant %q: want NAME=CASE:FILE", v)
		}
		c, ok := byName[m[2]]
		if !ok || c.Kind != egretRouter {
			return nil, fmt.Errorf("variant %q: %q is not a case of Egret", v, m[2])
		}
		c.Name, c.Edit = m[1], m[3]
		cases = append(cases, c)
	}
	return cases, nil
}

// selectCases keeps the cases whose name matches, and always the plain one.
func selectCases(cases []benchCase, pattern string) ([]benchCase, error) {
	want, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("cases: %w", err)
	}
	var out []benchCase
	for _, c := range cases {
		if c.Name == plainName || want.MatchString(c.Name) {
			out = append(out, c)
		}
	}
	return out, nil
}

// A direction is the way that the measured packets take.
type direction string

const (
	toNetwork direction = "out"  // from clients to servers
	toClients direction = "back" // replies of established flows
	firstOut  direction = "first"
)

// A cell is one measurement of a case: a family and a direction.
type cell struct {
	Family    lab.Family `json:"family"`
	Direction direction  `json:"direction"`
}

// cells are what is measured of each case in the steady state.
func cells() []cell {
	var out []cell
	for _, f := range lab.Families() {
		out = append(out, cell{f, toNetwork}, cell{f, toClients})
	}
	return out
}

// Addresses. Clients are in 10.64.0.0/12, of which each of 10,000 prefixes has
// a /28 with gaps between them, so that none can be merged.
var (
	clients4 = netip.MustParsePrefix("10.64.0.0/12")
	clients6 = netip.MustParsePrefix("fd00:64::/48")
	servers4 = netip.MustParsePrefix("198.18.0.0/16")
	servers6 = netip.MustParsePrefix("2001:db8:18::/48")
)

// clientPrefix is the i-th of the many client prefixes.
func clientPrefix(i int, f lab.Family) netip.Prefix {
	if f == lab.IPv4 {
		b := clients4.Addr().As4()
		n := i * 64
		b[1] += byte(n >> 16)
		b[2], b[3] = byte(n>>8), byte(n)
		return netip.PrefixFrom(netip.AddrFrom4(b), 28)
	}
	b := clients6.Addr().As16()
	n := i * 2
	b[6], b[7] = byte(n>>8), byte(n)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// clientIndex is the client prefix that stream k comes from: they are spread
// over all prefixes, and with many networks stream k belongs to network k.
func clientIndex(k int) int {
	i := k * (manyPolicies * prefixesEach / streams)
	for i%manyPolicies%manyNetworks != k {
		i++
	}
	return i
}

func clientAddr(k int, f lab.Family) netip.Addr {
	return clientPrefix(clientIndex(k), f).Addr().Next()
}

func serverAddr(k int, f lab.Family) netip.Addr {
	base := servers4.Addr()
	if f == lab.IPv6 {
		base = servers6.Addr()
	}
	b := base.AsSlice()
	b[len(b)-1] = byte(k + 1)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// poolAddr is the address clients have in the i-th network.
func poolAddr(i int, f lab.Family) netip.Addr {
	if f == lab.IPv4 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)})
	}
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:100::%x", i+1))
}

// Transfer addresses, the same in all networks.
const (
	gateway4, peer4 = "172.16.0.1", "172.16.0.2"
	gateway6, peer6 = "fd00:16::1", "fd00:16::2"
)

// replyAddr is where the servers of stream k send their replies.
func (c benchCase) replyAddr(k int, f lab.Family) netip.Addr {
	switch c.Kind {
	case egretRouter:
		return poolAddr(k%c.Networks, f)
	case masquerade:
		if f == lab.IPv4 {
			return netip.MustParseAddr(gateway4)
		}
		return netip.MustParseAddr(gateway6)
	default:
		return clientAddr(k, f)
	}
}
