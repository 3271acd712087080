package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/probes/bfd"
	"github.com/egret-router/egret/vrf"
)

func teardownCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "teardown",
		Short: "Remove everything of Egret's from this kernel",
		Long: `Teardown removes VRFs, routes, rules, next hops and the nftables table that are Egret's, restores the
recorded kernel settings, and leaves everything else alone. The daemon must not run. Without
--config the default ownership ranges and run directory are used.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings := egress.Settings{RunDir: config.DefaultRunDir, Ownership: egress.DefaultOwnership()}
			if file != "" {
				spec, err := config.Load(file)
				if err != nil {
					return err
				}
				settings = spec.Settings
			}
			return runTeardown(cmd, settings)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file, for its ownership ranges and runDir")
	return cmd
}

func runTeardown(cmd *cobra.Command, settings egress.Settings) error {
	if err := needRoot(); err != nil {
		return err
	}
	release, err := control.Lock()
	if err != nil {
		return err
	}
	defer release()
	log := slog.New(slog.DiscardHandler)
	m, err := openMachine(settings, log)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := errors.Join(m.teardown(cmd.Context(), log), drain.InDir(settings.RunDir).Save(drain.Records{})); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "everything of Egret's is removed")
	return nil
}

// teardown ends the BFD sessions while they can still say so, and goes the way of a start backwards: translation and classification,
// links and routes, kernel settings (forwarding among them), and the guards
// last.
func (m *machine) teardown(ctx context.Context, log *slog.Logger) error {
	// One that hangs must not keep the rest.
	ended := bfd.End(ctx, m.bfdSocket)
	rules, err := m.filter.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := m.filter.Apply(ctx, nat.RemoveAllButGuards(rules)); err != nil {
		return err
	}
	have, err := m.kernel.Snapshot(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(m.kernel.Apply(ctx, vrf.Teardown(have)).Err(), m.sysctls.Restore(ctx)); err != nil {
		return fmt.Errorf("teardown stops before the guards: %w", err)
	}
	if _, err := m.flows.Sweep(ctx, nat.EgressMark, nat.EgressMark, func(flows.Flow) bool { return true }); err != nil {
		return fmt.Errorf("teardown stops before the guards: %w", err)
	}
	log.Info("everything of ours is removed")
	return errors.Join(ended, m.filter.Delete(ctx))
}
