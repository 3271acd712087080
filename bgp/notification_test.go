package bgp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestNotificationText(t *testing.T) {
	for want, n := range map[string]notification{
		"1/2 message header error: bad message length":      {code: 1, subcode: 2},
		"2/2 OPEN message error: bad peer AS":               {code: 2, subcode: 2},
		"2/5 OPEN message error":                            {code: 2, subcode: 5},
		"3/11 UPDATE message error: malformed AS_PATH":      {code: 3, subcode: 11},
		"4/0 hold timer expired":                            {code: 4},
		"6/9 cease: hard reset":                             {code: 6, subcode: 9},
		`6/2 cease: administrative shutdown "back at noon"`: {code: 6, subcode: 2, message: "back at noon"},
		"0/0 unknown error":                                 {},
		"200/1 unknown error":                               {code: 200, subcode: 1},
		"6/255 cease":                                       {code: 6, subcode: 255},
	} {
		if got := n.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzPeerText holds that no text of a peer reaches a terminal unharmed.
func FuzzPeerText(f *testing.F) {
	f.Add("back at noon", uint8(6), uint8(2))
	f.Add("\x1b[2J\x00\xff\u202e", uint8(0), uint8(255))
	f.Fuzz(func(t *testing.T, text string, code, subcode uint8) {
		r := slog.NewRecord(time.Time{}, slog.LevelInfo, "received notification", 0)
		r.AddAttrs(slog.Int("Code", int(code)), slog.Int("Subcode", int(subcode)), slog.String("Communicated-Reason", text))
		got := sessionError(r)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", got)
		}
		if len(printable(text)) > 3*255 {
			t.Errorf("%d bytes", len(printable(text)))
		}
	})
}

func TestTap(t *testing.T) {
	var out bytes.Buffer
	var noted []string
	var silent atomic.Bool
	log := slog.New(&tap{
		out:    slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}).WithAttrs([]slog.Attr{slog.String("network", "red")}),
		note:   func(peer netip.Addr, text string, _ time.Time) { noted = append(noted, peer.String()+" "+text) },
		silent: &silent,
	})
	peer := log.With("Topic", "Peer", "Key", "192.0.2.1")
	peer.Debug("failed to connect", "Error", "dial: connection refused")
	peer.Info("sent notification", "Code", 5, "Subcode", 1, "Data", []byte(nil))
	peer.Debug("outgoing connection IO error", "reason", "read-failed")
	log.Info("received notification", "Code", 6) // of nobody
	log.Error("something broke", "err", errors.New("x"))
	log.Warn("odd")
	log.WithGroup("g").Debug("chatter")
	silent.Store(true)
	log.Error("late")
	if len(noted) != 3 || noted[0] != "192.0.2.1 connect: dial: connection refused" || !strings.HasSuffix(noted[1], refusedHint) {
		t.Errorf("noted %q", noted)
	}
	text := out.String()
	for _, want := range []string{"level=WARN msg=\"something broke\" network=red", "level=DEBUG msg=odd network=red"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	for _, bad := range []string{"chatter", "late", "level=ERROR", "level=INFO"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q in %s", bad, text)
		}
	}
	if !slog.New(&tap{}).Enabled(context.Background(), slog.LevelDebug) {
		t.Error("failed dials would not be seen")
	}
}

func TestSessionEvents(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	s := newSession(Peer{Address: addr("192.0.2.1"), IPv4: true}, at(0))
	up := sessionEvent{state: established, negotiated: [families]bool{true, false}}
	feed := func(second int, e sessionEvent) {
		e.at = at(second)
		s.apply(e)
	}
	feed(1, sessionEvent{state: "active"})
	feed(2, up)
	if s.synced() || !s.announces(ipv4) || s.announces(ipv6) {
		t.Errorf("after the start: %+v", s)
	}
	s.endOfRIB[ipv4] = true
	if !s.synced() {
		t.Error("not synced after End-of-RIB")
	}
	// The NOTIFICATION just before explains more than the reason after it.
	s.fail("received NOTIFICATION 6/2", at(3))
	feed(4, sessionEvent{state: "idle", cause: "connection closed"})
	if s.lastErr != "received NOTIFICATION 6/2" || s.flaps != 1 || s.synced() || s.since != at(4) {
		t.Errorf("after the NOTIFICATION: %+v", s)
	}
	feed(5, sessionEvent{state: "active"})
	feed(6, up)
	feed(7, sessionEvent{state: "idle", cause: "connection closed", kept: true})
	if s.lastErr != "connection closed" || s.flaps != 2 || !s.kept {
		t.Errorf("after the loss: %+v", s)
	}
	feed(8, sessionEvent{state: "active"})
	if !s.kept {
		t.Error("the peer's restart is forgotten")
	}
	feed(9, sessionEvent{state: "idle", cause: "the peer did not come back"})
	if s.kept || s.lastErr != "the peer did not come back" {
		t.Errorf("after the restart time: %+v", s)
	}
	feed(10, up)
	s.down(at(11))
	s.down(at(12))
	if s.flaps != 3 || s.since != at(11) || s.state != "idle" {
		t.Errorf("after our own end: %+v", s)
	}
}

// TestPanic holds that a panic in handling an event is survived, and repaired.
func TestPanic(t *testing.T) {
	t.Parallel()
	if err := guard("paths", func() { panic("bad message") }); err == nil || err.Error() != "handle paths: panic: bad message" {
		t.Errorf("guard: %v", err)
	}
	g := newGateway(t, nil)
	u := startUpstream(t, upstreamConfig{addr: "127.0.0.2", asn: 65001, gateway: g.config.ListenPort})
	u.announce(announcement{prefix: "10.1.0.0/16"})
	g.set(func(c *Config) { c.Peers = []Peer{u.peer(anything...)} })
	g.routes("10.1.0.0/16 via 192.0.2.1")
	n := g.network("red")
	n.changeRIB(func() { n.rib.clear(u.addr) })
	g.routes()
	n.events(n.generation).done(errors.New("handle paths: panic"))
	g.routes("10.1.0.0/16 via 192.0.2.1")
	// What comes from a server before this one is not taken.
	n.events(n.generation-1).path(u.addr, pathKey{prefix: prefix("10.1.0.0/16")}, candidate{}, true)
	g.routes("10.1.0.0/16 via 192.0.2.1")
}
