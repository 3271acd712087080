package steer

import (
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/vrf"
)

// realEdges are those of a namespace. What uses them runs in its Do.
func realEdges(t *testing.T, ns *lab.NS) Edges {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	var e Edges
	err := ns.Do(func() error {
		kernel, err := vrf.Open(Owner(), log)
		if err != nil {
			return err
		}
		t.Cleanup(func() { kernel.Close() })
		conntrack, err := flows.Open(log)
		if err != nil {
			return err
		}
		t.Cleanup(func() { conntrack.Close() })
		filter, err := nat.OpenTable(TableName, log)
		e = Edges{Kernel: kernel, Filter: filter, Flows: conntrack, Sysctls: sysctl.Open("/proc/sys", filepath.Join(t.TempDir(), "sysctl.json"), log)}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestKernel takes a real kernel through the life of a node: what is decided can be had,
// is read back as it was written, and goes without a trace.
func TestKernel(t *testing.T) {
	lab.Require(t, lab.Nft)
	l := lab.New(t)
	ns, far := l.MustNamespace("node"), l.MustNamespace("far")
	l.MustLink(ns, "eth0", far, "eth0")
	ns.MustIP("addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0")
	before := ns.Must("ip", "-o", "rule")
	edges := realEdges(t, ns)

	here := node()
	here.Gateways[1].Here = true
	bounded := node()
	bounded.Policies[0].Rules[0].MaxNextHops, bounded.Policies[0].Rules[1].MaxNextHops = 1, 2
	bounded.Clients = append(bounded.Clients, Client{Address: addr("10.244.1.5"), Policy: "p"}, Client{Address: addr("fd00:244:1::5"), Policy: "p"})
	masked := node()
	masked.MarkMask = 0x40000fff
	odd := node()
	odd.Policies[0].Name, odd.Clients[0].Policy, odd.Clients[1].Policy = "ns/pod's \"policy\"", "ns/pod's \"policy\"", "gone"
	odd.Tunnel.MTU, odd.Tunnel.Port = 1300, 4791
	steps := []struct {
		name   string
		cfg    Config
		health map[string]Health
	}{
		{"all", node(), ready("a", "b", "c")},
		{"one lost", node(), ready("a", "c")},
		{"all lost", node(), map[string]Health{"a": Down, "b": Down, "c": Down}},
		{"here", here, ready("a", "b", "c")},
		{"bounded", bounded, ready("a", "b", "c")},
		{"bounded, one lost", bounded, ready("a", "c")},
		{"bounded, one returned", bounded, ready("a", "b", "c")},
		{"other names, MTU and port", odd, ready("a", "b", "c")},
		{"other marks", masked, ready("a", "b", "c")},
		{"nobody", Config{Tunnel: node().Tunnel}, nil},
		{"all again", node(), ready("a", "b", "c")},
	}
	for _, s := range steps {
		agent := New(slog.New(slog.DiscardHandler), edges) // each is a new process
		agent.SetConfig(s.cfg)
		agent.SetHealth(s.health)
		for i := range 2 {
			ops := agent.ops
			agent.dirty()
			if err := ns.Do(func() error { return agent.Round(t.Context()) }); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if i == 1 && agent.ops != ops {
				t.Fatalf("%s: the second round changed %d things", s.name, agent.ops-ops)
			}
		}
		want := agent.prev
		if got := Choices(agent.rules); !reflect.DeepEqual(got, Choices(want.Filter)) {
			t.Errorf("%s: the kernel has the choices %v, want %v", s.name, got, Choices(want.Filter))
		}
		got := Sets(agent.have)
		if len(got) != len(want.Sets) {
			t.Fatalf("%s: the kernel has %d sets, want %d", s.name, len(got), len(want.Sets))
		}
		for i, k := range got {
			if k.Number != want.Sets[i].Number || !slices.Equal(k.Markers, want.Sets[i].markers) || !sameHops(k.Hops, want.Sets[i].hops) {
				t.Errorf("%s: the kernel has %+v, want %+v", s.name, k, want.Sets[i])
			}
		}
	}
	if err := ns.Do(func() error { return Teardown(t.Context(), edges) }); err != nil {
		t.Fatal(err)
	}
	left := ns.Must("ip", "nexthop") + ns.Must("nft", "list", "tables") + strings.TrimPrefix(ns.Must("ip", "-o", "rule"), before)
	if links := strings.Count(ns.Must("ip", "-o", "link"), "\n"); strings.TrimSpace(left) != "" || links != 2 {
		t.Errorf("left: %d links, %q", links, left)
	}
}

// TestKernelCounters: the status has the counters of what is dropped.
func TestKernelCounters(t *testing.T) {
	lab.Require(t, lab.Nft)
	l := lab.New(t)
	ns := l.MustNamespace("node")
	edges := realEdges(t, ns)
	agent := New(slog.New(slog.DiscardHandler), edges)
	agent.SetConfig(node())
	if err := ns.Do(func() error { return agent.Round(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	drops := agent.Status().Drops
	for _, name := range []string{counterUnknown, counterBlocked, counterNothing, counterLost, counterLeak, counterInbound} {
		if c, ok := drops[name]; !ok || c.Reason != name {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
