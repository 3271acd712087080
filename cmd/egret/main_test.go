package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/egret-router/egret/egress"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"egret": main})
}

// TestScripts runs the binary as a user calls it, without root's powers.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// TestStatusTable holds what `egret status` prints to a golden file; run with
// EGRET_UPDATE=1 to write it anew.
func TestStatusTable(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	status := &egress.Status{
		Version: "v0.1.0", Started: now.Add(-time.Hour),
		ProbeCost: &egress.ProbeCostStatus{Since: now.Add(-time.Hour), CPU: 3600 * time.Millisecond, Attempts: 180_000},
		Config:    egress.ConfigStatus{LoadedAt: now.Add(-time.Minute), Error: "egret.yaml:3: networks[0].bgp.asn: 0 is not allowed"},
		Round:     egress.RoundStatus{LastError: `kernel: network "blue": device "eth2" does not exist`},
		Networks: []egress.NetworkStatus{
			{Name: "blue", Phase: egress.PhaseError, Since: now.Add(-5 * time.Second), Table: 11552, Zone: 41552, Reason: `device "eth2" does not exist`,
				Ports: []egress.PortStatus{{Name: "eth2"}}},
			{Name: "red", Phase: egress.PhaseUp, Since: now.Add(-90 * time.Second), Table: 10102, Zone: 40102, StaticRoutes: 1, LearnedRoutes: 2, UnresolvedRoutes: 1, Stale: true,
				Drain: &egress.DrainStatus{Stage: "refusing", Since: now.Add(-20 * time.Second), Deadline: now.Add(280 * time.Second),
					Flows: 4, Counted: true, FlowsBegun: 9, FlowsEnded: 5, FlowsLeft: 4},
				Ports:    []egress.PortStatus{{Name: "eth1", Present: true, Up: true, Carrier: true}, {Name: "eth3", Present: true, Up: true}},
				NextHops: []egress.NextHopStatus{{Address: netip.MustParseAddr("172.16.0.2"), Device: "eth1", Live: true, Usable: true, Routes: 3, Paths: 1}, {Address: netip.MustParseAddr("192.0.2.1"), Reason: "on no connected prefix of the network"}},
				Paths: []egress.PathStatus{{Number: 77, Table: 10077, State: "active", Usable: true, NextHops: []netip.Addr{netip.MustParseAddr("172.16.0.2")},
					Spare: []netip.Addr{netip.MustParseAddr("172.16.0.3")}, Flows: 12}},
				Peers: []egress.PeerStatus{{Address: netip.MustParseAddr("172.16.0.2"), ASN: 65001, State: "established", Since: now.Add(-80 * time.Second), Received: 4, Accepted: 2, Advertised: 1, LastError: "connection closed by the peer"},
					{Address: netip.MustParseAddr("fd00:16::2"), ASN: 65001, State: "active", Since: now.Add(-2 * time.Second), ImportMissing: true, LastError: "hold timer expired"}},
				Probes: []egress.ProbeStatus{{Name: "red/icmp0", Verdict: "up", Since: now.Add(-80 * time.Second), PacketsPerSecond: 7.02,
					Targets: []egress.ProbeTargetStatus{{Target: "10.0.0.5", Verdict: "up", LastRTT: 1234 * time.Microsecond, Attempts: 100, Failures: 2}}},
					{Name: "red/icmp1", Verdict: "down", Since: now.Add(-8 * time.Second), PacketsPerSecond: 7.02,
						Targets: []egress.ProbeTargetStatus{{Target: "10.0.0.6", Verdict: "down", LastRTT: 1234 * time.Microsecond, Attempts: 50, Failures: 10, Suppressed: true}}},
					{Name: "red/bfd-nexthop@172.16.0.2", Verdict: "down", Since: now.Add(-3 * time.Second),
						Targets: []egress.ProbeTargetStatus{{Target: "172.16.0.2", Verdict: "down", LastError: "detection time expired"}},
						BFD: &egress.BFDStatus{State: "down", PeerState: "up", Diagnostic: "detection time expired", PeerDiagnostic: "none",
							TxInterval: time.Second, RxInterval: 300 * time.Millisecond, DetectTime: 900 * time.Millisecond, Ups: 2, Downs: 2}}}},
		},
		Pools: []egress.PoolStatus{{Name: "red-pool", Network: "red", Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")}, Addresses4: 16, Advertised: true, Stickiness: "client", Flows: 12},
			{Name: "blue-pool", Network: "blue", Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/28"), netip.MustParsePrefix("2001:db8::/124")}, Addresses4: 16, Addresses6: 16, Stickiness: "flow", Reason: "network blue is in error"}},
		Drops:    []egress.DropStatus{{Reason: "invalid", Packets: 3, Bytes: 180}, {Reason: "inbound"}, {Reason: "uplink_source", Network: "red", Packets: 1, Bytes: 60}},
		Problems: []string{"chain ip filter FORWARD has policy drop in forward"},
		Policies: []egress.PolicyStatus{{Name: "team-a", Clients: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Rules: []egress.RuleStatus{
			{Destination: netip.MustParsePrefix("10.0.0.0/8"), Action: egress.ActionNetwork, Network: "red", Pool: "red-pool", NextHops: []netip.Addr{netip.MustParseAddr("172.16.0.2"), netip.MustParseAddr("172.16.0.3")}, MaxNextHops: 1, Forwarding: true},
			{Destination: netip.MustParsePrefix("10.9.0.0/16"), Action: egress.ActionReject}}}},
	}
	var out bytes.Buffer
	if err := printStatus(&out, status, now); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "status.golden")
	if os.Getenv("EGRET_UPDATE") != "" {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("egret status (-want +got):\n%s", diff)
	}
}
