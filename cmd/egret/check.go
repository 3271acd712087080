package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/egress/config"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file and print every problem with its field path",
		Long:  "Check reads FILE as `egret run` would and prints every problem with its field path. It needs no root and touches nothing. Exit code 1 when there is a problem.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := config.Load(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %d networks, %d pools, %d policies\n",
				args[0], len(spec.Networks), len(spec.Pools), len(spec.Policies))
			return nil
		},
	}
}

func referenceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Print the commented reference configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Reference())
			return err
		},
	}
}
