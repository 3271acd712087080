package metrics

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
)

func sample() *egress.Status {
	return &egress.Status{
		Version: "test", Started: time.Unix(1000, 0),
		Config: egress.ConfigStatus{LoadedAt: time.Unix(2000, 0), Error: "networks[0].name: is missing", Rejected: 3},
		Round:  egress.RoundStatus{Count: 7, Operations: 12, Repairs: 1, Errors: map[string]uint64{"kernel": 2}, LastDuration: time.Second, LastRepair: 20 * time.Millisecond},
		Networks: []egress.NetworkStatus{
			{Name: "red", Phase: egress.PhaseUp, StaticRoutes: 1, LearnedRoutes: 2, UnresolvedRoutes: 3,
				NextHops: []egress.NextHopStatus{{Address: netip.MustParseAddr("172.16.0.2"), Device: "eth1", Live: true, Routes: 3}},
				Peers:    []egress.PeerStatus{{Address: netip.MustParseAddr("172.16.0.2"), State: "established", Received: 4, Accepted: 2, Advertised: 1, Flaps: 5}},
				Probes: []egress.ProbeStatus{{Name: "red/icmp0", Verdict: "up",
					Targets: []egress.ProbeTargetStatus{{Target: "10.0.0.5", LastRTT: time.Millisecond, Attempts: 9, Failures: 1}}},
					{Name: "red/bfd-nexthop@172.16.0.2", Verdict: "up", Targets: []egress.ProbeTargetStatus{{Target: "172.16.0.2"}},
						BFD: &egress.BFDStatus{State: "up", DetectTime: 900 * time.Millisecond, In: 3, Out: 4, Refused: 1, Downs: 2}}}},
			{Name: "blue", Phase: egress.PhaseDown},
			{Name: "green", Phase: egress.PhaseDraining, Drain: &egress.DrainStatus{Stage: drain.Refusing, Flows: 7, Deadline: time.Unix(3000, 0)}},
		},
		Pools:     []egress.PoolStatus{{Name: "red-pool", Network: "red", Addresses4: 16, Addresses6: 4, Advertised: true}},
		ClientBGP: &egress.ClientBGPStatus{Peers: []egress.PeerStatus{{Address: netip.MustParseAddr("10.244.0.1"), State: "idle"}}},
		Timings:   []egress.Timing{{Network: "red", Stage: "detection", Counts: make([]uint64, len(egress.TimingBounds())+1)}},
		ProbeCost: &egress.ProbeCostStatus{CPU: time.Second, Attempts: 100},
		Conntrack: &egress.ConntrackStatus{Flows: 10, MaxFlows: 100, InsertFailed: 1},
		Drops:     []egress.DropStatus{{Reason: "invalid", Packets: 3, Bytes: 180}, {Reason: "uplink_source", Network: "red", Packets: 1, Bytes: 60}},
		Policies: []egress.PolicyStatus{{Name: "team-a", Rules: []egress.RuleStatus{
			{Action: egress.ActionNetwork, Forwarding: true}, {Action: egress.ActionNetwork}}}},
	}
}

// TestMetricsLint holds names, units and help texts to Prometheus' conventions.
func TestMetricsLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(Registry(sample))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestEveryMetricIsShown proves that the sample exercises every metric and that
// a scrape agrees with what Describe promised (the registry is pedantic).
func TestEveryMetricIsShown(t *testing.T) {
	reg := Registry(sample)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, f := range families {
		if len(f.GetName()) > 6 && f.GetName()[:6] == "egret_" {
			ours++
		}
	}
	if ours != len(allDescriptions) {
		t.Errorf("%d metrics in a scrape, %d described", ours, len(allDescriptions))
	}
}

func TestMetricValues(t *testing.T) {
	for name, want := range map[string]int{
		"egret_network_up": 3, "egret_network_drain": 9, "egret_network_drain_flows": 1, "egret_pool_addresses": 2, "egret_policy_rules": 2, "egret_bgp_prefixes": 6, "egret_network_routes": 9, "egret_dropped_packets_total": 2,
		"egret_probe_up": 2, "egret_probe_attempts_total": 1, "egret_bfd_session_up": 1, "egret_bfd_packets_total": 3,
	} {
		if n, err := testutil.GatherAndCount(Registry(sample), name); err != nil || n != want {
			t.Errorf("%s: %d series (%v), want %d", name, n, err, want)
		}
	}
}

// TestDrainValues: which stage it is, and that a drained network is not one that
// does not work.
func TestDrainValues(t *testing.T) {
	want := `# HELP egret_network_drain 1 for the stage that the network's drain is in (lowered, refusing, withdrawn), all 0 without one.
# TYPE egret_network_drain gauge
egret_network_drain{network="blue",stage="lowered"} 0
egret_network_drain{network="blue",stage="refusing"} 0
egret_network_drain{network="blue",stage="withdrawn"} 0
egret_network_drain{network="green",stage="lowered"} 0
egret_network_drain{network="green",stage="refusing"} 1
egret_network_drain{network="green",stage="withdrawn"} 0
egret_network_drain{network="red",stage="lowered"} 0
egret_network_drain{network="red",stage="refusing"} 0
egret_network_drain{network="red",stage="withdrawn"} 0
# HELP egret_network_drain_deadline_timestamp_seconds When the pools of a drained network are withdrawn at the latest.
# TYPE egret_network_drain_deadline_timestamp_seconds gauge
egret_network_drain_deadline_timestamp_seconds{network="green"} 3000
# HELP egret_network_drain_flows Flows that a drained network has left, closed connections not among them.
# TYPE egret_network_drain_flows gauge
egret_network_drain_flows{network="green"} 7
# HELP egret_network_up 1 when the network works, also while it is drained.
# TYPE egret_network_up gauge
egret_network_up{network="blue"} 0
egret_network_up{network="green"} 1
egret_network_up{network="red"} 1
`
	if err := testutil.GatherAndCompare(Registry(sample), strings.NewReader(want), "egret_network_drain", "egret_network_drain_flows",
		"egret_network_drain_deadline_timestamp_seconds", "egret_network_up"); err != nil {
		t.Error(err)
	}
}

// TestBeforeTheFirstRound: a scrape before there is a status is not an error.
func TestBeforeTheFirstRound(t *testing.T) {
	if _, err := Registry(func() *egress.Status { return nil }).Gather(); err != nil {
		t.Fatal(err)
	}
}
