package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/egress/metrics"
	"github.com/egret-router/egret/probes"
)

// daemon is a gateway with all its edges. Where its Specs come from, a file or
// the objects of a cluster, it does not know.
type daemon struct {
	log      *slog.Logger
	settings egress.Settings
	release  func()
	machine  *machine
	speaker  *bgp.Speaker
	prober   *probes.Prober
	sessions *bfdProcess
	router   *egress.Router
}

// newDaemon builds a daemon in the order of its dependencies. One runs at a time
// in a network namespace. It touches nothing before it has a Spec and runs.
func newDaemon(settings egress.Settings, log *slog.Logger) (*daemon, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	release, err := control.Lock()
	if err != nil {
		return nil, err
	}
	m, err := openMachine(settings, log)
	if err != nil {
		release()
		return nil, err
	}
	d := &daemon{log: log, settings: settings, release: release, machine: m}
	trigger := egress.NewTrigger()
	d.speaker = bgp.New(log, trigger.Fire)
	d.prober = probes.New(log, trigger.Fire)
	d.sessions = newBFDProcess(settings.RunDir, settings.BFDLinger, log, trigger.Fire)
	d.router = egress.NewRouter(log, egress.Edges{Kernel: m.kernel, Filter: m.filter, Speaker: d.speaker, Prober: d.prober, BFD: d.sessions, Sysctls: m.sysctls, Flows: m.flows,
		Drains: drain.InDir(settings.RunDir)}, trigger, buildVersion())
	return d, nil
}

// run runs the daemon, and what feeds it, until a signal, or until one of them
// fails; then it ends as the settings say.
func (d *daemon) run(parent context.Context, cleanup bool, feed ...func(context.Context) error) error {
	defer d.release()
	defer d.machine.Close()
	ctx, stop := context.WithCancel(parent)
	defer stop()
	leaving := make(chan bool, 1)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	go func() { leaving <- untilSignal(ctx, signals, d.router, d.log); stop() }()
	d.sessions.adopt(ctx)
	err := d.serve(ctx, feed)
	stop()
	drained := <-leaving

	d.prober.Close()
	err = errors.Join(err, d.sessions.Close())
	if cleanup {
		d.speaker.Close(false)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), time.Minute)
		defer cancel()
		return errors.Join(err, d.machine.teardown(ctx, d.log))
	}
	// Without graceful restart for one who has taken leave: routers know at once.
	d.speaker.Close(!drained)
	d.log.Info("egret ends; the data plane goes on forwarding", "drained", drained)
	return err
}

// serve runs the loop and what surrounds it until ctx ends or one of them
// fails. A failing metrics listener does not stop the gateway.
func (d *daemon) serve(ctx context.Context, feed []func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.router.Run(ctx) })
	group.Go(func() error { return d.router.Inspect(ctx, d.machine.filter) })
	group.Go(func() error {
		return control.Serve(ctx, control.SocketPath(d.settings.RunDir), d.router, d.log)
	})
	if d.settings.MetricsListen != "" {
		group.Go(func() error {
			if err := metrics.Serve(ctx, d.settings.MetricsListen, metrics.Registry(d.router.Status), d.log); err != nil {
				d.log.Error("metrics are off", "err", err)
			}
			return nil
		})
	}
	for _, f := range feed {
		group.Go(func() error { return f(ctx) })
	}
	return group.Wait()
}
