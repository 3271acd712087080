package main

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
)

// leavingRouter is drained some time after it was asked to.
type leavingRouter struct {
	settings egress.Settings
	takes    time.Duration
	asked    time.Time
}

func (r *leavingRouter) Settings() egress.Settings { return r.settings }
func (r *leavingRouter) DrainToEnd()               { r.asked = time.Now() }
func (r *leavingRouter) DrainedToEnd() bool {
	return !r.asked.IsZero() && time.Since(r.asked) >= r.takes
}

// TestUntilSignal: when the daemon ends, and whether it has drained.
func TestUntilSignal(t *testing.T) {
	const deadline = time.Minute
	for name, tt := range map[string]struct {
		shutdown egress.Shutdown
		takes    time.Duration
		second   time.Duration // after the first signal; 0 is none
		drained  bool
		least    time.Duration
	}{
		"leave":                   {egress.ShutdownLeave, time.Hour, 0, false, 0},
		"drain":                   {egress.ShutdownDrain, 10 * time.Second, 0, true, 10 * time.Second},
		"a second signal":         {egress.ShutdownDrain, time.Hour, 3 * time.Second, true, 3 * time.Second},
		"an operator's is longer": {egress.ShutdownDrain, time.Hour, 0, true, deadline + endGrace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals := make(chan os.Signal, 2)
				r := &leavingRouter{settings: egress.Settings{Shutdown: tt.shutdown, Drain: drain.Order{Deadline: deadline}}, takes: tt.takes}
				time.AfterFunc(time.Second, func() { signals <- syscall.SIGTERM })
				if tt.second > 0 {
					time.AfterFunc(time.Second+tt.second, func() { signals <- syscall.SIGINT })
				}
				begin := time.Now()
				drained := untilSignal(t.Context(), signals, r, slog.New(slog.DiscardHandler))
				took := time.Since(begin) - time.Second
				if drained != tt.drained || took != tt.least || r.asked.IsZero() == tt.drained {
					t.Errorf("drained %v after %s", drained, took)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := &leavingRouter{settings: egress.Settings{Shutdown: egress.ShutdownDrain}}
	if untilSignal(ctx, nil, r, slog.New(slog.DiscardHandler)) || !r.asked.IsZero() {
		t.Error("a daemon that fails drains")
	}
}
