package steer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/vrf"
)

// What a tunnel adds to a packet: IP, UDP and VXLAN-GPE headers.
const (
	overhead4 = 20 + 8 + 8
	overhead6 = 40 + 8 + 8

	defaultPort = 4790
	// defaultMTU is assumed of a link that is not known.
	defaultMTU = 1500
)

// PeerOf is the name of the other end of a loop: what is sent into the loop enters
// there, as by the tunnel.
func PeerOf(loop string) string { return loop + "0" }

// normal fills in what has a default and sorts what has no order.
func normal(cfg Config) Config {
	if cfg.Tunnel.Port == 0 {
		cfg.Tunnel.Port = defaultPort
	}
	cfg.Clients = slices.SortedFunc(slices.Values(cfg.Clients), func(a, b Client) int {
		return cmp.Or(a.Address.Compare(b.Address), strings.Compare(a.Policy, b.Policy), strings.Compare(a.Pod, b.Pod))
	})
	cfg.Policies = slices.SortedFunc(slices.Values(cfg.Policies), func(a, b Policy) int { return strings.Compare(a.Name, b.Name) })
	cfg.Gateways = slices.SortedStableFunc(slices.Values(cfg.Gateways), func(a, b Gateway) int { return strings.Compare(a.ID, b.ID) })
	return cfg
}

// tunnel works out the MTU: what the links of our ends of the tunnel allow.
func (d *decider) tunnel() {
	if d.cfg.Tunnel.MTU != 0 {
		return
	}
	mtu := 0
	for _, near := range d.cfg.Tunnel.Local {
		link := defaultMTU
		for _, l := range d.obs.Links {
			if slices.ContainsFunc(l.Addresses, func(a vrf.Address) bool { return a.Prefix.Addr() == near }) && l.Name != "lo" {
				link = l.MTU
			}
		}
		room := link - overhead6
		if near.Is4() {
			room = link - overhead4
		}
		if mtu == 0 || room < mtu {
			mtu = room
		}
	}
	if mtu == 0 {
		mtu = defaultMTU - overhead6
	}
	d.cfg.Tunnel.MTU = max(mtu, 1280) // the least that IPv6 works with
}

// routing is the devices, and for each set a mark, a table and a group of next hops in
// each family.
func (d *decider) routing(sets []Set) *madeRouting {
	t := d.cfg.Tunnel
	r := &madeRouting{tunnel: vrf.TunnelDevice{Name: t.Device, Port: t.Port, MTU: t.MTU}, loop: t.Loop, sets: sets,
		// Those of former masks are also what says that there are such flows.
		mask: vrf.Mark(d.marks.mask), caught: append([]uint32{d.marks.ours}, d.obs.Former...)}
	if d.memo.routing.same(r) {
		return d.memo.routing
	}
	r.config = routingOf(r)
	return r
}

func routingOf(r *madeRouting) vrf.Config {
	k := kernelBuilder{mask: r.mask, ids: vrf.NewAllocator(vrf.Snapshot{Owner: Owner()}), hops: map[vrf.NextHopID]bool{}}
	k.out.Tunnels = []vrf.TunnelDevice{r.tunnel}
	k.out.Loops = []vrf.Loop{{Name: r.loop, Peer: PeerOf(r.loop), MTU: r.tunnel.MTU}}
	for _, v6 := range []bool{false, true} {
		k.hop(vrf.NextHop{Blackhole: true, IPv6: v6}) // always there, so that a group can be closed in one message
		for _, bit := range r.caught {
			k.out.Rules = append(k.out.Rules, vrf.Rule{Priority: prioCatch, IPv6: v6, Mark: vrf.Mark(bit), Mask: vrf.Mark(bit), Action: vrf.RuleUnreachable})
		}
	}
	for _, s := range r.sets {
		k.set(s)
	}
	return k.out
}

type kernelBuilder struct {
	out  vrf.Config
	mask vrf.Mark
	ids  *vrf.Allocator
	hops map[vrf.NextHopID]bool
}

func (k *kernelBuilder) hop(h vrf.NextHop) vrf.NextHopID {
	h.ID = k.ids.NextHop(h)
	if !k.hops[h.ID] {
		k.hops[h.ID] = true
		k.out.NextHops = append(k.out.NextHops, h)
	}
	return h.ID
}

var defaults = [2]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

func (k *kernelBuilder) set(s Set) {
	table := tableBase + vrf.TableID(s.Number)
	for i, any := range defaults {
		g := groupOf(s, i == 1, k.hop)
		g.ID = k.ids.Group(groupKey(s, i == 1))
		k.out.Groups = append(k.out.Groups, g)
		k.out.Routes = append(k.out.Routes,
			vrf.Route{Table: table, Prefix: any, Metric: metricGroup, Type: vrf.Unicast, NextHop: g.ID},
			vrf.Route{Table: table, Prefix: any, Metric: metricTerminal, Type: vrf.Unreachable})
		k.out.Rules = append(k.out.Rules, vrf.Rule{Priority: prioLookup, IPv6: i == 1, Mark: vrf.Mark(s.Mark), Mask: k.mask,
			Action: vrf.RuleLookup, Table: table})
	}
	for _, m := range s.markers {
		k.out.Routes = append(k.out.Routes, vrf.Route{Table: table, Prefix: netip.PrefixFrom(m, 128), Metric: metricMarker, Type: vrf.Blackhole})
	}
}

// groupKey names a group. Its kind follows from the number of gateways that the set is
// of, and cannot change.
func groupKey(s Set, v6 bool) string {
	return fmt.Sprint("set ", s.Number, " ", v6, " ", bucketsOf(s))
}

// groupOf is a set's group, a blackhole while it has no gateway.
func groupOf(s Set, v6 bool, id func(vrf.NextHop) vrf.NextHopID) vrf.Group {
	g := vrf.Group{}
	if b := bucketsOf(s); b > 0 {
		// Only the flows of a lost gateway move. Gateways never come back into a
		// group, so the timer has no use but to be long.
		g.Resilient = vrf.Resilient{Buckets: b, IdleTimer: time.Hour}
	}
	hops := slices.SortedFunc(slices.Values(s.hops), func(a, b vrf.NextHop) int { return strings.Compare(a.String(), b.String()) })
	if len(hops) == 0 {
		hops = []vrf.NextHop{{Blackhole: true}}
	}
	for _, h := range hops {
		h.IPv6 = v6
		g.Members = append(g.Members, vrf.Member{ID: id(h), Weight: 1})
	}
	return g
}

// bucketsOf is the size of a set's hash tables: enough for an even load.
func bucketsOf(s Set) uint16 {
	if len(s.markers) <= 1 {
		return 0
	}
	n := 128
	for n < 16*len(s.markers) && n < 1<<14 {
		n *= 2
	}
	return uint16(n)
}

// sysctls are the kernel settings that steering needs. The hash is that of a gateway
// on the same node (see egress): addresses, protocol and ports, worked out by the
// kernel for each packet.
func (d *decider) sysctls() []sysctl.Setting {
	out := []sysctl.Setting{
		{Key: "net.ipv4.fib_multipath_hash_fields", Value: "55"},
		{Key: "net.ipv6.fib_multipath_hash_fields", Value: "55"},
		{Key: "net.ipv4.fib_multipath_hash_policy", Value: "3"},
		{Key: "net.ipv6.fib_multipath_hash_policy", Value: "3"},
		{Key: "net.ipv4.nexthop_compat_mode", Value: "0"},
	}
	t := d.cfg.Tunnel
	key := func(device string) string {
		return "net.ipv4.conf." + strings.ReplaceAll(device, ".", "/") + ".rp_filter"
	}
	// A device without an address fails a loose check as well (fib_validate_source), so
	// it has to be off, and the effective value is the maximum of "all" and the
	// device's. A gateway on this node sets the same. The packet filter looks instead
	// at what comes in by the tunnel.
	for _, device := range []string{"all", t.Device, t.Loop, PeerOf(t.Loop)} {
		out = append(out, sysctl.Setting{Key: key(device), Value: "0", Optional: device != "all"})
	}
	ipv6 := slices.ContainsFunc(d.cfg.Clients, func(c Client) bool { return c.Address.Is6() }) ||
		slices.ContainsFunc(d.cfg.Local, func(p netip.Prefix) bool { return p.Addr().Is6() })
	out = append(out, sysctl.Setting{Key: "net.ipv4.ip_forward", Value: "1"})
	if ipv6 {
		out = append(out, sysctl.Setting{Key: "net.ipv6.conf.all.forwarding", Value: "1"})
	}
	return out
}
