package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
)

func runCommand() *cobra.Command {
	var file string
	var cleanup bool
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the gateway daemon",
		Long: `Run serves the networks of FILE until SIGTERM or SIGINT. SIGHUP or a change of the file reloads it; a file
with problems keeps what runs. Ending the daemon leaves the data plane forwarding, and BGP peers with
graceful restart keep the routes; with "shutdown: drain" it drains all networks first and takes leave of the
peers (a second signal ends the wait). --cleanup withdraws and removes everything instead.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logs.logger()
			if err != nil {
				return err
			}
			return run(cmd.Context(), file, cleanup, log)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/egret/egret.yaml", "configuration file")
	cmd.Flags().BoolVar(&cleanup, "cleanup", false, "withdraw and remove everything of ours when the daemon ends")
	logs.add(cmd)
	return cmd
}

// run builds the daemon and runs it with what the file says.
func run(parent context.Context, path string, cleanup bool, log *slog.Logger) error {
	file := config.NewFile(path, log)
	spec, err := file.Load()
	if err != nil {
		return err
	}
	d, err := newDaemon(spec.Settings, log)
	if err != nil {
		return err
	}
	d.router.SetSpec(spec)
	log.Info("egret starts", "version", buildVersion(), "config", path, "networks", len(spec.Networks))
	return d.run(parent, cleanup, func(ctx context.Context) error { return reload(ctx, file, spec, d.router, d.sessions, log) })
}

// leaver is what is drained at the end; *egress.Router is the real one.
type leaver interface {
	Settings() egress.Settings
	DrainToEnd()
	DrainedToEnd() bool
}

// untilSignal waits for the signal to end, drains if the configuration says so,
// and tells whether it did. Another signal ends the wait.
func untilSignal(ctx context.Context, signals <-chan os.Signal, router leaver, log *slog.Logger) (drained bool) {
	select {
	case <-ctx.Done():
		return false
	case <-signals:
	}
	settings := router.Settings()
	if settings.Shutdown != egress.ShutdownDrain {
		return false
	}
	log.Info("egret drains before it ends", "deadline", settings.Drain.Deadline)
	router.DrainToEnd()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	// What an operator drains for longer does not hold up the end.
	timeout := time.After(settings.Drain.Deadline + endGrace)
	for !router.DrainedToEnd() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return true
		case <-signals:
			log.Warn("a second signal: egret ends without waiting for flows")
			return true
		case <-timeout:
			return true
		}
	}
	return true
}

// endGrace is the time beyond the deadline for the last rounds of a drain.
const endGrace = 5 * time.Second

// reload feeds the router with what the file says, on change and on SIGHUP.
func reload(ctx context.Context, file *config.File, running *egress.Spec, router *egress.Router, sessions *bfdProcess, log *slog.Logger) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup:
				file.Reload()
			case <-ctx.Done():
				return
			}
		}
	}()
	refuse := func(err error) {
		log.Error("configuration refused; the running one stays", "err", err)
		router.Reject(err)
	}
	take := func(s *egress.Spec) {
		if err := restartOnly(running, s); err != nil {
			refuse(err)
			return
		}
		log.Info("configuration loaded", "networks", len(s.Networks), "policies", len(s.Policies))
		sessions.setLinger(s.Settings.BFDLinger)
		router.SetSpec(s)
	}
	return file.Watch(ctx, take, refuse)
}

// restartOnly refuses changes of settings that a running daemon cannot take
// over, by name.
func restartOnly(running, next *egress.Spec) error {
	a, b := running.Settings, next.Settings
	var errs []error
	for _, c := range []struct {
		field   string
		changed bool
	}{
		{"runDir", a.RunDir != b.RunDir},
		{"metrics.listen", a.MetricsListen != b.MetricsListen},
		{"ownership", a.Ownership != b.Ownership},
	} {
		if c.changed {
			errs = append(errs, fmt.Errorf("%s: cannot change while the daemon runs; restart it", c.field))
		}
	}
	return errors.Join(errs...)
}
