package flowstest

import (
	"context"
	"errors"
	"os"
	"reflect"
	"testing"

	"github.com/egret-router/egret/egress/flows"
)

func list() []flows.Flow {
	return []flows.Flow{
		{Mark: 0x10010001, SrcPort: 1}, {Mark: 0x10010001, SrcPort: 2}, {Mark: 0x10020001, SrcPort: 3}, {Mark: 0x20000000, SrcPort: 4},
	}
}

func all(flows.Flow) bool { return true }

func TestSweep(t *testing.T) {
	f := New(list()...)
	r, err := f.Sweep(t.Context(), 0x10000000, 0x10000000, nil)
	if want := (flows.Result{Seen: 3, ByMark: map[uint32]int{0x10010001: 2, 0x10020001: 1}}); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = f.Sweep(t.Context(), 0x10010000, 0x1fff0000, func(flow flows.Flow) bool {
		f.Add(flows.Flow{Mark: 0x10010001, SrcPort: 5}) // begins too late for this sweep
		return flow.SrcPort == 2
	})
	if err != nil || r.Seen != 2 || r.Cut != 1 || len(f.Flows()) != 5 {
		t.Errorf("%+v, %v, %+v", r, err, f.Flows())
	}
	r, err = f.Sweep(t.Context(), 0x10000000, 0x10000000, func(flows.Flow) bool {
		f.Remove(all)
		return true
	})
	if err != nil || r.Seen != 4 || r.Cut != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := f.Sweep(t.Context(), 0, 0, all); err == nil {
		t.Error("an empty mask passed")
	}
}

func TestFailures(t *testing.T) {
	f := New(list()...)
	mine := errors.New("mine")
	f.Fail(Sweep, 2, mine)
	f.FailAfter(3, 2, nil)
	f.Fail(Stats, 1, nil)
	for i, want := range []struct {
		err  error
		left int
	}{{nil, 4}, {mine, 4}, {ErrInjected, 2}, {nil, 1}} {
		judge := all
		if i == 0 {
			judge = nil
		}
		if _, err := f.Sweep(t.Context(), 0x10000000, 0x10000000, judge); !errors.Is(err, want.err) || len(f.Flows()) != want.left {
			t.Errorf("sweep %d: %v, left %+v", i, err, f.Flows())
		}
	}
	if _, err := f.Stats(t.Context()); !errors.Is(err, ErrInjected) {
		t.Error(err)
	}
	f.SetStats(flows.Stats{Count: 9, Max: 10})
	if s, err := f.Stats(t.Context()); err != nil || s != (flows.Stats{Count: 1, Max: 10}) {
		t.Errorf("%+v, %v", s, err)
	}
	if f.Calls(Sweep) != 4 || f.Calls(Stats) != 2 {
		t.Errorf("%d sweeps, %d stats", f.Calls(Sweep), f.Calls(Stats))
	}
}

func TestEnds(t *testing.T) {
	f := New(list()...)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := f.Sweep(ctx, 0x10000000, 0x10000000, func(flows.Flow) bool { cancel(); return false })
	if !errors.Is(err, context.Canceled) || r.Seen != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Sweep(t.Context(), 1, 1, nil); !errors.Is(err, os.ErrClosed) {
		t.Error("sweep after close", err)
	}
	if _, err := f.Stats(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Error("stats after close", err)
	}
}

// The fake has the methods of the real table.
type table interface {
	Sweep(ctx context.Context, mark, mask uint32, judge func(flows.Flow) bool) (flows.Result, error)
	Stats(ctx context.Context) (flows.Stats, error)
	Close() error
}

var _, _ table = (*Fake)(nil), (*flows.Table)(nil)
