package bfd_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

// TestEnd: nobody, a socket that a killed process left, and a process that has
// really ended when End returns.
func TestEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bfd.sock")
	if err := bfd.End(t.Context(), path); err != nil {
		t.Errorf("without a process: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := bfd.End(t.Context(), path); err != nil {
		t.Errorf("with a stale socket: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		done <- bfd.Serve(context.WithoutCancel(t.Context()), bfd.ServerOptions{Path: path, Log: slog.New(slog.DiscardHandler), Linger: time.Hour})
	}()
	lab.Eventually(t, time.Minute, "the process at the socket", func() error {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
		}
		return err
	})
	if err := bfd.End(t.Context(), path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is left")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
