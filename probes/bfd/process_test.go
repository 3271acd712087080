package bfd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

// processEnv makes the test binary one of the processes that a daemon with BFD
// consists of: "serve" is the one with the sessions, "client" stands for the
// daemon itself. pathEnv is the socket between them, wantEnv what the client
// sets, as JSON.
const (
	processEnv = "EGRET_BFD_TEST_PROCESS"
	pathEnv    = "EGRET_BFD_TEST_PATH"
	wantEnv    = "EGRET_BFD_TEST_WANT"
	lingerEnv  = "EGRET_BFD_TEST_LINGER"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(processEnv) {
	case "":
		os.Exit(m.Run())
	case "serve":
		err = serveProcess()
	case "client":
		err = clientProcess()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveProcess() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	linger, err := time.ParseDuration(os.Getenv(lingerEnv))
	if err != nil {
		return err
	}
	return bfd.Serve(ctx, bfd.ServerOptions{Path: os.Getenv(pathEnv), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Linger: linger})
}

// clientProcess starts the server if there is none, sets its sessions, and
// tells when all are up.
func clientProcess() error {
	var want []bfd.Config
	if err := json.Unmarshal([]byte(os.Getenv(wantEnv)), &want); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c := bfd.NewClient(bfd.ClientOptions{
		Path: os.Getenv(pathEnv), Log: log,
		Notify: func(st bfd.State) { log.Info("notified", "session", st.Name, "status", st.Status) },
		Start: func() error {
			if err := os.Setenv(processEnv, "serve"); err != nil {
				return err
			}
			return bfd.Spawn(os.Args[0])
		},
	})
	if err := c.Set(want); err != nil {
		return err
	}
	if err := lab.Poll(context.Background(), 2*time.Minute, "sessions", func() error { return allUp(c.State(), len(want)) }); err != nil {
		return err
	}
	fmt.Println("all up")
	select {} // until it is killed
}

func allUp(states []bfd.State, n int) error {
	for _, st := range states {
		if st.Status != bfd.Up || st.Stale {
			return fmt.Errorf("%+v", st)
		}
	}
	if len(states) != n {
		return fmt.Errorf("%d sessions", len(states))
	}
	return nil
}

// speaker is a client in the test of a server process in a namespace.
type speaker struct {
	*bfd.Client
	t    testing.TB
	proc *lab.Proc
	path string

	mu   sync.Mutex
	told []bfd.State
}

func startServer(t testing.TB, ns *lab.NS, path string, linger time.Duration) *lab.Proc {
	t.Helper()
	cmd := ns.Command(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), processEnv+"=serve", pathEnv+"="+path, lingerEnv+"="+linger.String())
	proc, err := ns.StartCommand("bfd-"+ns.Name, cmd)
	if err != nil {
		t.Fatal(err)
	}
	return proc
}

// startSpeaker starts a server process in a namespace, and its client here.
func startSpeaker(t testing.TB, l *lab.Lab, ns *lab.NS) *speaker {
	t.Helper()
	path := filepath.Join(l.Dir, ns.Name+"-bfd.sock")
	s := &speaker{t: t, path: path, proc: startServer(t, ns, path, time.Minute)}
	s.Client = bfd.NewClient(bfd.ClientOptions{Path: path, Log: slog.New(slog.DiscardHandler), Notify: func(st bfd.State) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, st)
	}})
	t.Cleanup(func() { _ = s.Close(true) })
	return s
}

func (s *speaker) set(want ...bfd.Config) {
	s.t.Helper()
	if err := s.Set(want); err != nil {
		s.t.Fatal(err)
	}
}

func (s *speaker) state(name string) bfd.State {
	for _, st := range s.State() {
		if st.Name == name {
			return st
		}
	}
	return bfd.State{Stale: true}
}

// await waits until a session's state fulfils a condition.
func (s *speaker) await(name, what string, ok func(bfd.State) bool) bfd.State {
	s.t.Helper()
	var last bfd.State
	lab.Eventually(s.t, 2*time.Minute, name+": "+what, func() error {
		if last = s.state(name); last.Stale || !ok(last) {
			return fmt.Errorf("%+v", last)
		}
		return nil
	})
	return last
}

func (s *speaker) up(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.await(name, "up", func(st bfd.State) bool { return st.Status == bfd.Up })
	}
}

// notified returns what Notify was told of a session.
func (s *speaker) notified(name string) []bfd.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []bfd.State
	for _, st := range s.told {
		if st.Name == name {
			list = append(list, st)
		}
	}
	return list
}
