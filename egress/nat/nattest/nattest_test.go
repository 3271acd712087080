package nattest

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/egret-router/egret/egress/nat"
)

func config() nat.Config {
	return nat.Config{
		ClientInterfaces: []string{"eth0"},
		ClientPrefixes:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Networks:         []nat.Network{{Name: "red", Device: "red", Ports: []string{"eth1"}, Zone: 1}},
	}
}

func TestFakeFollowsPlans(t *testing.T) {
	f, ctx := New(), t.Context()
	want := nat.Render(config())
	plan := nat.Diff(nat.Ruleset{}, want)
	if err := f.Check(ctx, plan); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(ctx, plan); err != nil {
		t.Fatal(err)
	}
	have, err := f.Snapshot(ctx)
	if err != nil || !have.Equal(want) || !f.Ruleset().Equal(want) {
		t.Fatalf("%v\n%s", err, have)
	}
	if err := f.Apply(ctx, plan); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("the same plan again: %v", err)
	}
	if err := f.Apply(ctx, nat.RemoveAllButGuards(have)); err != nil {
		t.Error(err)
	}
	if err := f.Delete(ctx); err != nil || f.Ruleset().Exists {
		t.Errorf("after Delete: %v\n%s", err, f.Ruleset())
	}
	if n := len(f.Plans()); n != 2 {
		t.Errorf("%d plans", n)
	}
}

func TestFakeFails(t *testing.T) {
	f, ctx := New(), t.Context()
	plan := nat.Diff(nat.Ruleset{}, nat.Render(config()))
	boom := errors.New("boom")
	f.Fail(Apply, 2, boom)
	f.FailAfter(Apply, 3, nil)
	f.Fail(Snapshot, 1, nil)
	if err := f.Apply(ctx, plan); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(ctx, nat.RemoveAllButGuards(f.Ruleset())); !errors.Is(err, boom) || f.Ruleset().Sets["clients4"].Key == "" {
		t.Errorf("second: %v", err)
	}
	if err := f.Apply(ctx, nat.RemoveAllButGuards(f.Ruleset())); !errors.Is(err, ErrInjected) || f.Ruleset().Sets["clients4"].Key != "" {
		t.Errorf("third: %v", err)
	}
	if _, err := f.Snapshot(ctx); !errors.Is(err, ErrInjected) {
		t.Errorf("snapshot: %v", err)
	}
	if _, err := f.Snapshot(ctx); err != nil {
		t.Errorf("second snapshot: %v", err)
	}
	if f.Calls(Apply) != 3 || f.Calls(Snapshot) != 2 {
		t.Errorf("%d and %d calls", f.Calls(Apply), f.Calls(Snapshot))
	}
}

func TestFakeWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		ctx, cancel := context.WithCancel(t.Context())
		var seen atomic.Int32
		go func() { _ = f.Watch(ctx, func() { seen.Add(1) }) }()
		synctest.Wait()
		if err := f.Apply(ctx, nat.Diff(nat.Ruleset{}, nat.Render(config()))); err != nil {
			t.Fatal(err)
		}
		if seen.Load() != 0 {
			t.Error("a notification of our own change")
		}
		f.Edit(func(r *nat.Ruleset) { *r = nat.Ruleset{} })
		if seen.Load() != 1 || f.Ruleset().Exists {
			t.Errorf("%d notifications", seen.Load())
		}
		cancel()
		synctest.Wait()
		if f.Watching() != 0 {
			t.Error("still watching")
		}
	})
}

func TestFakeFlowtable(t *testing.T) {
	f, ctx := New(), t.Context()
	if has, err := f.HasFlowtable(ctx); has || err != nil {
		t.Errorf("a new fake: %t, %v", has, err)
	}
	f.SetFlowtable(true)
	f.Fail(HasFlowtable, 1, nil)
	if has, err := f.HasFlowtable(ctx); has || !errors.Is(err, ErrInjected) {
		t.Errorf("told to fail: %t, %v", has, err)
	}
	if has, err := f.HasFlowtable(ctx); !has || err != nil {
		t.Errorf("set: %t, %v", has, err)
	}
	cfg := config()
	cfg.FlowDevices = []string{"eth0", "eth1"}
	with, without := nat.Render(cfg), nat.Render(config())
	for _, want := range []nat.Ruleset{without, with, without} {
		if err := f.Apply(ctx, nat.Diff(f.Ruleset(), want)); err != nil || !f.Ruleset().Equal(want) {
			t.Errorf("%v in\n%s", err, nat.Diff(f.Ruleset(), want))
		}
	}
}
