package main

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/control"
	"github.com/egret-router/egret/egress"
)

// pastSource is a daemon with a past: three events, then one for each question,
// and at the end another daemon in its place.
type pastSource struct {
	answers int
	end     func()
}

func (*pastSource) Status() *egress.Status  { return nil }
func (*pastSource) Observed() *egress.State { return nil }
func (p *pastSource) Started() time.Time    { return time.Unix(int64(p.answers/3), 0) }
func (p *pastSource) Events(_ context.Context, after uint64) []egress.Event {
	p.answers++
	at := time.Now()
	switch {
	case p.answers > 6:
		p.end()
		return nil
	case after > 0:
		return []egress.Event{{Seq: after + 1, At: at, Kind: egress.EventBGP, Network: "blue", Subject: "172.16.0.2", State: "idle", Cause: "hold timer expired"}}
	}
	return []egress.Event{
		{Seq: 1, At: at.Add(-time.Hour), Kind: egress.EventConfig, State: "taken", Subject: "2 networks"},
		{Seq: 2, At: at, Kind: egress.EventProbe, Network: "red", Subject: "red/icmp0 10.0.0.5", State: "down", Cause: "no reply\nat all", Attempts: 2, Detection: 612345 * time.Microsecond},
		{Seq: 3, At: at, Kind: egress.EventPool, Network: "red", Subject: "2 prefixes", State: "withdrawn", Withdraw: 1234 * time.Microsecond},
	}
}

func events(t *testing.T, q eventQuery) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "egret.sock")
	ctx, cancel := context.WithCancel(t.Context())
	src := &pastSource{end: cancel}
	served, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(served, path, src, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client := control.NewClient(path)
	var out bytes.Buffer
	for {
		out.Reset()
		if err := showEvents(ctx, &out, client, q); err == nil {
			return out.String()
		} else if !strings.Contains(err.Error(), control.ErrNoDaemon.Error()) {
			t.Fatal(err)
		}
	}
}

func TestEventsTable(t *testing.T) {
	out := events(t, eventQuery{since: time.Minute})
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], "SUBJECT, CAUSE") ||
		!strings.HasSuffix(lines[1], "probe     red         down          612ms      -          -          red/icmp0 10.0.0.5: no reply ... (2 attempts)") ||
		!strings.HasSuffix(lines[2], "pool      red         withdrawn     -          -          1.23ms     2 prefixes") {
		t.Errorf("printed\n%s", out)
	}
	if out := events(t, eventQuery{after: 3, json: true}); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"seq":4`) {
		t.Errorf("those after 3\n%s", out)
	}
	if out := events(t, eventQuery{network: "red", json: true}); strings.Count(out, "\n") != 2 || !strings.Contains(out, `"detectionNanoseconds":612345000`) {
		t.Errorf("as JSON\n%s", out)
	}
}

func TestEventsSince(t *testing.T) {
	for text, want := range map[string]eventQuery{"": {}, "7": {after: 7}, "5m": {since: 5 * time.Minute}} {
		if q := (eventQuery{}); q.begin(text) != nil || q != want {
			t.Errorf("%q is %+v", text, q)
		}
	}
	for _, text := range []string{"-5m", "0s", "-1", "noon"} {
		if err := (&eventQuery{}).begin(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestEventsFollow: what comes is shown once, and a daemon that took the place of
// the first is read from its beginning.
func TestEventsFollow(t *testing.T) {
	out := events(t, eventQuery{follow: true, json: true})
	if n := strings.Count(out, `"state":"withdrawn"`); n != 2 {
		t.Errorf("two daemons withdrew, shown %d times:\n%s", n, out)
	}
	if !strings.Contains(out, `"seq":4`) || !strings.Contains(out, "hold timer expired") {
		t.Errorf("what came later is missing:\n%s", out)
	}
}
