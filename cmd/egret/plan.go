package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/drain"
)

func planCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "plan --config FILE",
		Short: "Print what would change in this kernel; change nothing",
		Long: `Plan compares FILE with this kernel and prints the operations a daemon would carry out, in order.
It asks a running daemon for learned routes and verdicts. Without one, routes learned by BGP are left
alone and networks count as the kernel has them. Prints "nothing to change" when there is nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return plan(cmd, file) },
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/egret/egret.yaml", "configuration file")
	return cmd
}

// askDaemon asks a running daemon for what only it knows; without one there is
// nothing to know.
func askDaemon(cmd *cobra.Command, s egress.Settings) egress.Known {
	seen, err := control.NewClient(control.SocketPath(s.RunDir)).Observed(cmd.Context())
	if err == nil {
		return egress.Known{Learned: seen.Learned, Verdicts: seen.Verdicts, Drains: seen.Drains}
	}
	if !errors.Is(err, control.ErrNoDaemon) {
		fmt.Fprintln(cmd.ErrOrStderr(), "egret: going on without the daemon's knowledge:", err)
	}
	// What is drained stays so without a daemon, too.
	kept, err := drain.InDir(s.RunDir).Load()
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "egret: nothing counts as drained:", err)
	}
	return egress.Known{Drains: kept.Networks}
}

func plan(cmd *cobra.Command, file string) error {
	spec, err := config.Load(file)
	if err != nil {
		return err
	}
	m, err := openMachine(spec.Settings, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer m.Close()
	preview, err := egress.MakePreview(cmd.Context(), spec, m.kernel, m.filter, m.sysctls, askDaemon(cmd, spec.Settings))
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	for _, e := range preview.Kernel.Errors {
		fmt.Fprintf(out, "# network %q: %v\n", e.Network, e.Err)
	}
	if preview.Empty() {
		fmt.Fprintln(out, "nothing to change")
		return nil
	}
	fmt.Fprintln(out, preview.String())
	return nil
}
