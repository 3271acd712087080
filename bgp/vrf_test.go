package bgp

import (
	"fmt"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// TestTransportVRF holds that both kinds of sockets, those that listen and those
// that dial, are bound to the network's VRF, and that a VRF device made anew gets
// new ones without touching the other network.
func TestTransportVRF(t *testing.T) {
	lab.Require(t, lab.FRR, lab.BIRD, lab.VRF)
	l := lab.New(t)
	gw := l.MustNamespace("gw")
	sides := []*side{
		newSide(t, l, gw, "red", true, lab.StartFRR),
		newSide(t, l, gw, "blue", true, lab.StartBIRD),
	}
	c := startChild(t, gw)
	established := func(how string) {
		t.Helper()
		for _, s := range sides {
			lab.Eventually(t, deadline, how+" sessions of "+s.config.Network, func() error {
				if err := s.check(); err != nil {
					return err
				}
				st, err := c.state(s.config.Network)
				for _, p := range st.Peers {
					if p.State != "established" {
						err = fmt.Errorf("%+v", p)
					}
				}
				return err
			})
			s.learns(c)
		}
	}
	c.set(configs(sides, func(c *Config) {
		c.GracefulRestart = nil
		for i := range c.Peers {
			c.Peers[i].Passive = true
		}
	})...)
	established("accepted")
	c.set(configs(sides, func(c *Config) {
		c.ListenPort = -1
		for i := range c.Peers {
			c.Peers[i].Passive, c.Peers[i].ConnectRetry = false, 2*time.Second
		}
	})...)
	established("dialled")

	c.set(configs(sides, func(c *Config) {
		c.ListenPort = 0
		for i := range c.Peers {
			c.Peers[i].Passive = true
		}
	})...)
	established("accepted again")
	flaps := c.flaps("blue")
	gw.MustIP("link del red")
	c.refuses(`network "red": find device "red"`, configs(sides, nil)...)
	gw.MustIP("link add red type vrf table 101", "link set red up", "link set up-red master red", "addr add fd00:16::1/64 dev up-red")
	c.set(configs(sides, nil)...)
	established("accepted in a new device")
	if n := c.flaps("blue"); n != flaps {
		t.Errorf("blue flapped %d times", n-flaps)
	}
}
