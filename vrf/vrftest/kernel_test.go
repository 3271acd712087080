package vrftest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/egret-router/egret/vrf"
	"github.com/egret-router/egret/vrf/vrftest"
)

var owner = vrf.Owner{
	Alias: "egret", Protocol: 108, LearnedProtocol: 109,
	NextHopIDs: vrf.Range{First: 0x20000000, Last: 0x2fffffff}, RulePriorities: vrf.Range{First: 800, Last: 999},
}

var want = vrf.Config{VRFs: []vrf.VRF{{Name: "red", Index: 1, Table: 10001, Ports: []vrf.Port{{Name: "eth1"}}}}}

func kernel() *vrftest.Kernel {
	return vrftest.New(owner, vrf.Link{Name: "eth1", Up: true, Carrier: true})
}

func TestFailures(t *testing.T) {
	k, injected := kernel(), errors.New("injected")
	plan := func() vrf.Plan {
		t.Helper()
		have, err := k.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return vrf.Diff(have, want)
	}
	k.FailNth(2, injected)
	if r := k.Apply(t.Context(), plan()); r.Applied != 1 || !errors.Is(r.Err(), injected) {
		t.Errorf("the second step failing: %d applied, %v", r.Applied, r.Err())
	}
	if got := k.Applied(); len(got) != 1 || !strings.Contains(got[0].String(), "type vrf") {
		t.Errorf("applied %v", got)
	}
	k.FailIf(func(a vrf.Action) error {
		if _, ok := a.(vrf.SetMaster); ok {
			return injected
		}
		return nil
	})
	if r := k.Apply(t.Context(), plan()); r.Applied != 2 || !errors.Is(r.Err(), injected) {
		t.Errorf("enslaving failing: %d applied, %v", r.Applied, r.Err())
	}
	k.FailIf(nil)
	if r := k.Apply(t.Context(), plan()); r.Err() != nil || !plan().Empty() {
		t.Errorf("nothing failing: %v, left:\n%s", r.Err(), plan())
	}
	k.FailSnapshot(injected)
	if _, err := k.Snapshot(t.Context()); !errors.Is(err, injected) {
		t.Errorf("snapshot: %v", err)
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, notes := kernel(), 0
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = k.Watch(ctx, func() { notes++ }) }()
		synctest.Wait()
		k.SetCarrier("eth1", false)
		if synctest.Wait(); notes != 1 {
			t.Errorf("%d notifications of a cable", notes)
		}
		cancel()
		synctest.Wait()
		k.SetCarrier("eth1", true)
		if synctest.Wait(); notes != 1 {
			t.Errorf("%d notifications after the end", notes)
		}
	})
}
