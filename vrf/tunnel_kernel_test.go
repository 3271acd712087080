package vrf

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// tunnelEnd is a node with a tunnel and a host behind it.
type tunnelEnd struct {
	node, host *lab.NS
	kernel     *Kernel
}

// TestTunnels has two nodes carry IPv4 and IPv6 between their hosts through a
// tunnel over IPv4 and over IPv6, by next hops in groups of both kinds, and
// through a loop.
func TestTunnels(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t)
	t1, t2 := newTunnelEnd(t, l, 1), newTunnelEnd(t, l, 2)
	l.MustLink(t1.node, "u0", t2.node, "u0")
	for i, e := range []*tunnelEnd{t1, t2} {
		e.node.MustIP(fmt.Sprintf("addr add 192.0.2.%d/24 dev u0", i+1), fmt.Sprintf("addr add 2001:db8::%d/64 dev u0 nodad", i+1))
	}
	devices := Tunnels{Device: "egret-vx", Port: 4790, LoopOut: "egret-out", LoopIn: "egret-in", MTU: 1400}
	for i, e := range []*tunnelEnd{t1, t2} {
		if changed, err := e.kernel.EnsureTunnels(devices); err != nil || !changed {
			t.Fatalf("end %d: changed %t, %v", i+1, changed, err)
		}
		if changed, err := e.kernel.EnsureTunnels(devices); err != nil || changed {
			t.Fatalf("end %d, again: changed %t, %v", i+1, changed, err)
		}
		for _, dev := range []string{"egret-vx", "egret-in"} {
			e.node.Must("sysctl", "-qw", "net.ipv4.conf."+dev+".rp_filter=0")
		}
	}
	for name, endpoints := range map[string][2]string{"IPv4": {"192.0.2.1", "192.0.2.2"}, "IPv6": {"2001:db8::1", "2001:db8::2"}} {
		t.Run("over "+name, func(t *testing.T) {
			t1.routes(t, 2, endpoints[1], "egret-vx")
			t2.routes(t, 1, endpoints[0], "egret-vx")
			t1.pings(t, 2)
		})
	}
	t.Run("loop", func(t *testing.T) {
		// What the host sends is looked up in table 20001, and comes in again by the
		// loop, where a rule of nobody's sends it on.
		t1.routes(t, 2, "", "egret-out")
		t1.node.Must("ip", "rule", "add", "pref", "90", "iif", "egret-in", "lookup", "77")
		t1.node.Must("ip", "-6", "rule", "add", "pref", "90", "iif", "egret-in", "lookup", "77")
		t1.node.Must("ip", "route", "add", "10.2.0.0/24", "via", "192.0.2.2", "table", "77")
		t1.node.Must("ip", "-6", "route", "add", "fd02::/64", "via", "2001:db8::2", "table", "77")
		t1.pings(t, 2)
	})
	t.Run("foreign", func(t *testing.T) {
		t1.node.Must("ip", "link", "set", "egret-vx", "alias", "theirs")
		if _, err := t1.kernel.EnsureTunnels(devices); err == nil || !strings.Contains(err.Error(), "not ours") {
			t.Errorf("a device of somebody else: %v", err)
		}
		if err := t1.kernel.RemoveTunnels(devices); err == nil {
			t.Error("a device of somebody else was removed")
		}
		if err := t2.kernel.RemoveTunnels(devices); err != nil {
			t.Error(err)
		}
		if out := t2.node.Must("ip", "-br", "link"); strings.Contains(out, "egret-") {
			t.Errorf("left: %s", out)
		}
	})
}

func newTunnelEnd(t *testing.T, l *lab.Lab, i int) *tunnelEnd {
	t.Helper()
	e := &tunnelEnd{node: l.MustNamespace(fmt.Sprint("node", i)), host: l.MustNamespace(fmt.Sprint("host", i))}
	e.node.Must("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
	l.MustLink(e.host, "eth0", e.node, "h0")
	e.node.MustIP(fmt.Sprintf("addr add 10.%d.0.1/24 dev h0", i), fmt.Sprintf("addr add fd0%d::1/64 dev h0 nodad", i))
	e.host.MustIP(fmt.Sprintf("addr add 10.%d.0.2/24 dev eth0", i), fmt.Sprintf("addr add fd0%d::2/64 dev eth0 nodad", i),
		fmt.Sprintf("route add 0.0.0.0/0 via 10.%d.0.1", i), fmt.Sprintf("route add ::/0 via fd0%d::1", i))
	err := e.node.Do(func() (err error) {
		e.kernel, err = Open(tunnelOwner(), slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.kernel.Close() })
	return e
}

func tunnelOwner() Owner {
	return Owner{Alias: "egret-agent", Protocol: 107, LearnedProtocol: 106, NextHopIDs: Range{0x10000000, 0x1fffffff}, RulePriorities: Range{600, 799}}
}

// routes makes a plan's routes to the other end's hosts in a table that everything
// is looked up in before main, and applies it twice.
func (e *tunnelEnd) routes(t *testing.T, other int, endpoint, device string) {
	t.Helper()
	var want Config
	for i, prefix := range []string{fmt.Sprintf("10.%d.0.0/24", other), fmt.Sprintf("fd0%d::/64", other)} {
		hop := NextHop{Device: device, IPv6: i == 1}
		if endpoint != "" {
			hop.Tunnel = Encap{Endpoint: netip.MustParseAddr(endpoint), ID: 4097}
		}
		hop.ID = NextHopIDFor(tunnelOwner(), hop)
		group := Group{ID: GroupIDFor(tunnelOwner(), fmt.Sprint(prefix, endpoint, device)), Members: []Member{{ID: hop.ID, Weight: 1}}}
		if i == 0 {
			group.Resilient = Resilient{Buckets: 8}
		}
		want.NextHops, want.Groups = append(want.NextHops, hop), append(want.Groups, group)
		want.Routes = append(want.Routes, Route{Table: 20001, Prefix: netip.MustParsePrefix(prefix), Metric: 10, Type: Unicast, NextHop: group.ID})
		want.Rules = append(want.Rules, Rule{Priority: 600, IPv6: i == 1, Action: RuleLookup, Table: 20001})
	}
	have, err := e.kernel.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan := Diff(have, want)
	if res := e.kernel.Apply(t.Context(), plan); res.Err() != nil || len(plan.Errors) > 0 {
		t.Fatalf("%v, %v:\n%s", res.Err(), plan.Errors, plan)
	}
	if have, err = e.kernel.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := Diff(have, want); !again.Empty() {
		t.Fatalf("left to do:\n%s", again)
	}
}

func (e *tunnelEnd) pings(t *testing.T, other int) {
	t.Helper()
	for _, a := range []string{fmt.Sprintf("10.%d.0.2", other), fmt.Sprintf("fd0%d::2", other)} {
		lab.Eventually(t, time.Minute, "an answer of "+a, func() error {
			_, err := e.host.Run("ping", "-c", "1", "-W", "1", a)
			return err
		})
	}
}
