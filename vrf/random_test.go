package vrf_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

var owner = vrf.Owner{
	Alias: "egret", Protocol: 108, LearnedProtocol: 109,
	NextHopIDs:     vrf.Range{First: 0x20000000, Last: 0x2fffffff},
	RulePriorities: vrf.Range{First: 800, Last: 999},
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

const fallbackMetric = 4278198272

// generator makes random worlds and wants from one seed.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 1))} }

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g generator, list []T) T { return list[g.IntN(len(list))] }

// kernel is a fake with six devices, most of them up, with addresses of others.
func (g generator) kernel() *vrftest.Kernel {
	var links []vrf.Link
	for i := 1; i <= 6; i++ {
		l := vrf.Link{Name: fmt.Sprintf("eth%d", i), Kind: "veth", Up: g.chance(80), Carrier: true}
		if g.chance(60) {
			l.Addresses = append(l.Addresses, foreignAddress(fmt.Sprintf("2001:db8:f%d::1/64", i)))
		}
		if g.chance(40) {
			l.Addresses = append(l.Addresses, foreignAddress(fmt.Sprintf("10.9.%d.1/24", i)))
		}
		if !l.Up {
			l.Addresses = slices.DeleteFunc(l.Addresses, func(a vrf.Address) bool { return a.Prefix.Addr().Is6() })
		}
		links = append(links, l)
	}
	links = append(links, vrf.Link{Name: "other", Kind: "vrf", Table: 77, Up: true})
	k := vrftest.New(owner, links...)
	k.AddForeignNextHop(vrf.NextHop{ID: 7, Blackhole: true}, 3)
	k.AddForeignRoute(vrf.Route{Table: 254, Prefix: prefix("198.18.0.0/15"), Type: vrf.Blackhole}, 3)
	k.AddForeignRule(vrf.Rule{Priority: 890, Mark: 0x9, Mask: 0x9, Action: vrf.RuleLookup, Table: 99}, 3)
	return k
}

func foreignAddress(p string) vrf.Address {
	return vrf.Address{Prefix: prefix(p), Protocol: 0, Flags: 0x80, Valid: vrf.Forever, Preferred: vrf.Forever}
}

// config is a random want that the kernel of this package can have.
func (g generator) config() vrf.Config {
	var c vrf.Config
	ports := []string{"eth1", "eth2", "eth3", "eth4", "vlan10", "vlan20"}
	g.Shuffle(len(ports), func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
	tables := []vrf.TableID{10001, 10002, 10003, 10004}
	g.Shuffle(len(tables), func(i, j int) { tables[i], tables[j] = tables[j], tables[i] })
	for i, name := range []string{"blue", "green", "red"} {
		if g.chance(30) {
			continue
		}
		v := vrf.VRF{Name: name, Index: uint16(1 + g.IntN(3)), Table: tables[i]}
		for range g.IntN(3) {
			v.Ports = append(v.Ports, g.port(ports[0]))
			ports = ports[1:]
		}
		c.VRFs = append(c.VRFs, v)
	}
	separateVLANs(c)
	g.tunnels(&c)
	g.routing(&c)
	return c
}

// tunnels adds tunnels and loops, which exchange names and ports.
func (g generator) tunnels(c *vrf.Config) {
	mtu := func() int { return pick(g, []int{1400, 1464}) }
	ports := []uint16{4790, 4791}
	g.Shuffle(2, func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
	names := []string{"tun1", "tun2", "loop1", "loop2", "loop3"}
	if g.chance(30) {
		g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	}
	for i := range g.IntN(3) {
		c.Tunnels = append(c.Tunnels, vrf.TunnelDevice{Name: names[i], Port: ports[i], MTU: mtu()})
	}
	if g.chance(60) {
		c.Loops = append(c.Loops, vrf.Loop{Name: names[2], Peer: names[3+g.IntN(2)], MTU: mtu()})
	}
}

// separateVLANs sees to it that no two ports are the same VLAN.
func separateVLANs(c vrf.Config) {
	taken := map[vrf.VLAN]bool{}
	for _, v := range c.VRFs {
		for _, p := range v.Ports {
			if p.VLAN != nil && taken[*p.VLAN] {
				p.VLAN.ID = 99
			}
			if p.VLAN != nil {
				taken[*p.VLAN] = true
			}
		}
	}
}

// routing fills in everything that goes with the VRFs of c.
func (g generator) routing(c *vrf.Config) {
	c.NextHops, c.Groups, c.Routes, c.Rules = nil, nil, nil, nil
	for i, v := range c.VRFs {
		g.network(c, v)
		c.VRFs[i].Tables = nil
		for n := range g.IntN(3) {
			g.path(c, &c.VRFs[i], n)
		}
	}
	// Networks may share next hops on tunnels.
	slices.SortFunc(c.NextHops, func(a, b vrf.NextHop) int { return cmp.Compare(a.ID, b.ID) })
	c.NextHops = slices.Compact(c.NextHops)
	for _, ipv6 := range []bool{false, true} {
		action := pick(g, []vrf.RuleAction{vrf.RuleUnreachable, vrf.RuleBlackhole})
		c.Rules = append(c.Rules, vrf.Rule{Priority: 990, IPv6: ipv6, Mark: 0x10000000, Mask: 0x10000000, Action: action})
		if g.chance(70) {
			c.Rules = append(c.Rules, vrf.Rule{Priority: 800, IPv6: ipv6, Mark: 0x20000000, Mask: 0x20000000, Action: vrf.RuleLookup, Table: 254})
		}
		if g.chance(50) {
			g.dispatch(c, ipv6)
		}
	}
}

// dispatch puts the lookups of a family behind gotos of two levels over the lowest
// bits of the network's number.
func (g generator) dispatch(c *vrf.Config, ipv6 bool) {
	jump := func(priority uint32, mark, mask vrf.Mark, target uint32) {
		c.Rules = append(c.Rules, vrf.Rule{Priority: priority, IPv6: ipv6, Mark: mark, Mask: mask, Action: vrf.RuleGoto, Target: target})
	}
	start := uint32(820 + g.IntN(4))
	jump(start, 0, 0x10000000, 990)
	for bit := range vrf.Mark(2) {
		leaf := start + 10 + 20*uint32(bit) + uint32(g.IntN(9))
		found := false
		for i, r := range c.Rules {
			if r.Action == vrf.RuleLookup && r.IPv6 == ipv6 && r.Priority != 800 && r.Mark>>16&1 == bit {
				c.Rules[i].Priority, found = leaf+1, true
			}
		}
		if found {
			jump(start+1, 0x10000000|bit<<16, 0x10010000, leaf)
			jump(leaf, 0x10000000|bit<<16, 0x10010000, leaf+1)
		}
	}
}

func (g generator) port(name string) vrf.Port {
	p := vrf.Port{Name: name}
	if name == "vlan10" || name == "vlan20" {
		p.VLAN = &vrf.VLAN{Parent: pick(g, []string{"eth5", "eth1", "eth2"}), ID: uint16(10 + g.IntN(2))}
	}
	for _, a := range []string{"172.16.0.1/30", "172.16.1.1/24", "172.16.1.5/24", "fd00::1/64", "fd00:1::1/64"} {
		if g.chance(50) {
			p.Addresses = append(p.Addresses, prefix(a))
		}
	}
	if g.chance(20) {
		p.Addresses = append(p.Addresses, prefix(pick(g, []string{"fd00:2::1/64", "fd00:2::1/128"})))
	}
	return p
}

// network adds next hops, groups, routes and rules for v.
func (g generator) network(c *vrf.Config, v vrf.VRF) {
	for _, ipv6 := range []bool{false, true} {
		hops := g.hops(c, v, ipv6)
		c.NextHops = append(c.NextHops, hops...)
		groups := g.groups(c, v, ipv6, hops)
		any, learned := prefix("0.0.0.0/0"), "10.%d.0.0/16"
		if ipv6 {
			any, learned = prefix("::/0"), "2001:db8:%d::/48"
		}
		c.Routes = append(c.Routes, vrf.Route{Table: v.Table, Prefix: any, Metric: fallbackMetric, Type: vrf.Unreachable})
		for i := range g.IntN(4) {
			c.Routes = append(c.Routes, vrf.Route{
				Table: v.Table, Prefix: prefix(fmt.Sprintf(learned, i)), Metric: 20,
				Type: vrf.Unicast, NextHop: pick(g, groups), Learned: g.chance(50),
			})
		}
		mark := vrf.Mark(0x10000000 | uint32(v.Table-10000)<<16)
		if g.chance(80) {
			c.Rules = append(c.Rules, vrf.Rule{Priority: 810, IPv6: ipv6, Mark: mark, Mask: 0x1fff0000, Action: vrf.RuleLookup, Table: v.Table})
		}
		if g.chance(30) {
			c.Rules = append(c.Rules, vrf.Rule{Priority: 805, IPv6: ipv6, Mark: mark, Mask: 0x1fff0000, Action: pick(g, []vrf.RuleAction{vrf.RuleBlackhole, vrf.RuleProhibit})})
		}
	}
}

// path gives v one more table, that has one of its groups and a mark of its own.
func (g generator) path(c *vrf.Config, v *vrf.VRF, n int) {
	table := v.Table + vrf.TableID(100*(n+1))
	v.Tables = append(v.Tables, table)
	for _, r := range c.Routes {
		if r.Table == v.Table && (r.Type == vrf.Unreachable || g.chance(60)) {
			r.Table = table
			c.Routes = append(c.Routes, r)
		}
	}
	mark := vrf.Mark(0x10000000 | uint32(table-10000)<<16)
	for _, ipv6 := range []bool{false, true} {
		if g.chance(80) {
			c.Rules = append(c.Rules, vrf.Rule{Priority: 810, IPv6: ipv6, Mark: mark, Mask: 0x1fff0000, Action: vrf.RuleLookup, Table: table})
		}
		if g.chance(20) {
			c.Rules = append(c.Rules, vrf.Rule{Priority: 805, IPv6: ipv6, Mark: mark, Mask: 0x1fff0000, Action: vrf.RuleBlackhole})
		}
	}
}

func (g generator) hops(c *vrf.Config, v vrf.VRF, ipv6 bool) (out []vrf.NextHop) {
	for _, p := range v.Ports {
		for i := range g.IntN(3) {
			n := vrf.NextHop{Device: p.Name, IPv6: ipv6, OnLink: true, Gateway: addr(fmt.Sprintf("192.0.2.%d", i+1))}
			if ipv6 {
				n.Gateway = addr(fmt.Sprintf("fe80::%d", i+1))
			}
			for _, a := range p.Addresses {
				if a.Addr().Is6() == ipv6 && !a.IsSingleIP() && g.chance(50) {
					n.OnLink, n.Gateway = false, a.Masked().Addr().Next().Next()
				}
			}
			n.ID = vrf.NextHopIDFor(owner, n)
			if !slices.ContainsFunc(out, func(o vrf.NextHop) bool { return o.ID == n.ID }) {
				out = append(out, n)
			}
		}
	}
	for _, d := range c.Tunnels {
		for i := range g.IntN(2) {
			out = append(out, hop(vrf.NextHop{Device: d.Name, IPv6: ipv6, Tunnel: vrf.Tunnel{VNI: 4097, Endpoint: addr(fmt.Sprintf("2001:db8:9::%d", i+1))}}),
				hop(vrf.NextHop{Device: d.Name, IPv6: ipv6, Tunnel: vrf.Tunnel{VNI: 4097, Endpoint: addr(fmt.Sprintf("192.0.2.%d", i+1)), Source: addr("192.0.2.9")}}))
		}
	}
	for _, l := range c.Loops {
		if g.chance(30) {
			out = append(out, hop(vrf.NextHop{Device: pick(g, []string{l.Name, l.Peer}), IPv6: ipv6}))
		}
	}
	return out
}

// groups gives v one or two groups, a group of the blackhole when it has no hops.
func (g generator) groups(c *vrf.Config, v vrf.VRF, ipv6 bool, hops []vrf.NextHop) (ids []vrf.NextHopID) {
	black := vrf.NextHop{Blackhole: true, IPv6: ipv6}
	black.ID = vrf.NextHopIDFor(owner, black)
	for i := range 1 + g.IntN(2) {
		var grp vrf.Group
		if g.chance(40) {
			grp.Resilient = vrf.Resilient{Buckets: uint16(8 << g.IntN(2)), IdleTimer: time.Duration(g.IntN(3)) * time.Second}
		}
		grp.ID = vrf.GroupIDFor(owner, fmt.Sprintf("%s %v %d %d", v.Name, ipv6, i, grp.Resilient.Buckets))
		for _, n := range hops {
			if g.chance(70) {
				grp.Members = append(grp.Members, vrf.Member{ID: n.ID, Weight: uint16(1 + g.IntN(3))})
			}
		}
		if len(grp.Members) == 0 {
			grp.Members = []vrf.Member{{ID: black.ID, Weight: 1}}
			if !slices.Contains(c.NextHops, black) {
				c.NextHops = append(c.NextHops, black)
			}
		}
		c.Groups = append(c.Groups, grp)
		ids = append(ids, grp.ID)
	}
	return ids
}

// tamper does what administrators and cables do.
func (g generator) tamper(t *testing.T, k *vrftest.Kernel) {
	have := snapshot(t, k)
	for range g.IntN(6) {
		name := pick(g, have.Links).Name
		if l, _ := have.Link(name); slices.Contains([]string{"egret:tunnel", "egret:loop", "egret:loop-peer"}, l.Alias) {
			g.tamperTunnel(k, l)
			continue
		}
		switch g.IntN(9) {
		case 0:
			if name != "lo" && name[:3] == "eth" {
				k.SetUp(name, g.chance(50))
			}
		case 1:
			if name != "lo" && name[:3] == "eth" {
				k.SetCarrier(name, false)
				k.SetCarrier(name, true)
			}
		case 2:
			if l, _ := have.Link(name); owner.Alias+":port" == l.Alias || (l.Kind == "vrf" && name != "other") {
				k.DeleteLink(name)
			}
		case 3:
			if l, _ := have.Link(name); l.Master != "" {
				_ = k.SetMaster(name, "") // the device may be gone by now
			}
		default:
			g.tamperRouting(k, have)
		}
	}
}

func (g generator) tamperTunnel(k *vrftest.Kernel, l vrf.Link) {
	switch g.IntN(3) {
	case 0:
		k.DeleteLink(l.Name)
	case 1:
		k.SetUp(l.Name, false)
	case 2:
		_ = k.Do(vrf.SetMTU{Device: l.Name, MTU: 1300}) // it may be gone by now
	}
}

func (g generator) tamperRouting(k *vrftest.Kernel, have vrf.Snapshot) {
	if all := g.steps(have); len(all) > 0 {
		_ = k.Do(pick(g, all)) // what it needs may be gone by now
	}
}

// steps are things that somebody may do to what is ours.
func (g generator) steps(have vrf.Snapshot) (all []vrf.Action) {
	for _, n := range have.Config.NextHops {
		all = append(all, vrf.DeleteNextHop{ID: n.ID})
	}
	for _, grp := range have.Config.Groups {
		all = append(all, vrf.DeleteNextHop{ID: grp.ID, Group: true})
	}
	for _, r := range have.Config.Routes {
		all = append(all, vrf.DeleteRoute{Route: r})
	}
	for _, r := range have.Config.Rules {
		all = append(all, vrf.DeleteRule{Rule: r}, vrf.AddRule{Rule: r})
	}
	for _, v := range have.Config.VRFs {
		for _, p := range v.Ports {
			for _, a := range p.Addresses {
				all = append(all, vrf.DeleteAddress{Device: p.Name, Prefix: a})
			}
		}
	}
	return all
}
