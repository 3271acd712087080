package bgp

import (
	"slices"
	"testing"

	"github.com/egret-router/egret/lab"
)

// TestExportAttributes has all attributes, their changes, and a peer's
// overrides arrive at an external and an internal peer, without a reset.
func TestExportAttributes(t *testing.T) {
	t.Parallel()
	g := newGateway(t, nil)
	out := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort})
	in := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: gatewayASN, gateway: g.config.ListenPort})
	other := startUpstream(t, upstreamConfig{addr: "127.0.0.4", asn: 65002, gateway: g.config.ListenPort})
	g.set(func(c *Config) {
		c.Peers = []Peer{out.peer(), in.peer(), other.peer()}
		c.Advertise = []Advertisement{
			{Prefix: prefix("198.51.100.0/28"), Attributes: Attributes{
				Communities: []uint32{NoExport, 64512<<16 | 1}, LargeCommunities: []LargeCommunity{{4200000000, 2, 3}, {64512, 0, 1}},
				MED: new(uint32(0)), LocalPref: new(uint32(250)), Prepend: new(uint8(2)),
			}},
			{Prefix: prefix("203.0.113.0/28")},
		}
	})
	all := []*upstream{out, in, other}
	g.established(all...)
	full := learned{nextHop: "127.0.0.1", communities: []uint32{64512<<16 | 1, NoExport}, large: "64512:0:1 4200000000:2:3 ",
		med: "0", path: []uint32{gatewayASN, gatewayASN, gatewayASN}}
	internal := full
	internal.path, internal.pref = nil, "250"
	plain := learned{nextHop: "127.0.0.1", path: []uint32{gatewayASN}}
	out.has("198.51.100.0/28", full)
	other.has("198.51.100.0/28", full)
	in.has("198.51.100.0/28", internal)
	out.has("203.0.113.0/28", plain)
	in.has("203.0.113.0/28", learned{nextHop: "127.0.0.1", pref: "100"})

	// Overrides for one peer: absent ones leave the prefix's own, empty ones remove.
	g.set(func(c *Config) {
		c.Peers[0].Export = Attributes{Communities: []uint32{7}, LargeCommunities: []LargeCommunity{}, MED: new(uint32(50)), Prepend: new(uint8(0))}
		c.Peers[1].Export = Attributes{LocalPref: new(uint32(90)), Prepend: new(uint8(5))}
	})
	changed := learned{nextHop: "127.0.0.1", communities: []uint32{7}, med: "50", path: []uint32{gatewayASN}}
	out.has("198.51.100.0/28", changed)
	out.has("203.0.113.0/28", changed)
	internal.pref = "90"
	in.has("198.51.100.0/28", internal)
	in.has("203.0.113.0/28", learned{nextHop: "127.0.0.1", pref: "90"})
	other.has("198.51.100.0/28", full)

	// RFC 8326: also where a peer's communities are replaced.
	g.set(func(c *Config) { c.Draining = true })
	changed.communities = []uint32{7, GracefulShutdown}
	out.has("198.51.100.0/28", changed)
	internal.pref, internal.communities = "0", []uint32{64512<<16 | 1, GracefulShutdown, NoExport}
	in.has("198.51.100.0/28", internal)
	other.has("203.0.113.0/28", learned{nextHop: "127.0.0.1", communities: []uint32{GracefulShutdown}, path: []uint32{gatewayASN}})
	g.set(func(c *Config) { c.Draining = false })
	other.has("203.0.113.0/28", plain)

	// Back to nothing at all, and another AS path for a prefix that is there.
	g.set(func(c *Config) {
		c.Peers[0].Export, c.Peers[1].Export = Attributes{}, Attributes{}
		c.Advertise[0].Attributes = Attributes{Prepend: new(uint8(1))}
		c.Advertise[1].Prepend = new(uint8(3))
	})
	twice := learned{nextHop: "127.0.0.1", path: []uint32{gatewayASN, gatewayASN}}
	out.has("198.51.100.0/28", twice)
	other.has("198.51.100.0/28", twice)
	other.has("203.0.113.0/28", learned{nextHop: "127.0.0.1", path: []uint32{gatewayASN, gatewayASN, gatewayASN, gatewayASN}})
	in.has("198.51.100.0/28", learned{nextHop: "127.0.0.1", pref: "100"})
	for _, u := range all {
		if p := g.peerState(u.addr); p.Flaps != 0 || p.State != established || p.Advertised != 2 {
			t.Errorf("the session was reset: %+v", p)
		}
	}
}

// TestExtendedNextHop has IPv4 prefixes with IPv6 next hops, both ways (RFC
// 8950), and both families over one session.
func TestExtendedNextHop(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t)
	gw, up := l.MustNamespace("gw"), l.MustNamespace("up")
	l.MustLink(gw, "eth0", up, "eth0")
	gw.MustIP("addr add fd00:16::1/64 dev eth0 nodad")
	up.MustIP("addr add fd00:16::2/64 dev eth0 nodad")
	configs := map[*lab.NS]Config{}
	for ns, side := range map[*lab.NS]struct {
		asn       uint32
		peer      string
		pool, far string
	}{gw: {gatewayASN, "fd00:16::2", "198.51.100.0/28", "2001:db8:51::/64"}, up: {65001, "fd00:16::1", "10.1.0.0/16", "2001:db8:1::/48"}} {
		configs[ns] = Config{Network: "red", ASN: side.asn, RouterID: addr("10.0.0.1"), Advertise: advertise(side.pool, side.far),
			Peers: []Peer{{Address: addr(side.peer), ASN: gatewayASN + 65001 - side.asn, IPv4: true, IPv6: true, ExtendedNextHop: true, Import: anything, Passive: ns == up}}}
	}
	up.MustIP("link set lo up")
	c, d := startChild(t, gw), startChild(t, up)
	cfg := configs[gw]
	cfg.RouterID = addr("10.0.0.2")
	d.set(configs[up])
	c.set(cfg)
	c.routes("red", "10.1.0.0/16 via fd00:16::2", "2001:db8:1::/48 via fd00:16::2")
	d.routes("red", "198.51.100.0/28 via fd00:16::1", "2001:db8:51::/64 via fd00:16::1")
	p, err := c.peer("red", addr("fd00:16::2"))
	if want := []string{"4-octet-as", "extended-message", "extended-next-hop", "ipv4-unicast", "ipv6-unicast", "route-refresh"}; err != nil || !slices.Equal(p.Capabilities, want) || p.RouterID != addr("10.0.0.1") || p.Warning != "" {
		t.Errorf("%+v, %v", p, err)
	}
}
