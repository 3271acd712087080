package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/probes/echo"
	"github.com/egret-router/egret/vrf"
)

// agentFlags are those of the agent alone.
type agentFlags struct {
	nodeFlags
	listen string
	inside []string
	marks  string
	health echo.Options
}

func agentCommand() *cobra.Command {
	var flags agentFlags
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Lead the pods of this node to the gateways of a Kubernetes cluster",
		Long: `Agent sends the traffic of this node's pods to the gateways that policies and annotations choose, through a tunnel, and lets
nothing else of theirs leave the cluster. Without an API server it goes on with what it saw last, also over a restart.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.logger()
			if err != nil {
				return err
			}
			if err := flags.check(); err != nil {
				return err
			}
			mask, err := markMask(flags.marks)
			if err != nil {
				return err
			}
			client, mode, err := flags.connect("agent", log)
			if err != nil {
				return err
			}
			return runAgent(cmd.Context(), client, mode, &flags, mask, log)
		},
	}
	flags.add(cmd, "/run/egret-agent")
	f := cmd.Flags()
	f.StringSliceVar(&flags.inside, "inside", nil, "destinations that are never led to a gateway, beside nodes and pods: the services' prefixes, say")
	f.StringVar(&flags.marks, "mark-mask", fmt.Sprintf("%#x", steer.DefaultMarkMask), "bits of packet and conntrack marks that the agent may use for pods")
	f.DurationVar(&flags.health.Interval, "health-interval", echo.DefaultInterval, "from one question to a gateway's node to the next")
	f.IntVar(&flags.health.Fall, "health-fall", echo.DefaultFall, "so many answers in a row must be missing for a node to be down")
	f.DurationVar(&flags.health.Hold, "health-hold", echo.DefaultHold, "for so long a gateway's node is used whose kernel answers that the gateway's process is not there; negative is never")
	f.StringVar(&flags.listen, "status-listen", "127.0.0.1:9645", "address at which GET /v1/status and /readyz answer; empty is off")
	logs.add(cmd)
	return cmd
}

// markMask reads a mask of marks.
func markMask(text string) (uint32, error) {
	mask, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("--mark-mask %q is not a number of 32 bits, such as %#x", text, steer.DefaultMarkMask)
	}
	if err := steer.CheckMarkMask(uint32(mask)); err != nil {
		return 0, fmt.Errorf("--mark-mask: %w", err)
	}
	return uint32(mask), nil
}

func runAgent(parent context.Context, client *crd.Client, mode cluster.Mode, flags *agentFlags, mask uint32, log *slog.Logger) error {
	if err := needRoot(); err != nil {
		return err
	}
	feed := &agentFeed{log: log, flags: flags, options: cluster.SteerOptions{Mode: mode, Memo: new(cluster.Memo), MarkMask: mask,
		Tunnel: steer.Tunnel{Device: flags.device, Loop: flags.loop, Port: flags.port, VNI: flags.vni}}}
	for _, s := range flags.inside {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("--inside %q: %w", s, err)
		}
		feed.options.Inside = append(feed.options.Inside, p.Masked())
	}
	release, err := control.LockAs("agent")
	if err != nil {
		return err
	}
	defer release()
	kernel, err := vrf.Open(steer.Owner(), log)
	if err != nil {
		return err
	}
	defer kernel.Close()
	filter, err := nat.OpenTable(steer.TableName, log)
	if err != nil {
		return err
	}
	conntrack, err := flows.Open(log)
	if err != nil {
		return err
	}
	defer conntrack.Close()
	if feed.asker, err = echo.NewClient(log, flags.health); err != nil {
		return err
	}
	defer feed.asker.Close()
	agent := steer.New(log, steer.Edges{Kernel: kernel, Filter: filter, Flows: conntrack,
		Sysctls: sysctl.Open("/proc/sys", filepath.Join(flags.runDir, "sysctl.json"), log)})
	feed.set = agent.SetConfig
	untainter := crd.NewUntainter(client, flags.node, func() bool { return isReady(agent.Status()) }, log)
	source := crd.NewSource(client, crd.SourceOptions{Role: crd.RoleAgent, Node: flags.node, Namespace: flags.namespace,
		StateFile: filepath.Join(flags.stateDir, "agent.json"), Log: log, Deliver: func(v crd.View) { feed.deliver(v.Snapshot); untainter.Deliver(v) }})

	ctx, stop := signal.NotifyContext(parent, syscall.SIGTERM, os.Interrupt)
	defer stop()
	log.Info("agent starts", "version", buildVersion(), "node", flags.node)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.Run(ctx) })
	group.Go(func() error { return agent.Run(ctx) })
	group.Go(func() error { return feed.ask(ctx, agent) })
	group.Go(func() error { return untainter.Run(ctx) })
	if flags.listen != "" {
		group.Go(func() error { return serveAgent(ctx, flags.listen, agent.Status, log) })
	}
	err = group.Wait()
	log.Info("agent ends; the data plane goes on")
	return err
}

// agentFeed makes Configs of Snapshots, and asks the gateways' nodes how they are.
type agentFeed struct {
	log     *slog.Logger
	flags   *agentFlags
	options cluster.SteerOptions
	asker   *echo.Client
	set     func(steer.Config)
	said    string // the problems that were logged last
}

// deliver takes a Snapshot.
func (f *agentFeed) deliver(s cluster.Snapshot) {
	cfg, problems := cluster.Steering(s, f.flags.node, f.options)
	var text []string
	for _, p := range problems {
		text = append(text, p.String())
	}
	if said := strings.Join(text, "\n"); said != f.said {
		f.said = said
		f.log.Warn("objects with problems", "count", len(text), "problems", said)
	}
	f.asker.Set(targetsOf(cfg, f.flags.echoPort))
	f.set(cfg)
}

// targetsOf are the nodes to ask, each by the first of its addresses that this node
// has an address of the same family as.
func targetsOf(cfg steer.Config, port uint16) []echo.Target {
	reach := map[bool]bool{}
	for _, a := range cfg.Tunnel.Local {
		reach[a.Is4()] = true
	}
	var out []echo.Target
	at := map[netip.Addr]int{}
	for _, g := range cfg.Gateways {
		for _, a := range g.Endpoints {
			if !reach[a.Is4()] {
				continue
			}
			i, known := at[a]
			if !known {
				i = len(out)
				at[a] = i
				out = append(out, echo.Target{Endpoint: netip.AddrPortFrom(a, port)})
			}
			out[i].Instances = append(out[i].Instances, g.ID)
			break
		}
	}
	return out
}

// ask tells the agent what the gateways' nodes answer.
func (f *agentFeed) ask(ctx context.Context, agent *steer.Agent) error {
	for {
		agent.SetHealth(healthOf(f.asker.Status()))
		select {
		case <-ctx.Done():
			return nil
		case <-f.asker.Changes():
		}
	}
}

// healthOf: a gateway on a node that does not answer is down, and so is one that
// its node does not know. Of a node that has not been heard nothing is known.
func healthOf(nodes []echo.Status) map[string]steer.Health {
	out := map[string]steer.Health{}
	for _, n := range nodes {
		for id, state := range n.Instances {
			switch {
			case n.Verdict == echo.Down:
				out[id] = steer.Down
			case n.Verdict != echo.Up:
				out[id] = steer.Unknown
			case state == echo.Ready:
				out[id] = steer.Ready
			case state == echo.Draining:
				out[id] = steer.Draining
			default:
				out[id] = steer.Down
			}
		}
	}
	return out
}
