package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/crd"
	"github.com/egret-router/egret/probes/echo"
)

func TestGatewayStates(t *testing.T) {
	here := []cluster.GatewayHere{
		{ID: "a/up@n1", Network: "red", Pool: "red-pool"}, {ID: "a/leaving@n1", Network: "red", Draining: true},
		{ID: "a/drained@n1", Network: "green"}, {ID: "a/down@n1", Network: "blue"}, {ID: "a/leaving-down@n1", Network: "blue", Draining: true}, {ID: "a/new@n1", Network: "violet"},
	}
	status := &egress.Status{
		Networks: []egress.NetworkStatus{{Name: "red", Phase: egress.PhaseUp}, {Name: "blue", Phase: egress.PhaseDown, Reason: "probe x is down"}, {Name: "green", Phase: egress.PhaseDraining}},
		Pools:    []egress.PoolStatus{{Name: "red-pool", Network: "red", Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/31")}}},
	}
	states, reports := gatewayStates(here, status, map[string]string{"red": "no password", "blue": "nor here"})
	if diff := cmp.Diff(map[string]echo.State{"a/up@n1": echo.Ready, "a/leaving@n1": echo.Draining, "a/drained@n1": echo.Draining,
		"a/down@n1": echo.Failed, "a/leaving-down@n1": echo.Failed, "a/new@n1": echo.Failed}, states); diff != "" {
		t.Error(diff)
	}
	if got := reports["a/up"]; got.State != crd.StateReady || !cmp.Equal(got.Addresses, []string{"198.51.100.0/31"}) || got.Message != "no password" {
		t.Errorf("%+v", got)
	}
	if got := reports["a/down"]; got.State != crd.StateFailed || got.Message != "probe x is down; nor here" {
		t.Errorf("%+v", got)
	}
	if states, reports := gatewayStates(here, nil, nil); len(states)+len(reports) != 0 {
		t.Errorf("before the first round: %v, %v", states, reports)
	}
}

func TestWritePasswords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "passwords")
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, files := range []map[string]string{{a: "one", b: "two"}, {a: "three"}, {a: "three"}, {}} {
		if err := writePasswords(dir, files); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(files) {
			t.Errorf("%v: %v, %v", files, entries, err)
		}
		for path, want := range files {
			text, err := os.ReadFile(path)
			info, _ := os.Stat(path)
			if err != nil || string(text) != want || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %q, %v, %v", path, text, info.Mode(), err)
			}
		}
	}
}

// TestGatewayFeed has a Snapshot become a Spec: the network of the node, the block
// of the pool, the pod as a client, and the ways back.
func TestGatewayFeed(t *testing.T) {
	dir := t.TempDir()
	var got *egress.Spec
	table := int64(returnTable)
	g := &gatewayFeed{log: slog.New(slog.DiscardHandler), flags: &nodeFlags{node: "gw", device: "egret-vx", loop: "egret-lo", vni: 4097}, set: func(s *egress.Spec) { got = s },
		options: cluster.GatewayOptions{Base: config.Raw{RunDir: dir}, Interfaces: []string{"egret-vx", "egret-lo0"}, ReturnTable: &table,
			PasswordDir: filepath.Join(dir, "passwords"), Mode: cluster.PerNamespaceOrPerPod}}
	g.deliver(clusterOfOne(), []cluster.Problem{{Kind: cluster.KindNetwork, Name: "red", Field: "spec.x", Message: "is wrong"}})
	if got == nil || len(got.Networks) != 1 || got.Networks[0].Name != "red" || len(got.Pools) != 1 || !got.Clients.DropUnmatched || got.Clients.ReturnTable != returnTable {
		t.Fatalf("%+v (%s)", got, g.said)
	}
	clients := 0
	for _, p := range got.Policies {
		clients += len(p.Clients)
	}
	if clients != 2 {
		t.Errorf("%d clients: %+v", clients, got.Policies)
	}
	want := map[string]string{"10.1.0.0/24": "192.0.2.1", "10.2.0.0/24": ""}
	for _, r := range got.Clients.Returns {
		end, known := want[r.Prefix.String()]
		if !known || end != "" && r.Tunnel.Endpoint.String() != end || end == "" && (r.Device != "egret-lo0" || r.Tunnel.Endpoint.IsValid()) {
			t.Errorf("return %+v", r)
		}
		delete(want, r.Prefix.String())
	}
	if len(want) > 0 {
		t.Errorf("no way back to %v", want)
	}
	text, err := os.ReadDir(g.options.PasswordDir)
	if err != nil || len(text) != 1 {
		t.Errorf("passwords: %v, %v", text, err)
	}
	if g.wrong["red"] != "network red: spec.x: is wrong" || g.said != "ExternalNetwork red: spec.x: is wrong" {
		t.Errorf("wrong: %v, said: %s", g.wrong, g.said)
	}
	if len(g.here) != 1 || g.here[0].ID != "egress/red@gw" {
		t.Errorf("here: %+v", g.here)
	}
}

func clusterOfOne() cluster.Snapshot {
	addr := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	asn, peer := int64(64512), int64(65001)
	bind := cluster.Binding{Selector: "all()", NamespaceSelector: "all()"}
	return cluster.Snapshot{
		Nodes: []cluster.Node{{Name: "gw", Addresses: addr("192.0.2.2"), PodPrefixes: prefix("10.2.0.0/24"), Ready: true},
			{Name: "worker", Addresses: addr("192.0.2.1"), PodPrefixes: prefix("10.1.0.0/24"), Ready: true}},
		Namespaces: []cluster.Namespace{{Name: "app", Binding: bind}, {Name: "egress"}},
		Pods: []cluster.Pod{{Namespace: "app", Name: "a", Node: "worker", Addresses: addr("10.1.0.5")},
			{Namespace: "app", Name: "b", Node: "gw", Addresses: addr("10.2.0.5")}, {Namespace: "egress", Name: "c", Node: "worker", Addresses: addr("10.1.0.6")}},
		Networks: []cluster.Network{{Name: "red", Raw: config.RawNetwork{Name: "red", BGP: &config.RawBGP{ASN: &asn, Peers: []config.RawPeer{{Address: "172.16.0.2", ASN: &peer, Import: []config.RawImport{{Prefix: "10.0.0.0/8"}}}}}},
			Hosts: []cluster.Host{{Interfaces: []config.RawInterface{{Name: "eth1", Addresses: []string{"172.16.0.1/30"}}}}}, Passwords: map[string]string{"172.16.0.2": "secret"}}},
		Pools: []cluster.Pool{{Name: "red-pool", Raw: config.RawPool{Name: "red-pool", Network: "red", Prefixes: []string{"198.51.100.0/28"}}, BlockSize4: 32, BlockSize6: 128,
			Allocations: []cluster.Allocation{{Block: netip.MustParsePrefix("198.51.100.3/32"), Gateway: "egress/red", Node: "gw", UID: "u"}}}},
		Gateways: []cluster.Gateway{{Namespace: "egress", Name: "red", UID: "u", Network: "red", Pool: "red-pool", Blocks: 1, Instances: []cluster.Instance{{Node: "gw"}}}},
	}
}
