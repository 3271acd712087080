package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd"
)

// clusterFlags are those of the commands that talk to an API server.
type clusterFlags struct {
	kubeconfig, namespace, support string
}

func (f *clusterFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file; without one, the service account of the pod")
	cmd.Flags().StringVar(&f.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "egret-system"), "namespace that Egret is in")
	cmd.Flags().StringVar(&f.support, "egress-ip-support", string(cluster.PerNamespaceOrPerPod),
		"whose annotations count: "+string(cluster.PerNamespaceOrPerPod)+" or "+string(cluster.PerNamespace))
}

// connect checks the flags and makes a client, which has not talked to the server yet.
func (f *clusterFlags) connect(role string, log *slog.Logger) (*crd.Client, cluster.Mode, error) {
	mode := cluster.Mode(f.support)
	if mode != cluster.PerNamespace && mode != cluster.PerNamespaceOrPerPod {
		return nil, "", fmt.Errorf("--egress-ip-support %q: use %s or %s", f.support, cluster.PerNamespaceOrPerPod, cluster.PerNamespace)
	}
	crd.LogTo(log)
	client, err := crd.Connect(f.kubeconfig, "egret-"+role+"/"+buildVersion())
	return client, mode, err
}

func controllerCommand() *cobra.Command {
	var flags clusterFlags
	var identity string
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Place gateways in a Kubernetes cluster, and hand them addresses",
		Long: `Controller decides which nodes an EgressGateway is on, hands blocks of EgressPools to it, and writes into the
conditions of objects what is wrong with them. Several may run: one leads. Without any, nothing changes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.logger()
			if err != nil {
				return err
			}
			client, mode, err := flags.connect("controller", log)
			if err != nil {
				return err
			}
			return runController(cmd.Context(), client, crd.ControllerOptions{Identity: identity, Namespace: flags.namespace, Mode: mode, Log: log})
		},
	}
	flags.add(cmd)
	host, _ := os.Hostname() // an empty one fails when the lease is written, and says so
	cmd.Flags().StringVar(&identity, "identity", cmp.Or(os.Getenv("POD_NAME"), host), "name of this process in the election")
	logs.add(cmd)
	return cmd
}

func runController(parent context.Context, client *crd.Client, o crd.ControllerOptions) error {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o.Log.Info("controller starts", "version", buildVersion(), "identity", o.Identity)
	controller := crd.NewController(client, o)
	source := crd.NewSource(client, crd.SourceOptions{Role: crd.RoleController, Namespace: o.Namespace, Deliver: controller.Deliver, Log: o.Log})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return source.Run(ctx) })
	group.Go(func() error { return controller.Run(ctx) })
	return group.Wait()
}
