package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/probes"
	"github.com/egret-router/egret/probes/bfd"
	"github.com/egret-router/egret/vrf"
)

// The test binary is also the program on the nodes: roleEnv says which, dirEnv where its
// files are.
const (
	roleEnv = "EGRET_TEST_ROLE"
	dirEnv  = "EGRET_TEST_DIR"
)

func TestMain(m *testing.M) {
	role, ok := map[string]func(context.Context, string, *slog.Logger) error{"agent": agent, "gateway": gateway}[os.Getenv(roleEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := role(ctx, os.Getenv(dirEnv), log); err != nil {
		log.Error("ends", "err", err)
		os.Exit(1)
	}
}

// orders is what an agent is told, by its file.
type orders struct {
	Serial int
	Config steer.Config
	Health map[string]steer.Health
}

// report is what an agent says, in its file: what it did with the orders.
type report struct {
	Serial int
	Status *steer.Status
}

// agent runs a steer.Agent on orders.json, and writes report.json.
func agent(ctx context.Context, dir string, log *slog.Logger) error {
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
	a := steer.New(log, steer.Edges{Kernel: kernel, Filter: filter, Flows: conntrack,
		Sysctls: sysctl.Open("/proc/sys", filepath.Join(dir, "sysctl.json"), log)})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error {
		var last orders
		var before *steer.Status
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			o, err := read[orders](filepath.Join(dir, "orders.json"))
			if err == nil && o.Serial != last.Serial {
				last, before = o, a.Status()
				a.SetConfig(o.Config)
				a.SetHealth(o.Health)
				continue
			}
			if s := a.Status(); s != before && s != nil {
				if err := write(filepath.Join(dir, "report.json"), report{last.Serial, s}); err != nil {
					return err
				}
			}
		}
	})
	return group.Wait()
}

// gateway runs an egress.Router on egret.yaml and returns.json, as the role of a node
// will on what the objects say.
func gateway(ctx context.Context, dir string, log *slog.Logger) error {
	spec, err := config.Load(filepath.Join(dir, "egret.yaml"))
	if err != nil {
		return err
	}
	if spec.Clients.Returns, err = read[[]egress.Return](filepath.Join(dir, "returns.json")); err != nil {
		return err
	}
	kernel, err := vrf.Open(spec.Settings.Ownership.Owner(), log)
	if err != nil {
		return err
	}
	defer kernel.Close()
	filter, err := nat.Open(log)
	if err != nil {
		return err
	}
	conntrack, err := flows.Open(log)
	if err != nil {
		return err
	}
	defer conntrack.Close()
	trigger := egress.NewTrigger()
	speaker, prober, sessions := bgp.New(log, trigger.Fire), probes.New(log, trigger.Fire), bfd.New(bfd.Options{Log: log})
	router := egress.NewRouter(log, egress.Edges{Kernel: kernel, Filter: filter, Speaker: speaker, Prober: prober, BFD: sessions, Flows: conntrack,
		Sysctls: sysctl.Open("/proc/sys", filepath.Join(dir, "sysctl-gateway.json"), log)}, trigger, "test")
	router.SetSpec(spec)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return router.Run(ctx) })
	group.Go(func() error {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if err := write(filepath.Join(dir, "gateway.json"), router.Status()); err != nil {
					return err
				}
			}
		}
	})
	err = group.Wait()
	prober.Close()
	speaker.Close(true)
	return errors.Join(err, sessions.Close(true))
}

func read[T any](path string) (value T, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return value, err
	}
	return value, json.Unmarshal(data, &value)
}

// write replaces a file as a whole.
func write(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
