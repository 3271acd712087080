// Package metrics shows egress.Status as Prometheus metrics. It has a registry
// of its own; labels are names of the user's objects and of peers, which the
// configuration bounds.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
)

// Registry returns a registry with the metrics of status, Go and the process.
func Registry(status func() *egress.Status) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{status: status})
	return r
}

// Serve answers GET /metrics on the address until ctx ends.
func Serve(ctx context.Context, address string, reg *prometheus.Registry, log *slog.Logger) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for metrics on %q: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second}))
	srv := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics on %q: %w", address, err)
	}
	return nil
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("egret_"+name, help, labels, nil)
}

// The metrics, each once.
var (
	buildInfo       = desc("build_info", "Always 1; the version is the label.", "version")
	configLoaded    = desc("config_loaded_timestamp_seconds", "When the running configuration was loaded.")
	configOK        = desc("config_last_reload_successful", "1 when the file's current content runs, 0 when it was refused.")
	configRejected  = desc("config_rejected_total", "Reloads refused.")
	rounds          = desc("rounds_total", "Rounds of the loop.")
	roundErrors     = desc("round_errors_total", "Errors of rounds by step.", "step")
	roundDuration   = desc("round_last_duration_seconds", "Duration of the last round.")
	operations      = desc("kernel_operations_total", "Changes made to the kernel.")
	repairs         = desc("drift_repairs_total", "Rounds that repaired what somebody else changed.")
	repairDuration  = desc("drift_last_repair_seconds", "Time from the first kernel event to the end of the last repair.")
	networkUp       = desc("network_up", "1 when the network works, also while it is drained.", "network")
	networkDrain    = desc("network_drain", "1 for the stage that the network's drain is in (lowered, refusing, withdrawn), all 0 without one.", "network", "stage")
	drainFlows      = desc("network_drain_flows", "Flows that a drained network has left, closed connections not among them.", "network")
	drainDeadline   = desc("network_drain_deadline_timestamp_seconds", "When the pools of a drained network are withdrawn at the latest.", "network")
	networkRoutes   = desc("network_routes", "Routes in the network's table by origin (static, learned, unresolved).", "network", "origin")
	nextHopLive     = desc("next_hop_live", "1 when the next hop can be used.", "network", "next_hop", "device")
	nextHopRoutes   = desc("next_hop_routes", "Routes through the next hop.", "network", "next_hop", "device")
	peerUp          = desc("bgp_session_established", "1 when the session is established.", "network", "peer")
	peerPrefixes    = desc("bgp_prefixes", "Prefixes by direction (received, accepted, advertised).", "network", "peer", "direction")
	peerFlaps       = desc("bgp_session_flaps_total", "Times the session left established.", "network", "peer")
	peerShutdown    = desc("bgp_session_shutdown", "1 while the configuration keeps the session down.", "network", "peer")
	peerWarning     = desc("bgp_session_warning", "1 while egret bgp peers has a warning about the session.", "network", "peer")
	peerSince       = desc("bgp_session_state_timestamp_seconds", "When the session came into its state.", "network", "peer")
	probeUp         = desc("probe_up", "1 up, 0 down or without a verdict yet.", "network", "probe")
	probeAttempts   = desc("probe_attempts_total", "Attempts by target.", "network", "probe", "target")
	probeFailures   = desc("probe_failures_total", "Failed attempts by target.", "network", "probe", "target")
	probeRTT        = desc("probe_last_rtt_seconds", "Duration of the last successful attempt.", "network", "probe", "target")
	probePackets    = desc("probe_packets_per_second", "Packets that the probe sends and receives while its targets answer.", "network", "probe")
	probeCPU        = desc("probe_cpu_seconds_total", "Processor time of icmp and arp-nd probes, with the kernel's part.")
	probeTried      = desc("probe_packet_attempts_total", "Attempts of icmp and arp-nd probes, which that time is for.")
	bfdUp           = desc("bfd_session_up", "1 when the BFD session is up.", "network", "probe")
	bfdDetect       = desc("bfd_detect_time_seconds", "Time without a packet after which the BFD session is down; 0 before the peer was heard.", "network", "probe")
	bfdDowns        = desc("bfd_session_downs_total", "Times the BFD session left up.", "network", "probe")
	failoverSeconds = desc("failover_seconds", "How long the stages of failovers took: detection (first sign to verdict), kernel (verdict until the kernel no longer used what failed), withdraw (verdict until BGP was told).", "network", "stage")
	clientPrefixes  = desc("client_bgp_prefixes", "Destinations that the clients' routers are told of, or not while they lead nowhere (advertised, withheld).", "state")
	bfdPackets      = desc("bfd_packets_total", "BFD packets by what became of them (in, out, refused).", "network", "probe", "direction")
	poolAdvertised  = desc("pool_advertised", "1 when all prefixes of the pool are advertised.", "network", "pool")
	poolAddresses   = desc("pool_addresses", "Addresses clients are spread over.", "network", "pool", "family")
	drops           = desc("dropped_packets_total", "Packets the packet filter discarded, by reason; network is empty where the reason belongs to none.", "reason", "network")
	droppedBytes    = desc("dropped_bytes_total", "Bytes of these packets.", "reason", "network")
	environment     = desc("environment_problems", "What others do in this kernel that could hurt our traffic; egret status names it.")
	nextHopUsable   = desc("next_hop_usable", "1 when the next hop may carry traffic: its device has carrier and its probes are up.", "network", "next_hop", "device")
	paths           = desc("paths", "Choices of next hops by state (active, draining, exhausted).", "network", "state")
	poolFlows       = desc("pool_flows", "Flows with an address of the pool when they were last counted.", "network", "pool")
	poolPorts       = desc("pool_ports_used_ratio", "Share of the ports that the fullest address of the pool has taken towards one destination.", "network", "pool")
	conntrackFlows  = desc("conntrack_flows", "Entries in connection tracking.")
	conntrackMax    = desc("conntrack_max_flows", "Entries that connection tracking has room for.")
	conntrackFailed = desc("conntrack_failures_total", "Packets lost in connection tracking by reason (no_port, table_full), and flows ended to make room (early_drop).", "reason")
	policyForwards  = desc("policy_rules", "Rules of the policy by state (forwarding, blocked).", "policy", "state")
	allDescriptions = []*prometheus.Desc{buildInfo, configLoaded, configOK, configRejected, rounds, roundErrors, roundDuration,
		operations, repairs, repairDuration, networkUp, networkDrain, drainFlows, drainDeadline, networkRoutes, nextHopLive, nextHopRoutes, peerUp, peerPrefixes, peerFlaps, peerShutdown, peerWarning, peerSince,
		probeUp, probeAttempts, probeFailures, probeRTT, poolAdvertised, poolAddresses, drops, droppedBytes, environment, policyForwards,
		nextHopUsable, paths, poolFlows, poolPorts, conntrackFlows, conntrackMax, conntrackFailed,
		bfdUp, bfdDetect, bfdDowns, bfdPackets, failoverSeconds, clientPrefixes, probePackets, probeCPU, probeTried}
)

// collector makes metrics of the current status at each scrape.
type collector struct{ status func() *egress.Status }

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allDescriptions {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	if s == nil {
		return
	}
	e := emitter{ch}
	e.gauge(buildInfo, 1, s.Version)
	e.gauge(configLoaded, float64(s.Config.LoadedAt.UnixNano())/1e9)
	e.gauge(configOK, truth(s.Config.Error == ""))
	e.counter(configRejected, float64(s.Config.Rejected))
	e.counter(rounds, float64(s.Round.Count))
	for step, n := range s.Round.Errors {
		e.counter(roundErrors, float64(n), step)
	}
	e.gauge(roundDuration, s.Round.LastDuration.Seconds())
	e.counter(operations, float64(s.Round.Operations))
	e.counter(repairs, float64(s.Round.Repairs))
	e.gauge(repairDuration, s.Round.LastRepair.Seconds())
	for i := range s.Networks {
		e.network(&s.Networks[i])
	}
	if c := s.ClientBGP; c != nil {
		e.peers(egress.ClientsNetwork, c.Peers)
		e.probes(egress.ClientsNetwork, c.BFD)
		e.gauge(clientPrefixes, float64(len(c.Advertised)), "advertised")
		e.gauge(clientPrefixes, float64(len(c.Withheld)), "withheld")
	}
	if c := s.ProbeCost; c != nil {
		e.counter(probeCPU, c.CPU.Seconds())
		e.counter(probeTried, float64(c.Attempts))
	}
	for _, t := range s.Timings {
		e.timing(t)
	}
	for _, p := range s.Pools {
		e.gauge(poolAdvertised, truth(p.Advertised), p.Network, p.Name)
		e.gauge(poolAddresses, float64(p.Addresses4), p.Network, p.Name, "ipv4")
		e.gauge(poolAddresses, float64(p.Addresses6), p.Network, p.Name, "ipv6")
		e.gauge(poolFlows, float64(p.Flows), p.Network, p.Name)
		e.gauge(poolPorts, float64(p.PortsUsed)/float64(max(p.PortsMax, 1)), p.Network, p.Name)
	}
	if c := s.Conntrack; c != nil {
		e.gauge(conntrackFlows, float64(c.Flows))
		e.gauge(conntrackMax, float64(c.MaxFlows))
		e.counter(conntrackFailed, float64(c.InsertFailed), "no_port")
		e.counter(conntrackFailed, float64(c.Drop), "table_full")
		e.counter(conntrackFailed, float64(c.EarlyDrop), "early_drop")
	}
	for _, d := range s.Drops {
		e.counter(drops, float64(d.Packets), d.Reason, d.Network)
		e.counter(droppedBytes, float64(d.Bytes), d.Reason, d.Network)
	}
	e.gauge(environment, float64(len(s.Problems)))
	for _, p := range s.Policies {
		n := map[bool]int{}
		for _, r := range p.Rules {
			n[r.Forwarding]++
		}
		e.gauge(policyForwards, float64(n[true]), p.Name, "forwarding")
		e.gauge(policyForwards, float64(n[false]), p.Name, "blocked")
	}
}

type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (e emitter) counter(d *prometheus.Desc, v float64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (e emitter) timing(t egress.Timing) {
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, bound := range egress.TimingBounds() {
		total += t.Counts[i]
		buckets[bound.Seconds()] = total
	}
	total += t.Counts[len(t.Counts)-1]
	e.ch <- prometheus.MustNewConstHistogram(failoverSeconds, total, t.Sum.Seconds(), buckets, t.Network, t.Stage)
}

func (e emitter) network(n *egress.NetworkStatus) {
	e.gauge(networkUp, truth(n.Phase == egress.PhaseUp || n.Phase == egress.PhaseDraining), n.Name)
	for _, stage := range []drain.Stage{drain.Lowered, drain.Refusing, drain.Withdrawn} {
		e.gauge(networkDrain, truth(n.Drain != nil && n.Drain.Stage == stage), n.Name, string(stage))
	}
	if d := n.Drain; d != nil {
		e.gauge(drainFlows, float64(d.Flows), n.Name)
		e.gauge(drainDeadline, float64(d.Deadline.UnixNano())/1e9, n.Name)
	}
	e.gauge(networkRoutes, float64(n.StaticRoutes), n.Name, "static")
	e.gauge(networkRoutes, float64(n.LearnedRoutes), n.Name, "learned")
	e.gauge(networkRoutes, float64(n.UnresolvedRoutes), n.Name, "unresolved")
	for _, h := range n.NextHops {
		e.gauge(nextHopLive, truth(h.Live), n.Name, h.Address.String(), h.Device)
		e.gauge(nextHopUsable, truth(h.Usable), n.Name, h.Address.String(), h.Device)
		e.gauge(nextHopRoutes, float64(h.Routes), n.Name, h.Address.String(), h.Device)
	}
	states := map[string]int{}
	for _, p := range n.Paths {
		states[p.State]++
	}
	e.gauge(paths, float64(states["active"]), n.Name, "active")
	e.gauge(paths, float64(states["draining"]), n.Name, "draining")
	e.gauge(paths, float64(n.Exhausted), n.Name, "exhausted")
	e.peers(n.Name, n.Peers)
	e.probes(n.Name, n.Probes)
}

func (e emitter) peers(network string, peers []egress.PeerStatus) {
	for _, p := range peers {
		peer := p.Address.String()
		e.gauge(peerUp, truth(p.State == "established"), network, peer)
		e.gauge(peerPrefixes, float64(p.Received), network, peer, "received")
		e.gauge(peerPrefixes, float64(p.Accepted), network, peer, "accepted")
		e.gauge(peerPrefixes, float64(p.Advertised), network, peer, "advertised")
		e.counter(peerFlaps, float64(p.Flaps), network, peer)
		e.gauge(peerShutdown, truth(p.Shutdown), network, peer)
		e.gauge(peerWarning, truth(p.Warning != ""), network, peer)
		e.gauge(peerSince, float64(p.Since.UnixNano())/1e9, network, peer)
	}
}

func (e emitter) probes(network string, probes []egress.ProbeStatus) {
	for _, p := range probes {
		e.gauge(probeUp, truth(p.Verdict == "up"), network, p.Name)
		if p.BFD != nil {
			e.session(network, p.Name, p.BFD)
			continue
		}
		e.gauge(probePackets, p.PacketsPerSecond, network, p.Name)
		for _, t := range p.Targets {
			e.counter(probeAttempts, float64(t.Attempts), network, p.Name, t.Target)
			e.counter(probeFailures, float64(t.Failures), network, p.Name, t.Target)
			e.gauge(probeRTT, t.LastRTT.Seconds(), network, p.Name, t.Target)
		}
	}
}

func (e emitter) session(network, probe string, b *egress.BFDStatus) {
	e.gauge(bfdUp, truth(b.State == "up" && !b.Stale), network, probe)
	e.gauge(bfdDetect, b.DetectTime.Seconds(), network, probe)
	e.counter(bfdDowns, float64(b.Downs), network, probe)
	e.counter(bfdPackets, float64(b.In), network, probe, "in")
	e.counter(bfdPackets, float64(b.Out), network, probe, "out")
	e.counter(bfdPackets, float64(b.Refused), network, probe, "refused")
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
