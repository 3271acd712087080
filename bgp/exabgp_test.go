package bgp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// TestThirdPeer has ExaBGP, which shares no code with FRR, BIRD or GoBGP, in two
// VRFs with equal addresses at the same time.
func TestThirdPeer(t *testing.T) {
	lab.Require(t, lab.ExaBGP, lab.VRF)
	thirdPeer(t, "red", "blue")
}

// TestThirdPeerFlat does the same without VRFs, with one.
func TestThirdPeerFlat(t *testing.T) {
	lab.Require(t, lab.ExaBGP)
	thirdPeer(t, "")
}

// exaSide is a network with an ExaBGP in it. The networks differ in what it
// announces only.
type exaSide struct {
	exa    *lab.ExaSpeaker
	config Config
}

func thirdPeer(t *testing.T, networks ...string) {
	l := lab.New(t)
	gw := l.MustNamespace("gw")
	var sides []*exaSide
	for i, name := range networks {
		sides = append(sides, newExaSide(t, l, gw, name, i))
	}
	c := startChild(t, gw)
	set := func(change func(*Config)) {
		t.Helper()
		var all []Config
		for _, s := range sides {
			change(&s.config)
			all = append(all, s.config)
		}
		c.set(all...)
	}
	set(func(*Config) {})
	pool := prefix("198.51.100.0/28")
	for i, s := range sides {
		// Each has its own routes, although they are for the same prefixes by the
		// same neighbour.
		c.routes(s.config.Network, "10.0.0.0/24 via 172.16.0.2", fmt.Sprintf("10.%d.0.0/16 via 172.16.0.2", i+1), "2001:db8:1::/48 via fd00:16::2")
		s.exa.Sees(t, deadline, "our prefixes", func(v lab.ExaBGPView) error {
			r, v6 := v.Routes[pool], v.Routes[prefix("2001:db8:51::/64")]
			if len(v.Routes) != 2 || r.NextHop != "172.16.0.1" || v6.NextHop != "fd00:16::1" || !slices.Equal(r.ASPath, []uint32{gatewayASN, gatewayASN, gatewayASN}) ||
				r.MED == nil || *r.MED != 50 || strings.Join(r.Communities, " ") != "64512:7 64512:1:2" {
				return fmt.Errorf("%+v", v)
			}
			return nil
		})
	}
	// In place: other attributes, and a prefix less.
	set(func(c *Config) {
		c.Advertise = []Advertisement{{Prefix: pool, Attributes: Attributes{Communities: []uint32{64512<<16 | 8}}}}
	})
	for _, s := range sides {
		s.exa.Sees(t, deadline, "a new community", func(v lab.ExaBGPView) error {
			r := v.Routes[pool]
			if len(v.Routes) != 1 || strings.Join(r.Communities, " ") != "64512:8" || r.MED != nil || len(r.ASPath) != 1 || v.Ups != 2 || v.Downs != 0 {
				return fmt.Errorf("%+v", v)
			}
			return nil
		})
	}
	set(func(c *Config) { c.Peers[0].Shutdown, c.Peers[0].ShutdownMessage = true, "back at noon" })
	for _, s := range sides {
		s.ended(t, 1)
		c.shows(s.config.Network, "172.16.0.2", "idle", "back at noon")
	}
	set(func(c *Config) { c.Peers[0].Shutdown, c.Peers[0].MaxPrefixes = false, 1 })
	for _, s := range sides {
		c.shows(s.config.Network, "172.16.0.2", "idle", "")
		c.shows(s.config.Network, "fd00:16::2", established, "")
	}
}

func newExaSide(t *testing.T, l *lab.Lab, gw *lab.NS, name string, i int) *exaSide {
	t.Helper()
	ns := l.MustNamespace("exa" + name)
	device := "up-" + name
	l.MustLink(gw, device, ns, "eth0")
	if name != "" {
		gw.MustIP(fmt.Sprintf("link add %s type vrf table %d", name, 101+i), "link set "+name+" up", "link set "+device+" master "+name)
	}
	gw.MustIP("addr add 172.16.0.1/30 dev "+device, "addr add fd00:16::1/64 dev "+device+" nodad")
	ns.MustIP("addr add 172.16.0.2/30 dev eth0", "addr add fd00:16::2/64 dev eth0 nodad")
	exa, err := lab.StartExaBGP(ns, lab.ExaBGPConfig{ASN: 65001, RouterID: addr("172.16.0.2"), Sessions: []lab.ExaBGPSession{
		{Local: addr("172.16.0.2"), Peer: addr("172.16.0.1"), PeerASN: gatewayASN, Password: "correct-horse",
			Routes: []string{"10.0.0.0/24 next-hop self", fmt.Sprintf("10.%d.0.0/16 next-hop self community [ 65001:%d ]", i+1, i)}},
		{Local: addr("fd00:16::2"), Peer: addr("fd00:16::1"), PeerASN: gatewayASN, Routes: []string{"2001:db8:1::/48 next-hop self"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := &exaSide{exa: exa, config: Config{Network: name, Device: name, ASN: gatewayASN, RouterID: addr("172.16.0.1"),
		Advertise: []Advertisement{{Prefix: prefix("198.51.100.0/28"), Attributes: Attributes{Communities: []uint32{64512<<16 | 7},
			LargeCommunities: []LargeCommunity{{64512, 1, 2}}, MED: new(uint32(50)), Prepend: new(uint8(2))}}, {Prefix: prefix("2001:db8:51::/64")}}}}
	if name == "" {
		s.config.Network = "flat"
	}
	rules := []ImportRule{{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 24}, {Prefix: prefix("2001:db8::/32"), Min: 32, Max: 64}}
	s.config.Peers = []Peer{
		{Address: addr("172.16.0.2"), ASN: 65001, HoldTime: 30 * time.Second, Import: rules, PasswordFile: secretFile(t, "correct-horse\n")},
		{Address: addr("fd00:16::2"), ASN: 65001, HoldTime: 30 * time.Second, Import: rules}}
	return s
}

// ended waits until ExaBGP has seen sessions end. Why, it cannot tell: version
// 4.2.21 takes every NOTIFICATION for an UPDATE that it cannot decode.
func (s *exaSide) ended(t *testing.T, n int) {
	t.Helper()
	s.exa.Sees(t, deadline, "the end of a session", func(v lab.ExaBGPView) error {
		if v.Downs < n {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
}
