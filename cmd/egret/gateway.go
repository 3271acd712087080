package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/crd"
	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/probes/echo"
	"github.com/egret-router/egret/vrf"
)

// nodeFlags are those of the roles that run on nodes.
type nodeFlags struct {
	clusterFlags
	node, runDir, stateDir, device, loop string
	port, echoPort                       uint16
	vni                                  uint32
}

func (f *nodeFlags) add(cmd *cobra.Command, runDir string) {
	f.clusterFlags.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.node, "node", os.Getenv("NODE_NAME"), "name of this node")
	flags.StringVar(&f.runDir, "run-dir", runDir, "directory of sockets and records")
	flags.StringVar(&f.stateDir, "state-dir", "/var/lib/egret", "directory that outlives a reboot: the cluster as it was seen last")
	flags.StringVar(&f.device, "tunnel-device", "egret-vx", "the tunnel device, the same on all nodes")
	flags.StringVar(&f.loop, "loop-device", "egret-lo", "the way from pods of this node to a gateway on it")
	flags.Uint16Var(&f.port, "tunnel-port", 4790, "UDP port of the tunnel (VXLAN-GPE)")
	flags.Uint32Var(&f.vni, "tunnel-vni", 4097, "network identifier of the tunnel")
	flags.Uint16Var(&f.echoPort, "health-port", echo.DefaultPort, "UDP port at which gateways tell how they are")
}

func (f *nodeFlags) check() error {
	switch {
	case f.node == "":
		return errors.New("--node (or NODE_NAME) is missing: the name of this node")
	case !filepath.IsAbs(f.runDir) || !filepath.IsAbs(f.stateDir):
		return errors.New("--run-dir and --state-dir are absolute paths")
	case f.vni == 0 || f.vni >= 1<<24:
		return fmt.Errorf("--tunnel-vni %d is not 1 to 16777215", f.vni)
	}
	return os.MkdirAll(f.stateDir, 0o700)
}

// returnTable leads back to clients through the tunnel. It is beside the tables
// of networks and paths, which begin after tableBase.
const returnTable = 9999

func gatewayCommand() *cobra.Command {
	var flags nodeFlags
	var listen string
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run the gateways that a Kubernetes cluster has on this node",
		Long: `Gateway serves the networks, pools and policies that the cluster's objects give this node, as egret run serves those of a file.
Without an API server it goes on with what it saw last, also over a restart.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.logger()
			if err != nil {
				return err
			}
			if err := flags.check(); err != nil {
				return err
			}
			client, mode, err := flags.connect("gateway", log)
			if err != nil {
				return err
			}
			return runGateway(cmd.Context(), client, mode, &flags, listen, log)
		},
	}
	flags.add(cmd, config.DefaultRunDir)
	cmd.Flags().StringVar(&listen, "metrics-listen", ":9643", "address of the Prometheus endpoint; empty is off")
	logs.add(cmd)
	return cmd
}

func runGateway(parent context.Context, client *crd.Client, mode cluster.Mode, flags *nodeFlags, listen string, log *slog.Logger) error {
	table := int64(returnTable)
	g := &gatewayFeed{log: log, flags: flags, set: nil, options: cluster.GatewayOptions{
		Base: config.Raw{RunDir: flags.runDir, Metrics: config.RawMetrics{Listen: &listen}}, Interfaces: []string{flags.device, steer.PeerOf(flags.loop)},
		ReturnTable: &table, PasswordDir: filepath.Join(flags.runDir, "passwords"), Mode: mode, Memo: new(cluster.Memo)}}
	base, problems := config.Parse(g.options.Base)
	if len(problems) > 0 {
		return fmt.Errorf("settings: %s", problems[0])
	}
	d, err := newDaemon(base.Settings, log)
	if err != nil {
		return err
	}
	reporter := crd.NewReporter(client, flags.node, log)
	g.set = d.router.SetSpec
	source := crd.NewSource(client, crd.SourceOptions{Role: crd.RoleGateway, Node: flags.node, Namespace: flags.namespace,
		StateFile: filepath.Join(flags.stateDir, "gateway.json"), Log: log, Deliver: func(v crd.View) { reporter.Deliver(v); g.deliver(v.Snapshot, v.Problems) }})
	log.Info("gateway starts", "version", buildVersion(), "node", flags.node)
	return d.run(parent, false, source.Run, reporter.Run, func(ctx context.Context) error { return g.tell(ctx, d.router, reporter) })
}

// gatewayFeed makes Specs of Snapshots, and tells how the gateways here are.
type gatewayFeed struct {
	log     *slog.Logger
	flags   *nodeFlags
	options cluster.GatewayOptions
	set     func(*egress.Spec)
	said    string // the problems that were logged last

	mu   sync.Mutex
	here []cluster.GatewayHere
	ends []netip.Addr
	// wrong is what only nodes can know to be wrong with a network, by name: a
	// password that is missing.
	wrong map[string]string
}

// deliver takes a Snapshot, and what is wrong with objects beside it, which concerns
// these alone; a password that cannot be written keeps what runs.
func (g *gatewayFeed) deliver(s cluster.Snapshot, beside []cluster.Problem) {
	plan, problems := cluster.GatewayConfig(s, g.flags.node, g.options)
	problems = append(problems, beside...)
	wrong := map[string]string{}
	for _, p := range beside {
		if p.Kind == cluster.KindNetwork && wrong[p.Name] == "" {
			wrong[p.Name] = "network " + p.Name + ": " + p.Field + ": " + p.Message
		}
	}
	var text []string
	for _, p := range problems {
		text = append(text, p.String())
	}
	if said := strings.Join(text, "\n"); said != g.said {
		g.said = said
		g.log.Warn("objects with problems", "count", len(text), "problems", said)
	}
	if err := writePasswords(g.options.PasswordDir, plan.Files); err != nil {
		g.log.Error("passwords are not in place; what runs stays", "err", err)
		return
	}
	spec := plan.Spec
	spec.Clients.Returns = g.returns(plan.Returns)
	g.mu.Lock()
	g.here, g.ends, g.wrong = plan.Here, nil, wrong
	for _, n := range s.Nodes {
		if n.Name == g.flags.node {
			g.ends = n.Ends()
		}
	}
	g.mu.Unlock()
	g.set(&spec)
}

// returns lead through the tunnel, or by the loop to clients on this node.
func (g *gatewayFeed) returns(list []cluster.Return) []egress.Return {
	out := make([]egress.Return, 0, len(list))
	for _, r := range list {
		back := egress.Return{Prefix: r.Prefix, Device: g.flags.device, Tunnel: vrf.Tunnel{Endpoint: r.Endpoint, VNI: g.flags.vni}}
		if r.Here {
			back = egress.Return{Prefix: r.Prefix, Device: steer.PeerOf(g.flags.loop)}
		}
		out = append(out, back)
	}
	return out
}

// writePasswords makes the directory hold these files, and no others.
func writePasswords(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for path, text := range files {
		if have, err := os.ReadFile(path); err == nil && string(have) == text {
			continue
		}
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, wanted := files[path]; !wanted {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// tell answers the agents' questions with the state of the gateways here, and
// keeps the record in their status, whenever something has happened.
func (g *gatewayFeed) tell(ctx context.Context, router *egress.Router, reporter *crd.Reporter) error {
	var server *echo.Server
	var at []netip.Addr
	defer func() {
		if server != nil {
			server.Close()
		}
	}()
	for after := uint64(0); ctx.Err() == nil; {
		g.mu.Lock()
		here, ends, wrong := g.here, g.ends, g.wrong
		g.mu.Unlock()
		status := router.Status()
		states, reports := gatewayStates(here, status, wrong)
		if server != nil {
			server.Set(states)
		}
		// Before the first round nothing is known: whoever asks is refused by the
		// kernel, which says that the node lives.
		if status != nil && !slices.Equal(at, ends) {
			if server != nil {
				server.Close()
				server = nil
			}
			var err error
			if server, err = echo.NewServer(g.log, endpoints(ends, g.flags.echoPort), states); err != nil {
				g.log.Error("agents are not answered", "err", err)
			} else {
				at = ends
			}
		}
		reporter.Set(reports)
		after = router.NextRound(ctx, after)
	}
	return nil
}

func endpoints(addrs []netip.Addr, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, port))
	}
	return out
}

// gatewayStates says how each gateway here is: as its network is, unless it was
// told to leave. Before the first round nothing is known, and nothing said.
func gatewayStates(here []cluster.GatewayHere, s *egress.Status, wrong map[string]string) (map[string]echo.State, map[string]crd.NodeReport) {
	states, reports := map[string]echo.State{}, map[string]crd.NodeReport{}
	if s == nil {
		return states, reports
	}
	networks := map[string]egress.NetworkStatus{}
	for _, n := range s.Networks {
		networks[n.Name] = n
	}
	for _, h := range here {
		n, known := networks[h.Network]
		state, report := echo.Failed, crd.NodeReport{State: crd.StateFailed, Message: n.Reason}
		switch {
		case !known:
			report.Message = "the network is not here yet"
		case n.Phase == egress.PhaseDraining || h.Draining && n.Phase == egress.PhaseUp:
			state, report = echo.Draining, crd.NodeReport{State: crd.StateDraining}
		case n.Phase == egress.PhaseUp:
			state, report = echo.Ready, crd.NodeReport{State: crd.StateReady}
		}
		if text := wrong[h.Network]; text != "" && report.Message != "" {
			report.Message += "; " + text
		} else if text != "" {
			report.Message = text
		}
		for _, p := range s.Pools {
			if p.Name == h.Pool && p.Network == h.Network {
				for _, prefix := range p.Prefixes {
					report.Addresses = append(report.Addresses, prefix.String())
				}
			}
		}
		states[h.ID] = state
		id, _, _ := strings.Cut(h.ID, "@")
		reports[id] = report
	}
	return states, reports
}
