package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

// TestBFDProcess: the process is started for the first session and no sooner,
// the next daemon knows what it holds, and it ends when nobody wants anything.
// The session is on a device that does not exist, so nothing is sent.
func TestBFDProcess(t *testing.T) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	defer stop()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	ended := make(chan error, 10)
	notified := make(chan struct{}, 100)
	daemon := func() *bfdProcess {
		b := newBFDProcess(dir, time.Minute, log, func() { notified <- struct{}{} })
		b.start = func() error {
			go func() { ended <- bfd.Serve(ctx, bfd.ServerOptions{Path: b.path, Log: log}) }()
			return nil
		}
		return b
	}
	session := bfd.Config{Name: "red/bfd@172.16.0.2", Device: "egret-none", Peer: netip.MustParseAddr("172.16.0.2"),
		DesiredMinTx: time.Second, RequiredMinRx: time.Second, DetectMult: 3}
	first := daemon()
	first.adopt(t.Context())
	if err := first.Set(nil); err != nil || first.client != nil || first.State() != nil {
		t.Errorf("nothing is wanted, and there is a client: %v, %v", first.State(), err)
	}
	if err := first.Set([]bfd.Config{session}); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, time.Minute, "the session", func() error {
		if st := first.State(); len(st) != 1 || st[0].Stale || st[0].Discriminator == 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	<-notified
	was := first.State()[0].Discriminator
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	second := daemon()
	second.adopt(t.Context())
	if st := second.State(); len(st) != 1 || st[0].Stale || st[0].Discriminator != was {
		t.Errorf("the next daemon knows %+v, want the session %d", st, was)
	}
	if err := second.Set([]bfd.Config{session}); err != nil {
		t.Error(err)
	}
	if err := second.Set(nil); err != nil {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the process goes on without anything to do")
	}
	third := daemon()
	third.adopt(t.Context())
	if third.client != nil {
		t.Error("a client without a process and without a wish")
	}
}
