package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// noteFunc is told about an error of a session, with its time.
type noteFunc func(peer netip.Addr, text string, at time.Time)

// tap is the slog handler given to GoBGP. The library reports NOTIFICATIONs with
// their codes and failed connection attempts in its log only, so this is where
// PeerState.LastError comes from. What remains is forwarded, quietly: what
// GoBGP calls an error is a warning here, and its warnings and informations are
// for debugging, since this package itself says what users need.
type tap struct {
	out  slog.Handler
	note noteFunc
	// silent is set once nothing more is to be forwarded.
	silent *atomic.Bool
	// peer is the neighbour that the logger belongs to, if any.
	peer netip.Addr
}

// Enabled is true for everything: failed dials are logged at debug level.
func (t *tap) Enabled(context.Context, slog.Level) bool { return true }

func (t *tap) WithGroup(name string) slog.Handler {
	c := *t
	c.out = t.out.WithGroup(name)
	return &c
}

func (t *tap) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *t
	c.out = t.out.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == "Key" {
			c.peer, _ = netip.ParseAddr(a.Value.String())
		}
	}
	return &c
}

func (t *tap) Handle(ctx context.Context, r slog.Record) error {
	if text := sessionError(r); text != "" && t.peer.IsValid() {
		t.note(t.peer, text, time.Now())
	}
	var level slog.Level
	switch {
	case r.Level >= slog.LevelError:
		level = slog.LevelWarn
	case r.Level >= slog.LevelInfo:
		level = slog.LevelDebug
	default:
		return nil
	}
	if t.silent.Load() || !t.out.Enabled(ctx, level) {
		return nil
	}
	r.Level = level
	return t.out.Handle(ctx, r)
}

// sessionError decodes the log records that tell about a session's failure, ""
// for all others. TestErrors* notice when GoBGP words them differently.
func sessionError(r slog.Record) string {
	switch r.Message {
	case "received notification":
		return "received NOTIFICATION " + decodeNotification(r).String()
	case "sent notification":
		n := decodeNotification(r)
		text := "sent NOTIFICATION " + n.String()
		if n.code == 5 && n.subcode == 1 {
			// All that a peer sends instead of an OPEN in practice is a NOTIFICATION.
			text += "; " + refusedHint
		}
		return text
	case "failed to connect":
		return "connect: " + printable(attr(r, "Error").String())
	case "outgoing connection IO error":
		return "the peer closed the connection before its OPEN message; is this gateway configured there?"
	}
	return ""
}

// refusedHint is for a NOTIFICATION that GoBGP received while a session was set
// up: it does not tell which one.
const refusedHint = "the peer refused our OPEN message, most often because it expects another ASN or router ID"

func decodeNotification(r slog.Record) notification {
	n := notification{
		code:    uint8(number(attr(r, "Code"))),
		subcode: uint8(number(attr(r, "Subcode"))),
	}
	if v := attr(r, "Communicated-Reason"); v.Kind() == slog.KindString {
		n.message = printable(v.String())
	}
	return n
}

func attr(r slog.Record, key string) slog.Value {
	var v slog.Value
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == key {
			v = a.Value
			return false
		}
		return true
	})
	return v
}

func number(v slog.Value) int64 {
	if v.Kind() == slog.KindInt64 {
		return v.Int64()
	}
	return 0
}

// guard runs f and turns a panic into an error: a mistake in handling one
// peer's message must not end the daemon with all its networks.
func guard(what string, f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(err, fmt.Errorf("handle %s: panic: %v", what, p))
		}
	}()
	f()
	return nil
}
