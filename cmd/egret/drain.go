package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/drain"
)

const (
	// drainPoll is how often a waiting command asks.
	drainPoll = 500 * time.Millisecond
	// drainSilence is for how long the daemon may not answer, as over a restart.
	drainSilence = time.Minute
)

func drainCommand() *cobra.Command {
	var socket string
	var wait, cut bool
	var deadline, delay time.Duration
	cmd := &cobra.Command{
		Use:   "drain (network NAME | gateway)",
		Short: "Take a network, or the whole gateway, out of use without breaking connections",
		Long: `Drain asks BGP routers to prefer other ways (GRACEFUL_SHUTDOWN, RFC 8326), refuses new flows a moment later,
lets established flows go on until they end or the deadline comes, and then withdraws the pools. New flows
meet what onNoNextHop says of a network without a next hop: drop, reject or fallback. Flows that are left at
the deadline are not cut, but replies to them may find no way any more; --cut ends them, so that TCP clients
are told at once.

A drain stays, also over a restart of the daemon, until "egret undrain". Draining again sets another deadline.`,
		Args: drainTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := egress.DrainRequest{Network: networkOf(args), Cut: cut}
			if cmd.Flags().Changed("deadline") {
				q.Deadline = &deadline
			}
			if cmd.Flags().Changed("delay") {
				q.Delay = &delay
			}
			client := control.NewClient(socket)
			if err := client.Drain(cmd.Context(), q); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is being drained\n", strings.Join(args, " "))
			if !wait {
				return nil
			}
			w := drainWait{status: client.Status, network: q.Network, out: cmd.OutOrStdout(), now: time.Now, seen: map[string]string{}}
			return w.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "print the progress, and return when the pools are withdrawn")
	cmd.Flags().DurationVar(&deadline, "deadline", 0, "withdraw after this time although flows are left (default: drain.deadline of the configuration)")
	cmd.Flags().DurationVar(&delay, "delay", 0, "time for routers to move before new flows are refused (default: drain.delay of the configuration)")
	cmd.Flags().BoolVar(&cut, "cut", false, "end the flows that are left at the deadline")
	socketFlag(cmd, &socket)
	return cmd
}

func undrainCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "undrain (network NAME | gateway)",
		Short: "Take a drained network, or the whole gateway, into use again",
		Long: `Undrain takes new flows again, advertises the pools again and restores the preference, however far the
drain is. "undrain gateway" takes all drains back, those of single networks as well.`,
		Args: drainTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := control.NewClient(socket).Undrain(cmd.Context(), networkOf(args)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is in use again\n", strings.Join(args, " "))
			return nil
		},
	}
	socketFlag(cmd, &socket)
	return cmd
}

func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", control.SocketPath(config.DefaultRunDir), "control socket of the daemon")
}

// drainTarget takes "network NAME" or "gateway".
func drainTarget(_ *cobra.Command, args []string) error {
	if len(args) == 2 && args[0] == "network" && args[1] != "" || len(args) == 1 && args[0] == "gateway" {
		return nil
	}
	return errors.New(`say what: "network NAME", or "gateway" for all networks`)
}

// networkOf is the network that arguments name, "" for the gateway.
func networkOf(args []string) string {
	if args[0] == "network" {
		return args[1]
	}
	return ""
}

// drainWait follows drains to their end.
type drainWait struct {
	status  func(context.Context) (*egress.Status, error)
	network string // "" is all
	out     io.Writer
	now     func() time.Time
	// seen is what was last printed of each network.
	seen map[string]string
}

func (w *drainWait) run(ctx context.Context) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	heard := w.now()
	for {
		s, silence := w.status(ctx)
		if silence == nil {
			if done, err := w.look(s); done || err != nil {
				return err
			}
			// A drain that no round has taken up yet is as good as silence.
			if silence = errors.New("the daemon does not begin"); len(w.seen) > 0 {
				heard = w.now()
			}
		}
		if ctx.Err() == nil && w.now().Sub(heard) > drainSilence {
			return fmt.Errorf("the drain goes on, but waiting for it ends: %w", silence)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look prints what is new, and says whether all is done.
func (w *drainWait) look(s *egress.Status) (done bool, err error) {
	done = true
	there := map[string]bool{}
	for _, n := range s.Networks {
		if w.network != "" && w.network != n.Name {
			continue
		}
		there[n.Name] = true
		if n.Drain == nil {
			if w.seen[n.Name] != "" {
				return false, fmt.Errorf("network %s is not drained any more: somebody has taken the drain back", n.Name)
			}
			done = false
			continue
		}
		if text := drainProgress(n.Drain, w.now()); text != w.seen[n.Name] {
			fmt.Fprintf(w.out, "%s: %s\n", n.Name, text)
			w.seen[n.Name] = text
		}
		done = done && n.Drain.Stage == drain.Withdrawn
	}
	if w.network != "" && !there[w.network] {
		return false, fmt.Errorf("network %s is not there any more", w.network)
	}
	return done, nil
}

// drainProgress is a drain in one line. It changes with the stage and the number
// of flows, not with the time.
func drainProgress(d *egress.DrainStatus, now time.Time) string {
	switch {
	case d.Stage == drain.Lowered:
		return "routers are asked to prefer other ways"
	case d.Stage == drain.Refusing && !d.Counted:
		return "no new flows are taken"
	case d.Stage == drain.Refusing:
		return fmt.Sprintf("no new flows are taken; %d flows are left, until %s", d.FlowsLeft, d.Deadline.In(now.Location()).Format(time.TimeOnly))
	case !d.Counted:
		return "withdrawn; flows could not be counted"
	}
	left := "left"
	if d.Cut {
		left = "cut"
	}
	return fmt.Sprintf("withdrawn; %d flows ended by themselves, %d were %s", d.FlowsEnded, d.FlowsLeft, left)
}
