package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/probes"
)

type source struct {
	status *egress.Status
	state  *egress.State
}

func (s source) Status() *egress.Status  { return s.status }
func (s source) Observed() *egress.State { return s.state }

// serve starts a server and returns its client; the server ends with the test.
func serve(t *testing.T, src Source) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "egret.sock")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, path, src, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	waitFor(t, path)
	return NewClient(path)
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	timeout := time.After(time.Minute)
	for {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return
		}
		select {
		case <-poll.C:
		case <-timeout:
			t.Fatal("the server does not answer")
		}
	}
}

func TestRoundTrip(t *testing.T) {
	src := source{
		status: &egress.Status{Version: "v1", Networks: []egress.NetworkStatus{{Name: "red", Phase: egress.PhaseUp,
			Peers: []egress.PeerStatus{{Address: netip.MustParseAddr("fd00::2"), State: "established"}}}}},
		state: &egress.State{
			Learned:  map[string][]bgp.Route{"red": {{Prefix: netip.MustParsePrefix("10.0.0.0/24"), NextHops: []netip.Addr{netip.MustParseAddr("172.16.0.2")}}}},
			Verdicts: map[string]probes.Verdict{"red/icmp0": probes.Down},
			Drains:   map[string]drain.Record{"red": {Stage: drain.Refusing}}},
	}
	c := serve(t, src)
	s, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Networks) != 1 || s.Networks[0].Peers[0].Address != netip.MustParseAddr("fd00::2") {
		t.Errorf("status came over as %+v", s)
	}
	o, err := c.Observed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if o.Drains["red"].Stage != drain.Refusing || o.Verdicts["red/icmp0"] != probes.Down || o.Learned["red"][0].Prefix.String() != "10.0.0.0/24" {
		t.Errorf("observed came over as %+v", o)
	}
}

func TestNotReadyIsAnError(t *testing.T) {
	c := serve(t, source{})
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "first round") {
		t.Errorf("status before the first round: %v", err)
	}
	if _, err := c.Observed(t.Context()); err == nil || errors.Is(err, ErrNoDaemon) {
		t.Errorf("observed before the first round: %v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewClient(filepath.Join(dir, "none.sock")).Status(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no socket: %v, want ErrNoDaemon", err)
	}
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := NewClient(stale).Status(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("stale socket: %v, want ErrNoDaemon", err)
	}
	// A daemon takes the stale socket over, and protects it.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, stale, source{status: &egress.Status{}}, slog.New(slog.DiscardHandler))
	}()
	waitFor(t, stale)
	if info, err := os.Stat(stale); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket mode %v (%v), want 0660", info.Mode().Perm(), err)
	}
	if err := Serve(ctx, stale, source{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second server on one socket: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	release, err := Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v, want ErrLocked", err)
	}
	release()
	again, err := Lock()
	if err != nil {
		t.Fatalf("lock after release: %v", err)
	}
	again()
}

// eventful is a source with one event, and another that comes when it is asked
// to wait.
type eventful struct{ source }

func (eventful) Started() time.Time { return time.Unix(1000, 0) }
func (eventful) Events(ctx context.Context, after uint64) []egress.Event {
	if after == 0 {
		return []egress.Event{{Seq: 1, Kind: egress.EventProbe, Network: "red", State: "down", Detection: 300 * time.Millisecond}}
	}
	if ctx.Err() != nil {
		return nil
	}
	return []egress.Event{{Seq: after + 1, Kind: egress.EventConfig, State: "taken"}}
}

func TestEvents(t *testing.T) {
	c := serve(t, eventful{})
	got, err := c.Events(t.Context(), 0, false)
	if err != nil || len(got.Events) != 1 || got.Events[0].Detection != 300*time.Millisecond || !got.Started.Equal(time.Unix(1000, 0)) {
		t.Errorf("events came over as %+v, %v", got, err)
	}
	if got, err := c.Events(t.Context(), 1, false); err != nil || len(got.Events) != 0 {
		t.Errorf("without waiting: %+v, %v", got, err)
	}
	if got, err := c.Events(t.Context(), 1, true); err != nil || len(got.Events) != 1 || got.Events[0].Seq != 2 {
		t.Errorf("waiting: %+v, %v", got, err)
	}
	if err := c.get(t.Context(), "/v1/events?after=-1", &Events{}); err == nil || !strings.Contains(err.Error(), `after "-1"`) {
		t.Errorf("a number that is none: %v", err)
	}
}
