package vrf_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

// tunnelled is a want of routes through tunnels, of all four combinations of
// families, and through a loop.
func tunnelled(mtu int, port uint16) vrf.Config {
	c := vrf.Config{
		Tunnels: []vrf.TunnelDevice{{Name: "tun", Port: port, MTU: mtu}},
		Loops:   []vrf.Loop{{Name: "out", Peer: "in", MTU: mtu}},
	}
	for _, ipv6 := range []bool{false, true} {
		here := hop(vrf.NextHop{Device: "out", IPv6: ipv6})
		back := hop(vrf.NextHop{Device: "in", IPv6: ipv6})
		hops := []vrf.NextHop{here,
			hop(vrf.NextHop{Device: "tun", IPv6: ipv6, Tunnel: vrf.Tunnel{Endpoint: addr("192.0.2.1"), VNI: 4097}}),
			hop(vrf.NextHop{Device: "tun", IPv6: ipv6, Tunnel: vrf.Tunnel{Endpoint: addr("192.0.2.2"), Source: addr("192.0.2.9"), VNI: 1<<24 - 1}}),
			hop(vrf.NextHop{Device: "tun", IPv6: ipv6, Tunnel: vrf.Tunnel{Endpoint: addr("2001:db8::1"), Source: addr("2001:db8::9"), VNI: 4097}}),
		}
		g := vrf.Group{ID: vrf.GroupIDFor(owner, fmt.Sprint("group", ipv6))}
		r := vrf.Group{ID: vrf.GroupIDFor(owner, fmt.Sprint("resilient", ipv6)), Resilient: vrf.Resilient{Buckets: 64}}
		for _, n := range hops {
			g.Members = append(g.Members, vrf.Member{ID: n.ID, Weight: 1})
			r.Members = append(r.Members, vrf.Member{ID: n.ID, Weight: 1})
		}
		c.NextHops = append(append(c.NextHops, hops...), back)
		c.Groups = append(c.Groups, g, r)
		any, one := prefix("0.0.0.0/0"), prefix("10.244.0.0/24")
		if ipv6 {
			any, one = prefix("::/0"), prefix("fd00:244::/64")
		}
		c.Routes = append(c.Routes,
			vrf.Route{Table: 5000, Prefix: any, Metric: 20, Type: vrf.Unicast, NextHop: g.ID},
			vrf.Route{Table: 5001, Prefix: any, Metric: 20, Type: vrf.Unicast, NextHop: r.ID},
			vrf.Route{Table: 5001, Prefix: one, Metric: 20, Type: vrf.Unicast, NextHop: back.ID})
	}
	return c
}

// TestKernelTunnels drives tunnels and loops through a kernel: it makes them, gives
// them another port and MTU, and makes them again when somebody takes them away.
func TestKernelTunnels(t *testing.T) {
	r := newRig(t)
	// A tunnel of somebody else is none of our business.
	r.hand("link add other type vxlan id 7 dstport 4788 local 192.0.2.77", func(k *vrftest.Kernel) error {
		k.AddLink(vrf.Link{Name: "other", Kind: "vxlan", Port: 4788})
		return nil
	})
	want := tunnelled(1400, 4790)
	r.repaired(want)
	for _, name := range []string{"tun", "out", "in"} {
		r.do("link del "+name, vrf.DeleteLink{Device: name})
		r.repaired(want)
		r.up(name, false)
		r.repaired(want)
		r.do("link set "+name+" mtu 1300", vrf.SetMTU{Device: name, MTU: 1300})
		r.repaired(want)
	}
	r.step = "another MTU"
	if plan := r.reach(tunnelled(1450, 4790)); len(plan.Ops) != 3 {
		t.Errorf("want three changes of the MTU:\n%s", plan)
	}
	r.step = "another port"
	r.reach(tunnelled(1450, 4791))
	r.step = "exchanged names"
	exchanged := tunnelled(1450, 4790)
	exchanged.Tunnels[0].Name, exchanged.Loops[0].Name = "out", "tun"
	for i, n := range exchanged.NextHops {
		old := n.ID
		n.Device = map[string]string{"tun": "out", "out": "tun", "in": "in"}[n.Device]
		exchanged.NextHops[i] = hop(n)
		for _, g := range exchanged.Groups {
			for j := range g.Members {
				if g.Members[j].ID == old {
					g.Members[j].ID = exchanged.NextHops[i].ID
				}
			}
		}
		for j := range exchanged.Routes {
			if exchanged.Routes[j].NextHop == old {
				exchanged.Routes[j].NextHop = exchanged.NextHops[i].ID
			}
		}
	}
	r.reach(exchanged)
	r.step = "teardown"
	r.reach(vrf.Config{})
	if left := r.gw.Must("ip", "-br", "link", "show", "type", "vxlan"); !strings.HasPrefix(left, "other") || strings.Count(left, "\n") != 1 {
		t.Errorf("left: %q", left)
	}
}

// TestKernelTunnelLooksRight: what the kernel says of our devices is what ip(8) would
// have made of the text of the plan.
func TestKernelTunnelLooksRight(t *testing.T) {
	r := newRig(t)
	r.reach(tunnelled(1400, 4790))
	tun := r.gw.Must("ip", "-d", "link", "show", "tun")
	for _, word := range []string{"NOARP", "mtu 1400", "external", "dstport 4790", "nolearning", "gpe", "udp6zerocsumrx", "alias egret:tunnel"} {
		if !strings.Contains(tun, word) {
			t.Errorf("no %q in %s", word, tun)
		}
	}
	if strings.Contains(tun, "noudp6zerocsumrx") {
		t.Error(tun)
	}
	for _, end := range []string{"out", "in"} {
		if text := r.gw.Must("ip", "-d", "link", "show", end); !strings.Contains(text, "NOARP") || !strings.Contains(text, "02:65:67:72:65:74") {
			t.Error(text)
		}
	}
}

// TestTunnelProblems: what cannot be had is said, and the rest is done.
func TestTunnelProblems(t *testing.T) {
	k := vrftest.New(owner, vrf.Link{Name: "eth1", Kind: "veth", Up: true}, vrf.Link{Name: "eth2", Kind: "veth", Up: true, Carrier: true})
	want := tunnelled(1400, 4790)
	bad := hop(vrf.NextHop{Device: "eth2", Tunnel: vrf.Tunnel{Endpoint: addr("192.0.2.1")}})
	wide := hop(vrf.NextHop{Device: "tun", Tunnel: vrf.Tunnel{Endpoint: addr("192.0.2.1"), VNI: 1 << 24}})
	mixed := hop(vrf.NextHop{Device: "tun", Tunnel: vrf.Tunnel{Endpoint: addr("192.0.2.1"), Source: addr("::1")}})
	good := len(want.NextHops)
	want.NextHops = append(want.NextHops, bad, wide, mixed)
	want.Tunnels = append(want.Tunnels, vrf.TunnelDevice{Name: "eth1", Port: 1}, vrf.TunnelDevice{Name: "xtun", Port: 4790})
	want.Loops = append(want.Loops, vrf.Loop{Name: "x", Peer: "x"}, vrf.Loop{Name: "y", Peer: "tun"})
	plan := vrf.Diff(snapshot(t, k), want)
	for _, text := range []string{`device "eth1" exists and is not ours`, `"eth2" is no tunnel`, "the VNI is above", "two families",
		`tunnel "xtun" has the port of "tun"`, `loop "x"-"x"`, `loop "y"-"tun"`} {
		if !slices.ContainsFunc(plan.Errors, func(e vrf.NetworkError) bool { return strings.Contains(e.Error(), text) }) {
			t.Errorf("nothing about %q in\n%s", text, plan)
		}
	}
	must(t, k.Apply(t.Context(), plan).Err())
	if have := snapshot(t, k).Config; len(have.NextHops) != good || len(have.Tunnels) != 1 || len(have.Loops) != 1 {
		t.Errorf("have %+v", have)
	}
}
