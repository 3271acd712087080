package bgptest

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/egret-router/egret/bgp"
)

// Both are speakers.
var _ = []interface {
	Set(context.Context, []bgp.Config) error
	State() []bgp.State
	Close(graceful bool)
}{(*Speaker)(nil), (*bgp.Speaker)(nil)}

func TestSpeaker(t *testing.T) {
	s := New()
	red := bgp.Config{Network: "red", ASN: 64512, RouterID: netip.MustParseAddr("10.255.0.1"),
		Advertise: []bgp.Advertisement{{Prefix: netip.MustParsePrefix("198.51.100.0/28")}}}
	blue := red
	blue.Network = "blue"
	s.PutState(bgp.State{Network: "red", Synced: true})
	if err := s.Set(t.Context(), []bgp.Config{red, blue}); err != nil {
		t.Fatal(err)
	}
	red.Advertise[0].Communities = []uint32{1}
	if c, ok := s.Config("red"); !ok || c.Advertise[0].Communities != nil {
		t.Errorf("the configuration was not copied: %+v, %t", c, ok)
	}
	if st := s.State(); len(st) != 2 || st[0].Network != "blue" || st[0].Synced || !st[1].Synced {
		t.Errorf("state %+v", st)
	}
	bad := red
	bad.ASN = 0
	if err := s.Set(t.Context(), []bgp.Config{bad}); err == nil || !strings.Contains(err.Error(), `"red"`) {
		t.Errorf("invalid configuration: %v", err)
	}
	if c, _ := s.Config("red"); c.ASN != 64512 {
		t.Errorf("an invalid configuration was taken: %+v", c)
	}
	if _, ok := s.Config("blue"); ok {
		t.Error("blue was not removed")
	}
	if err := s.Set(t.Context(), []bgp.Config{red, red}); err == nil {
		t.Error("a network was set twice")
	}
	broken := errors.New("broken")
	s.FailSet(func([]bgp.Config) error { return broken })
	if err := s.Set(t.Context(), nil); !errors.Is(err, broken) {
		t.Errorf("injected failure: %v", err)
	}
	if h := s.History(); len(h) != 4 || len(h[0]) != 2 {
		t.Errorf("history %+v", h)
	}
	s.FailSet(nil)
	s.Close(true)
	if closed, graceful := s.Closed(); !closed || !graceful {
		t.Error("not closed")
	}
	if err := s.Set(t.Context(), nil); !errors.Is(err, bgp.ErrClosed) {
		t.Errorf("Set after Close: %v", err)
	}
}
