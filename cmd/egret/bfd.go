package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/probes/bfd"
)

const (
	// bfdAdopt bounds the wait for what sessions there are from before a restart.
	bfdAdopt = 2 * time.Second
	// bfdStartPause is between two starts of the process: a slow machine needs a
	// while until it answers, and a second one would find the place taken.
	bfdStartPause = 2 * time.Second
)

func bfdSocket(runDir string) string { return filepath.Join(runDir, "bfd.sock") }

func bfdServerCommand() *cobra.Command {
	var runDir, logFile string
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "bfd-server",
		Short: "Hold the daemon's BFD sessions, so that they outlive it; egret run starts this",
		Long: `Bfd-server runs the BFD sessions that a daemon asks for, and goes on while that restarts. The daemon starts
it when the first session is wanted. It ends with egret teardown, with egret run --cleanup, on SIGTERM,
and some time after the daemon (bfd.linger, five minutes); the peers are then told that the sessions are
administratively down. What it logs is in bfd.log in the run directory when the daemon started it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			out := io.Writer(os.Stderr)
			if logFile != "" {
				file, err := openBoundedLog(logFile, bfdLogSize)
				if err != nil {
					return err
				}
				out = file
			}
			log, err := logs.loggerTo(out)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return bfd.Serve(ctx, bfd.ServerOptions{Path: bfdSocket(runDir), Log: log})
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", config.DefaultRunDir, "directory of the daemon's sockets")
	cmd.Flags().StringVar(&logFile, "log-file", "", "log to this file instead of standard error; it is bounded: 1 MiB, and as much in FILE.1")
	logs.add(cmd)
	return cmd
}

// startBFDServer starts this program again, with the same run directory.
func startBFDServer(runDir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return bfd.Spawn(self, "bfd-server", "--run-dir", runDir, "--log-file", bfdLogPath(runDir))
}

// bfdProcess is egress.BFD in a process of its own, which is started when the
// first session is wanted.
type bfdProcess struct {
	path   string
	start  func() error
	notify func()
	log    *slog.Logger

	mu     sync.Mutex
	client *bfd.Client // nil until the process is known to run or a session is wanted
	wanted int         // sessions
	linger time.Duration
	last   time.Time // when the process was last started
	// found is closed when the first session is heard of.
	found     chan struct{}
	findsOnce sync.Once
}

// newBFDProcess is for a run directory. linger is how long the process goes
// on without a daemon.
func newBFDProcess(runDir string, linger time.Duration, log *slog.Logger, notify func()) *bfdProcess {
	return &bfdProcess{path: bfdSocket(runDir), linger: linger, log: log, notify: notify, found: make(chan struct{}),
		start: func() error { return startBFDServer(runDir) }}
}

// adopt learns the sessions of a process that runs already, so that the first
// round knows them. It has to come before Set.
func (b *bfdProcess) adopt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, bfdAdopt)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", b.path)
	if err != nil {
		return // none runs, as at the first start
	}
	conn.Close()
	b.mu.Lock()
	b.connect()
	b.mu.Unlock()
	select {
	case <-b.found:
	case <-ctx.Done(): // it may have no sessions
	}
}

func (b *bfdProcess) connect() {
	if b.client == nil {
		b.client = bfd.NewClient(bfd.ClientOptions{Path: b.path, Log: b.log, Notify: b.heard, Start: b.restart, Linger: b.linger})
	}
}

// setLinger changes how long the process goes on without a daemon.
func (b *bfdProcess) setLinger(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.linger = d
	if b.client != nil {
		b.client.SetLinger(d)
	}
}

func (b *bfdProcess) heard(st bfd.State) {
	b.findsOnce.Do(func() { close(b.found) })
	b.log.Info("bfd session", "session", st.Name, "status", st.Status.String(), "since", st.Since, "diag", st.Diag.String(),
		"peer_status", st.RemoteStatus.String(), "peer_diag", st.RemoteDiag.String())
	b.notify()
}

// restart starts the process, if a session is wanted.
func (b *bfdProcess) restart() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wanted == 0 || time.Since(b.last) < bfdStartPause {
		return nil
	}
	b.last = time.Now()
	return b.start()
}

// Set is as of bfd.Client.
func (b *bfdProcess) Set(want []bfd.Config) error {
	b.mu.Lock()
	b.wanted = len(want)
	if len(want) > 0 {
		b.connect()
	}
	client := b.client
	b.mu.Unlock()
	if client == nil {
		return nil
	}
	return client.Set(want)
}

// State is as of bfd.Client.
func (b *bfdProcess) State() []bfd.State {
	b.mu.Lock()
	client := b.client
	b.mu.Unlock()
	if client == nil {
		return nil
	}
	return client.State()
}

// Close leaves the sessions to the process, which ends if there are none.
func (b *bfdProcess) Close() error {
	b.mu.Lock()
	client, keep := b.client, b.wanted > 0
	b.wanted = 0
	b.mu.Unlock()
	if client == nil {
		return nil
	}
	err := client.Close(true)
	if !keep {
		err = errors.Join(err, bfd.End(context.Background(), b.path))
	}
	return err
}
