package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// side is one external network with a real router in it.
type side struct {
	t      *testing.T
	gw     *lab.NS
	router *lab.Router
	config Config
	hops   map[lab.Family]netip.Addr // the gateway's addresses
	far    []netip.Prefix            // what the router announces
}

// newSide connects the gateway to a router in a namespace of its own. With a
// VRF the link's end is in it; addresses are the same on all sides.
func newSide(t *testing.T, l *lab.Lab, gw *lab.NS, name string, vrf bool, start func(*lab.NS, lab.RouterConfig) (*lab.Router, error), change ...func(*lab.RouterConfig)) *side {
	t.Helper()
	device := "up-" + name
	ns := l.MustNamespace(name)
	l.MustLink(gw, device, ns, "eth0")
	config := Config{
		Network: name, ASN: gatewayASN, RouterID: addr("172.16.0.1"),
		GracefulRestart: &GracefulRestart{RestartTime: 60 * time.Second},
		Advertise: []Advertisement{
			{Prefix: prefix("198.51.100.0/28"), Attributes: Attributes{Communities: []uint32{64512<<16 | 7}}}, {Prefix: prefix("2001:db8:51::/64")},
		},
	}
	if vrf {
		config.Device = name
		gw.MustIP("link add "+name+" type vrf table "+map[string]string{"red": "101", "blue": "102"}[name],
			"link set "+name+" up", "link set "+device+" master "+name)
	}
	gw.MustIP("addr add 172.16.0.1/30 dev "+device, "addr add fd00:16::1/64 dev "+device)
	ns.MustIP("addr add 172.16.0.2/30 dev eth0", "addr add fd00:16::2/64 dev eth0")
	rules := []ImportRule{{Prefix: prefix("10.0.0.0/8"), Min: 8, Max: 24}, {Prefix: prefix("2001:db8::/32"), Min: 32, Max: 64}}
	for _, a := range []string{"172.16.0.2", "fd00:16::2"} {
		config.Peers = append(config.Peers, Peer{Address: addr(a), ASN: 65001, HoldTime: 30 * time.Second, Import: rules})
	}
	s := &side{
		t: t, gw: gw, config: config, hops: map[lab.Family]netip.Addr{lab.IPv4: addr("172.16.0.1"), lab.IPv6: addr("fd00:16::1")},
		far: prefixList("10.0.0.0/24", "10.9.0.0/25", "172.20.0.0/16", "2001:db8:1::/48", "2001:db8:51::/80"),
	}
	router := lab.RouterConfig{
		ASN: 65001, RouterID: addr("172.16.0.2"), HoldTime: 30 * time.Second, Announce: s.far,
		Peers:  []lab.RouterPeer{{Address: addr("172.16.0.1"), ASN: gatewayASN}, {Address: addr("fd00:16::1"), ASN: gatewayASN}},
		Accept: prefixList("0.0.0.0/0", "::/0"),
	}
	for _, c := range change {
		c(&router)
	}
	var err error
	s.router, err = start(ns, router)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wants waits until the router has exactly the prefixes advertised.
func (s *side) wants() {
	s.t.Helper()
	lab.Eventually(s.t, deadline, "prefixes of the gateway in "+s.config.Network, s.check)
}

func (s *side) check() error {
	for f, hop := range s.hops {
		have, err := s.router.Routes(f)
		if err != nil {
			return err
		}
		want := 0
		for _, a := range s.config.Advertise {
			if lab.FamilyOf(a.Prefix.Addr()) != f {
				continue
			}
			want++
			if !slices.Equal(have[a.Prefix], []netip.Addr{hop}) {
				return fmt.Errorf("have %v, want %s via %s", have, a.Prefix, hop)
			}
		}
		if len(have) != want {
			return fmt.Errorf("have %v, want %d", have, want)
		}
	}
	return nil
}

// learns waits until the gateway has what it accepts from the router.
func (s *side) learns(c *child) {
	s.t.Helper()
	c.routes(s.config.Network, "10.0.0.0/24 via 172.16.0.2", "2001:db8:1::/48 via fd00:16::2")
}

// hasCommunity asks the router for the community of the IPv4 pool.
func (s *side) hasCommunity() error {
	words := []string{"show bgp ipv4 unicast 198.51.100.0/28"}
	want := "Community: 64512:7"
	if s.router.Kind == "bird" {
		words, want = []string{"show", "route", "198.51.100.0/28", "all"}, "BGP.community: (64512,7)"
	}
	out, err := s.router.Command(words...)
	if err == nil && !strings.Contains(out, want) {
		err = fmt.Errorf("no %q in %s", want, out)
	}
	return err
}

// keeps looks at the router until the function returned is called, which fails
// the test if a prefix was missing at any time.
func (s *side) keeps(prefixes ...netip.Prefix) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	looks := 0
	go func() {
		for ctx.Err() == nil {
			for _, p := range prefixes {
				have, err := s.router.Routes(lab.FamilyOf(p.Addr()))
				if _, ok := have[p]; err == nil && !ok {
					done <- fmt.Errorf("%s is gone, there are %v", p, have)
					return
				}
			}
			looks++
		}
		done <- nil
	}()
	return func() {
		s.t.Helper()
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("%s: %v", s.config.Network, err)
		}
		if looks == 0 {
			s.t.Errorf("%s: nothing was looked at", s.config.Network)
		}
	}
}

func configs(sides []*side, change func(*Config)) []Config {
	var out []Config
	for _, s := range sides {
		if change != nil {
			change(&s.config)
		}
		out = append(out, s.config)
	}
	return out
}

// interop is what must work with every router, on all sides at the same time.
func interop(t *testing.T, gw *lab.NS, sides []*side) {
	c := startChild(t, gw)
	c.set(configs(sides, nil)...)
	each := func(f func(*side)) {
		t.Helper()
		for _, s := range sides {
			f(s)
		}
	}
	pool4, pool6 := prefix("198.51.100.0/28"), prefix("2001:db8:51::/64")
	each((*side).wants)
	each(func(s *side) { s.learns(c) })
	each(func(s *side) { lab.Eventually(t, deadline, "community", s.hasCommunity) })

	// In place: a prefix more, and the router's own changes.
	c.set(configs(sides, func(c *Config) {
		c.Advertise = append(c.Advertise, Advertisement{Prefix: prefix("203.0.113.0/28")}, Advertisement{Prefix: prefix("2001:db8:52::/64")})
	})...)
	each((*side).wants)
	each(func(s *side) {
		if err := s.router.Announce(append(s.far[1:], prefix("10.7.0.0/16"))...); err != nil {
			t.Fatal(err)
		}
		c.routes(s.config.Network, "10.7.0.0/16 via 172.16.0.2", "2001:db8:1::/48 via fd00:16::2")
		if err := s.router.Announce(s.far...); err != nil {
			t.Fatal(err)
		}
		s.learns(c)
	})
	each(func(s *side) {
		if n := c.flaps(s.config.Network); n != 0 {
			t.Errorf("%s: %d flaps", s.config.Network, n)
		}
	})

	// kill -9: the routers keep the prefixes until the restarted process told
	// which ones it still has.
	var stops []func()
	each(func(s *side) { stops = append(stops, s.keeps(pool4, pool6)) })
	c.proc.Kill9()
	each(func(s *side) {
		lab.Eventually(t, deadline, "end of the session at "+s.config.Network, func() error {
			state, err := s.router.BGPState(addr("172.16.0.1"))
			if err == nil && state == "Established" {
				return fmt.Errorf("it is %q", state)
			}
			return err
		})
		if err := s.check(); err != nil {
			t.Errorf("%s after kill -9: %v", s.config.Network, err)
		}
	})
	c = startChild(t, gw)
	c.set(configs(sides, func(c *Config) { c.Restarting, c.Advertise = true, c.Advertise[:3] })...)
	each(func(s *side) { s.learns(c) })
	each((*side).wants)
	for _, stop := range stops {
		stop()
	}

	// A Cease withdraws at once.
	graceful := false
	c.do(order{Close: &graceful})
	each(func(s *side) { s.config.Advertise = nil })
	each((*side).wants)
}

func TestInterop(t *testing.T) {
	lab.Require(t, lab.FRR, lab.BIRD)
	t.Run("frr", func(t *testing.T) {
		l := lab.New(t)
		gw := l.MustNamespace("gw")
		interop(t, gw, []*side{newSide(t, l, gw, "red", false, lab.StartFRR)})
	})
	t.Run("bird", func(t *testing.T) {
		l := lab.New(t)
		gw := l.MustNamespace("gw")
		interop(t, gw, []*side{newSide(t, l, gw, "blue", false, lab.StartBIRD)})
	})
}

// TestInteropVRF has FRR and BIRD in two VRFs with the same addresses, ASNs and
// router ids, on both ends.
func TestInteropVRF(t *testing.T) {
	lab.Require(t, lab.FRR, lab.BIRD, lab.VRF)
	l := lab.New(t)
	gw := l.MustNamespace("gw")
	interop(t, gw, []*side{
		newSide(t, l, gw, "red", true, lab.StartFRR),
		newSide(t, l, gw, "blue", true, lab.StartBIRD),
	})
}

// TestRouterRestart has BIRD die and come back: its routes stay meanwhile.
func TestRouterRestart(t *testing.T) {
	lab.Require(t, lab.BIRD)
	l := lab.New(t)
	gw := l.MustNamespace("gw")
	s := newSide(t, l, gw, "blue", false, lab.StartBIRD)
	c := startChild(t, gw)
	c.set(s.config)
	s.wants()
	s.learns(c)
	first := c.proc.Stdout()
	s.router.Kill9()
	lab.Eventually(t, deadline, "end of the sessions", func() error {
		if n := c.flaps(s.config.Network); n != 2 {
			return fmt.Errorf("%d flaps", n)
		}
		return nil
	})
	s.learns(c)
	if err := s.router.Start(); err != nil {
		t.Fatal(err)
	}
	s.wants()
	lab.Eventually(t, deadline, "sessions", func() error {
		st, err := c.state(s.config.Network)
		for _, p := range st.Peers {
			if p.State != established {
				err = fmt.Errorf("%+v", p)
			}
		}
		return err
	})
	s.learns(c)
	// No report between the two said otherwise.
	for line := range strings.SplitSeq(strings.TrimPrefix(c.proc.Stdout(), first), "\n") {
		if line != "" && !strings.Contains(line, `"Prefix":"10.0.0.0/24"`) {
			t.Errorf("the route was lost: %s", line)
		}
	}
}
