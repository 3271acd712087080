package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/egret-router/egret/lab"
)

// TestNoTransit is a property: whatever two peers of a network announce and
// withdraw, neither ever learns from us anything but our own prefixes.
func TestNoTransit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, nil)
			own := map[string]bool{"198.51.100.0/28": true, "2001:db8:51::/48": true}
			var ups []*upstream
			for i, asn := range []uint32{65001, 65002} {
				ups = append(ups, startUpstream(t, upstreamConfig{
					addr: fmt.Sprintf("127.0.0.%d", i+2), asn: asn, gateway: g.config.ListenPort, ipv6: true, restart: seed == 2,
				}))
			}
			g.set(func(c *Config) {
				c.Advertise = advertise("198.51.100.0/28", "2001:db8:51::/48")
				for _, u := range ups {
					p := u.peer(anything...)
					p.IPv4, p.IPv6, p.NextHopIPv6 = true, true, addr("2001:db8::1")
					c.Peers = append(c.Peers, p)
				}
				if seed == 2 {
					c.GracefulRestart = &GracefulRestart{RestartTime: 60e9}
				}
			})
			g.established(ups...)
			check := func() error {
				for _, u := range ups {
					for p, l := range u.rib() {
						if !own[p] {
							return fmt.Errorf("%s learned %s: %+v", u.addr, p, l)
						}
					}
				}
				return nil
			}
			announced := []map[string]bool{{}, {}}
			rnd := rand.New(rand.NewPCG(seed, 1))
			for range 150 {
				i := rnd.IntN(2)
				if p := randomPrefix(rnd); announced[i][p] && rnd.IntN(2) == 0 {
					ups[i].withdraw(p)
					delete(announced[i], p)
				} else {
					ups[i].announce(announcement{prefix: p, path: randomPath(rnd), med: rnd.Uint32N(3)})
					announced[i][p] = true
				}
				if err := check(); err != nil {
					t.Fatal(err)
				}
			}
			g.awaits("all announcements", func(State) error {
				for i, u := range ups {
					if p := g.peerState(u.addr); p.Received != len(announced[i]) || p.Received == 0 {
						return fmt.Errorf("%+v, want %d received", p, len(announced[i]))
					}
				}
				return nil
			})
			// What would have leaked goes out before this.
			own["203.0.113.0/28"] = true
			g.set(func(c *Config) { c.Advertise = append(c.Advertise, advertise("203.0.113.0/28")...) })
			lab.Eventually(t, deadline, "all of ours", func() error {
				if err := check(); err != nil {
					t.Fatal(err)
				}
				for _, u := range ups {
					if n := len(u.rib()); n != len(own) {
						return fmt.Errorf("%s has %d prefixes of ours", u.addr, n)
					}
				}
				return nil
			})
			if p := g.state().Peers; p[0].Flaps+p[1].Flaps != 0 {
				t.Errorf("sessions flapped: %+v", p)
			}
		})
	}
}

// randomPrefix is one of few, so that both peers announce the same, and among
// them our own, parts of them, what covers them, and default routes.
func randomPrefix(rnd *rand.Rand) string {
	bases := []string{"198.51.100.0", "10.0.0.0", "203.0.113.0", "0.0.0.0", "2001:db8:51::", "2001:db8:52::", "::"}
	a := netip.MustParseAddr(bases[rnd.IntN(len(bases))])
	lengths := []int{0, 8, 16, 24, 28, 32, 48}
	bits := min(lengths[rnd.IntN(len(lengths))], a.BitLen())
	return netip.PrefixFrom(a, bits).Masked().String()
}

func randomPath(rnd *rand.Rand) []uint32 {
	path := make([]uint32, rnd.IntN(4))
	for i := range path {
		path[i] = []uint32{65001, 65002, 65003, gatewayASN}[rnd.IntN(4)]
	}
	return path
}
