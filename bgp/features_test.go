package bgp

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// configure has FRR take configuration lines within "router bgp", or BIRD its
// configuration with another line in each BGP protocol that has the old one.
func (s *side) configure(frr []string, birdOld, birdNew string) {
	s.t.Helper()
	if s.router.Kind == "frr" {
		lines := append([]string{"configure terminal", fmt.Sprintf("router bgp %d", s.router.Config().ASN)}, frr...)
		if out, err := s.router.Command(lines...); err != nil || strings.Contains(out, "%") {
			s.t.Fatalf("configure FRR: %v: %s", err, out)
		}
		return
	}
	file := s.router.NS.Path("/run/bird.conf")
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), birdOld) {
		s.t.Fatalf("configure BIRD: %v: no %q in %s", err, birdOld, text)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), birdOld, birdNew)), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if out, err := s.router.Command("configure"); err != nil || !strings.Contains(out, "Reconfigur") {
		s.t.Fatalf("configure BIRD: %v: %s", err, out)
	}
}

// sees waits until the router tells all of the words when it is asked: FRR and
// BIRD are asked and tell differently.
func (s *side) sees(what string, frrAsk string, frrTells []string, birdAsk string, birdTells []string) {
	s.t.Helper()
	ask, tells := frrAsk, frrTells
	if s.router.Kind == "bird" {
		ask, tells = birdAsk, birdTells
	}
	lab.Eventually(s.t, deadline, what+" in "+s.config.Network, func() error {
		out, err := s.router.Command(ask)
		if err != nil {
			return err
		}
		for _, text := range tells {
			if !strings.Contains(out, text) {
				return fmt.Errorf("no %q in %s", text, out)
			}
		}
		return nil
	})
}

// peer is the gateway's view of its session with the router.
func (c *child) peer(network string, a netip.Addr) (PeerState, error) {
	st, err := c.state(network)
	for _, p := range st.Peers {
		if p.Address == a {
			return p, err
		}
	}
	return PeerState{}, fmt.Errorf("no peer %s: %v", a, err)
}

// shows waits until a session is in a state, with an error that has the text.
func (c *child) shows(network, peer, state, text string) {
	c.t.Helper()
	lab.Eventually(c.t, deadline, network+" "+peer+" "+state, func() error {
		p, err := c.peer(network, addr(peer))
		if err == nil && (p.State != state || !strings.Contains(p.LastError, text)) {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
}

// TestFeatures has what the protocol can beyond the basics with FRR and BIRD in
// two VRFs with equal addresses, each looked at from the routers.
func TestFeatures(t *testing.T) {
	lab.Require(t, lab.FRR, lab.BIRD, lab.VRF)
	l := lab.New(t)
	gw := l.MustNamespace("gw")
	signed := func(c *lab.RouterConfig) { c.Peers[0].Password = "correct-horse" }
	features(t, gw, []*side{
		newSide(t, l, gw, "red", true, lab.StartFRR, signed),
		newSide(t, l, gw, "blue", true, lab.StartBIRD, signed),
	})
}

// TestFeaturesFlat does the same without VRFs, where the kernel has none.
func TestFeaturesFlat(t *testing.T) {
	lab.Require(t, lab.FRR, lab.BIRD)
	for name, start := range map[string]func(*lab.NS, lab.RouterConfig) (*lab.Router, error){"red": lab.StartFRR, "blue": lab.StartBIRD} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t)
			gw := l.MustNamespace("gw")
			features(t, gw, []*side{newSide(t, l, gw, name, false, start, func(c *lab.RouterConfig) { c.Peers[0].Password = "correct-horse" })})
		})
	}
}

func features(t *testing.T, gw *lab.NS, sides []*side) {
	c := startChild(t, gw)
	each := func(f func(s *side)) {
		t.Helper()
		for _, s := range sides {
			f(s)
		}
	}
	right, wrong := secretFile(t, "correct-horse\n"), secretFile(t, "battery-staple\n")
	password := func(file string, passive bool) {
		t.Helper()
		c.set(configs(sides, func(c *Config) {
			c.GracefulRestart = nil
			c.Peers[0].PasswordFile, c.Peers[0].Passive = file, passive
		})...)
	}
	password(wrong, false)
	each(func(s *side) { c.shows(s.config.Network, "172.16.0.2", "active", timeoutHint) })
	each(func(s *side) { c.shows(s.config.Network, "fd00:16::2", established, "") })
	password(right, false)
	each((*side).wants)
	each(func(s *side) { s.learns(c) })
	password(wrong, true)
	each(func(s *side) { c.shows(s.config.Network, "172.16.0.2", "active", passwordHint) })
	password(right, true)
	each((*side).wants)

	attributes(t, c, sides)
	shutdowns(t, c, sides)
	heldDown(t, c, sides)
	gtsm(t, c, sides)
	dynamic(t, c, sides)
	extended(t, c, sides)
	linkLocal(t, c, sides)
}

// flaps are the counts of all sides.
func flapsOf(c *child, sides []*side) string {
	text := ""
	for _, s := range sides {
		text += fmt.Sprint(s.config.Network, c.flaps(s.config.Network), " ")
	}
	return text
}

func attributes(t *testing.T, c *child, sides []*side) {
	t.Helper()
	before := flapsOf(c, sides)
	c.set(configs(sides, func(c *Config) {
		c.Advertise[0].Attributes = Attributes{Communities: []uint32{64512<<16 | 7}, LargeCommunities: []LargeCommunity{{64512, 1, 2}},
			MED: new(uint32(50)), LocalPref: new(uint32(300)), Prepend: new(uint8(2))}
	})...)
	const frrPool, birdPool = "show bgp ipv4 unicast 198.51.100.0/28", "show route 198.51.100.0/28 all"
	for _, s := range sides {
		s.sees("attributes", frrPool, []string{"64512 64512 64512\n", "metric 50", "Community: 64512:7", "Large Community: 64512:1:2"},
			birdPool, []string{"BGP.as_path: 64512 64512 64512\n", "BGP.med: 50", "BGP.community: (64512,7)", "BGP.large_community: (64512, 1, 2)"})
	}
	c.set(configs(sides, func(c *Config) {
		c.Draining = true
		c.Peers[0].Export = Attributes{MED: new(uint32(0)), LargeCommunities: []LargeCommunity{}}
	})...)
	for _, s := range sides {
		s.sees("drain", frrPool, []string{"64512 64512 64512\n", "metric 0", "Community: 64512:7 graceful-shutdown"},
			birdPool, []string{"BGP.as_path: 64512 64512 64512\n", "BGP.med: 0", "(64512,7)", "(65535,0)"})
		s.sees("drain", "show bgp ipv6 unicast 2001:db8:51::/64", []string{"Community: graceful-shutdown"},
			"show route 2001:db8:51::/64 all", []string{"BGP.community: (65535,0)"})
	}
	c.set(configs(sides, func(c *Config) {
		c.Draining, c.Peers[0].Export = false, Attributes{}
		c.Advertise[0].Attributes = Attributes{Communities: []uint32{NoAdvertise}}
	})...)
	for _, s := range sides {
		s.sees("attributes", frrPool, []string{"\n  64512\n", "not advertised to any peer"}, birdPool, []string{"BGP.as_path: 64512\n", "(65535,65282)"})
	}
	if after := flapsOf(c, sides); after != before {
		t.Errorf("sessions were reset: flaps %s, were %s", after, before)
	}
}

// frrLog is where FRR can write.
const frrLog = "/run/frr/bgpd.log"

func shutdowns(t *testing.T, c *child, sides []*side) {
	t.Helper()
	for _, s := range sides {
		if s.router.Kind == "frr" {
			if out, err := s.router.Command("configure terminal", "log file "+frrLog+" informational"); err != nil || out != "" {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	c.set(configs(sides, func(c *Config) { c.Peers[1].Shutdown, c.Peers[1].ShutdownMessage = true, "back at noon" })...)
	for _, s := range sides {
		s.sees("our message", "show bgp neighbors fd00:16::1", []string{"Administrative Shutdown"},
			"show protocols all peer6_0", []string{"Administrative shutdown", "back at noon"})
		if s.router.Kind == "frr" { // FRR 8 shows the message in its log only
			log, err := os.ReadFile(s.router.NS.Path(frrLog))
			if err != nil || !strings.Contains(string(log), `6/2 (Cease/Administrative Shutdown) "back at noon"`) {
				t.Errorf("log of FRR: %v: %s", err, log)
			}
		}
		c.shows(s.config.Network, "fd00:16::2", "idle", `administrative shutdown "back at noon"`)
	}
	c.set(configs(sides, func(c *Config) { c.Peers[1].Shutdown = false })...)
	for _, s := range sides {
		c.shows(s.config.Network, "fd00:16::2", established, "")
		if s.router.Kind == "frr" {
			s.configure([]string{"neighbor fd00:16::1 shutdown message gone fishing"}, "", "")
		} else if _, err := s.router.Command(`disable peer6_0 "gone fishing"`); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, deadline, "their message", func() error {
			p, err := c.peer(s.config.Network, addr("fd00:16::2"))
			if err == nil && (p.State == established || !strings.Contains(p.LastError, `received NOTIFICATION 6/2 cease: administrative shutdown "gone fishing"`)) {
				err = fmt.Errorf("%+v", p)
			}
			return err
		})
		if s.router.Kind == "frr" {
			s.configure([]string{"no neighbor fd00:16::1 shutdown"}, "", "")
		} else if _, err := s.router.Command("enable peer6_0"); err != nil {
			t.Fatal(err)
		}
	}
}

// heldDown has sessions held down from outside while the routers are frozen and
// their connections still stand: what they sent is gone at once, although graceful
// restart would keep it; and they come back.
func heldDown(t *testing.T, c *child, sides []*side) {
	t.Helper()
	restart := func(c *Config) { c.GracefulRestart = &GracefulRestart{RestartTime: 100 * time.Second} }
	c.set(configs(sides, restart)...)
	for _, s := range sides {
		c.shows(s.config.Network, "172.16.0.2", established, "")
		c.shows(s.config.Network, "fd00:16::2", established, "")
		s.learns(c)
		if err := s.router.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	why := "BFD session down: detection time expired"
	down := func(why string) {
		c.set(configs(sides, func(c *Config) { c.Peers[0].Down, c.Peers[1].Down = why, why })...)
	}
	down(why)
	for _, s := range sides {
		st, err := c.state(s.config.Network)
		if err != nil || len(st.Routes) != 0 {
			t.Errorf("%s: routes of a peer that is held down: %v, %v", s.config.Network, st.Routes, err)
		}
		c.shows(s.config.Network, "172.16.0.2", "idle", why)
		c.shows(s.config.Network, "fd00:16::2", "idle", why)
		if err := s.router.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
	down("")
	for _, s := range sides {
		c.shows(s.config.Network, "172.16.0.2", established, "")
		s.learns(c)
	}
	c.set(configs(sides, func(c *Config) { c.GracefulRestart = nil })...)
	for _, s := range sides {
		c.shows(s.config.Network, "172.16.0.2", established, "")
		c.shows(s.config.Network, "fd00:16::2", established, "")
	}
}

// gtsm has the routers ask for it first: sessions of ours without it stay down.
func gtsm(t *testing.T, c *child, sides []*side) {
	t.Helper()
	for _, s := range sides {
		s.configure([]string{"neighbor 172.16.0.1 ttl-security hops 1", "neighbor fd00:16::1 ttl-security hops 1"},
			"graceful restart on;", "graceful restart on;\n  ttl security on;")
	}
	for _, s := range sides {
		lab.Eventually(t, deadline, "end of unprotected sessions of "+s.config.Network, func() error {
			state, err := s.router.BGPState(addr("172.16.0.1"))
			if err == nil && state == "Established" {
				err = fmt.Errorf("it is %q", state)
			}
			return err
		})
	}
	c.set(configs(sides, func(c *Config) {
		for i := range c.Peers {
			c.Peers[i].TTLSecurity = 1
		}
	})...)
	for _, s := range sides {
		s.wants()
		s.learns(c)
	}
}

// dynamic takes the sessions of the routers, which dial, from ranges.
func dynamic(t *testing.T, c *child, sides []*side) {
	t.Helper()
	for _, s := range sides {
		s.configure([]string{"no neighbor 172.16.0.1 ttl-security hops 1", "no neighbor fd00:16::1 ttl-security hops 1"}, "  ttl security on;", "  ttl security off;")
	}
	c.set(configs(sides, func(c *Config) {
		for i, r := range prefixList("172.16.0.0/30", "fd00:16::/64") {
			c.Peers[i].Address, c.Peers[i].Range, c.Peers[i].MaxSessions = netip.Addr{}, r, 2
			c.Peers[i].TTLSecurity = 0 // not over IPv6, see Peer.TTLSecurity
		}
	})...)
	for _, s := range sides {
		s.wants()
		s.learns(c)
		p, err := c.peer(s.config.Network, addr("172.16.0.2"))
		if err != nil || p.Range != prefix("172.16.0.0/30") {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

// extended has one IPv6 session carry both families, with IPv6 next hops (RFC
// 8950) both ways.
func extended(t *testing.T, c *child, sides []*side) {
	t.Helper()
	for _, s := range sides {
		// Without one FRR refuses to speak of IPv6 next hops at all.
		s.router.NS.MustIP("addr flush dev eth0 scope link", "addr add fe80::16:2/64 dev eth0 nodad")
		const channel = "  ipv6 {\n    import keep filtered;"
		s.configure([]string{"no neighbor 172.16.0.1", "neighbor fd00:16::1 capability extended-nexthop", "address-family ipv4 unicast",
			"neighbor fd00:16::1 activate", "neighbor fd00:16::1 soft-reconfiguration inbound",
			"neighbor fd00:16::1 route-map accept4 in", "neighbor fd00:16::1 route-map announce4 out"},
			channel, "  ipv4 {\n    import all;\n    export where source = RTS_STATIC;\n    extended next hop on;\n  };\n"+channel)
		s.hops[lab.IPv4] = addr("fd00:16::1")
	}
	c.set(configs(sides, func(c *Config) {
		p := c.Peers[1]
		p.Range, p.MaxSessions, p.Address, p.Passive = netip.Prefix{}, 0, addr("fd00:16::2"), false
		p.IPv4, p.IPv6, p.ExtendedNextHop = true, true, true
		c.Peers = []Peer{p}
	})...)
	for _, s := range sides {
		s.sees("session", "show bgp neighbors fd00:16::1", []string{"BGP state = Established"}, "show protocols all peer6_0", []string{"Established"})
		c.routes(s.config.Network, "10.0.0.0/24 via fd00:16::2", "2001:db8:1::/48 via fd00:16::2")
		s.wants()
	}
}

// linkLocal has a session between link-local addresses of the link in the VRF,
// with both families. FRR is told the neighbour's address and interface: found by
// itself ("neighbor eth0 interface") it would wait for router advertisements. It
// sends its global address as next hop, BIRD the link-local one.
func linkLocal(t *testing.T, c *child, sides []*side) {
	t.Helper()
	hop := map[*side]string{}
	for _, s := range sides {
		device, ours, theirs := "up-"+s.config.Network, "fe80::16:1", "fe80::16:2"
		s.gw.MustIP("addr add " + ours + "/64 dev " + device + " nodad")
		s.configure([]string{"no neighbor fd00:16::1", "neighbor " + ours + " remote-as 64512", "neighbor " + ours + " interface eth0",
			"neighbor " + ours + " capability extended-nexthop", "neighbor " + ours + " timers connect 1",
			"address-family ipv4 unicast", "neighbor " + ours + " activate", "neighbor " + ours + " route-map accept4 in",
			"neighbor " + ours + " route-map announce4 out", "exit-address-family",
			"address-family ipv6 unicast", "neighbor " + ours + " activate", "neighbor " + ours + " route-map accept6 in",
			"neighbor " + ours + " route-map announce6 out"}, "neighbor fd00:16::1 as", "neighbor "+ours+" % 'eth0' as")
		s.hops = map[lab.Family]netip.Addr{lab.IPv4: addr(ours), lab.IPv6: addr(ours)}
		s.config.Peers[0].Address = addr(theirs + "%" + device)
		if hop[s] = s.config.Peers[0].Address.String(); s.router.Kind == "frr" {
			hop[s] = "fd00:16::2"
		}
	}
	c.set(configs(sides, nil)...)
	for _, s := range sides {
		c.routes(s.config.Network, "10.0.0.0/24 via "+hop[s], "2001:db8:1::/48 via "+hop[s])
		s.wants()
	}
}
