package probestest

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/egret-router/egret/probes"
)

// prober is what the fake and the real one have in common.
type prober interface {
	Set([]probes.Config) error
	State() []probes.State
	Changes(after uint64) []probes.Change
	Close()
}

var (
	_ prober = (*Fake)(nil)
	_ prober = (*probes.Prober)(nil)
)

func ping(name string) probes.Config {
	// The device does not exist, so the real one sends nothing.
	return probes.Config{Name: name, Network: "red", Device: "egret-nowhere", Type: probes.ICMP, Require: probes.Any,
		Interval: time.Hour, AttemptTimeout: time.Second, Rise: 1, Fall: 1, Targets: []probes.Target{{Address: netip.MustParseAddr("192.0.2.1")}}}
}

// TestLikeTheRealOne: both answer the same to a sequence of Sets.
func TestLikeTheRealOne(t *testing.T) {
	fake, real := New(), probes.New(slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	bad := ping("bad")
	bad.Fall = 0
	for i, want := range [][]probes.Config{nil, {ping("b"), ping("a")}, {ping("a"), bad, ping("a")}, {ping("c")}, {}} {
		errs := [2]bool{}
		names := [2][]string{}
		for k, p := range []prober{fake, real} {
			errs[k] = p.Set(want) != nil
			for _, s := range p.State() {
				if s.Verdict != probes.Unknown || len(s.Targets) != 1 || s.Since.IsZero() {
					t.Errorf("step %d: %+v", i, s)
				}
				names[k] = append(names[k], s.Name)
			}
		}
		if errs[0] != errs[1] || !reflect.DeepEqual(names[0], names[1]) {
			t.Errorf("step %d: errors %v, names %v", i, errs, names)
		}
	}
	for _, p := range []prober{fake, real} {
		p.Close()
		if err := p.Set(nil); !errors.Is(err, probes.ErrClosed) {
			t.Errorf("%T: set after close: %v", p, err)
		}
	}
}

func TestPut(t *testing.T) {
	f := New()
	calls := 0
	f.Notify(func() { calls++; _ = f.State() })
	f.Put("a", probes.Up) // before it runs
	if err := f.Set([]probes.Config{ping("a"), ping("b")}); err != nil {
		t.Fatal(err)
	}
	verdicts := func() (a, b probes.Verdict) { s := f.State(); return s[0].Verdict, s[1].Verdict }
	if a, b := verdicts(); a != probes.Up || b != probes.Unknown || calls != 0 {
		t.Errorf("%v %v, %d calls", a, b, calls)
	}
	f.Put("b", probes.Down)
	f.Put("b", probes.Down)
	if a, b := verdicts(); a != probes.Up || b != probes.Down || calls != 1 {
		t.Errorf("%v %v, %d calls", a, b, calls)
	}
	if ts := f.State()[1].Targets[0]; ts.Verdict != probes.Down || ts.LastError == "" {
		t.Errorf("%+v", ts)
	}
	broken := errors.New("broken")
	f.FailSets(broken, nil)
	if err := f.Set(nil); !errors.Is(err, broken) || len(f.Configs()) != 2 {
		t.Errorf("%v, %d configs", err, len(f.Configs()))
	}
	if err := f.Set([]probes.Config{ping("b")}); err != nil || len(f.Configs()) != 1 || f.Sets() != 3 {
		t.Errorf("%v, %d configs, %d sets", err, len(f.Configs()), f.Sets())
	}
	// A probe that went and comes back begins anew.
	if err := f.Set([]probes.Config{ping("a"), ping("b")}); err != nil {
		t.Fatal(err)
	}
	if a, b := verdicts(); a != probes.Unknown || b != probes.Down {
		t.Errorf("%v %v", a, b)
	}
}
