package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
)

// answers are what the daemon says, one after the other; nil is that it does not.
type answers []*egress.Status

func (a *answers) status(context.Context) (*egress.Status, error) {
	now := (*a)[0]
	if len(*a) > 1 {
		*a = (*a)[1:]
	}
	if now == nil {
		return nil, errors.New("no egret daemon answers")
	}
	return now, nil
}

func statusOf(networks ...egress.NetworkStatus) *egress.Status {
	return &egress.Status{Networks: networks}
}

func drainedNetwork(name string, stage drain.Stage, begun, left int) egress.NetworkStatus {
	return egress.NetworkStatus{Name: name, Drain: &egress.DrainStatus{Stage: stage, Counted: begun > 0, FlowsBegun: begun, FlowsEnded: begun - left, FlowsLeft: left,
		Deadline: time.Date(2000, 1, 1, 12, 30, 0, 0, time.UTC)}}
}

// TestDrainWait: what a person sees, and how it ends.
func TestDrainWait(t *testing.T) {
	idle := egress.NetworkStatus{Name: "blue"}
	cut := drainedNetwork("red", drain.Withdrawn, 5, 2)
	cut.Drain.Cut = true
	for name, tt := range map[string]struct {
		network string
		answers answers
		want    string
		err     string
	}{
		"to the end, over a restart": {"red", answers{
			statusOf(idle, egress.NetworkStatus{Name: "red"}),
			statusOf(idle, drainedNetwork("red", drain.Lowered, 0, 0)),
			statusOf(idle, drainedNetwork("red", drain.Refusing, 0, 0)),
			nil, nil, nil,
			statusOf(idle, drainedNetwork("red", drain.Refusing, 5, 5)),
			statusOf(idle, drainedNetwork("red", drain.Refusing, 5, 5)),
			statusOf(idle, drainedNetwork("red", drain.Withdrawn, 5, 2)),
		}, `red: routers are asked to prefer other ways
red: no new flows are taken
red: no new flows are taken; 5 flows are left, until 12:30:00
red: withdrawn; 3 flows ended by themselves, 2 were left
`, ""},
		"all networks": {"", answers{
			statusOf(drainedNetwork("blue", drain.Withdrawn, 0, 0), drainedNetwork("red", drain.Lowered, 0, 0)),
			statusOf(drainedNetwork("blue", drain.Withdrawn, 0, 0), cut),
		}, `blue: withdrawn; flows could not be counted
red: routers are asked to prefer other ways
red: withdrawn; 3 flows ended by themselves, 2 were cut
`, ""},
		"taken back": {"red", answers{
			statusOf(drainedNetwork("red", drain.Lowered, 0, 0)), statusOf(egress.NetworkStatus{Name: "red"}),
		}, "red: routers are asked to prefer other ways\n", "network red is not drained any more"},
		"removed": {"red", answers{
			statusOf(drainedNetwork("red", drain.Lowered, 0, 0)), statusOf(idle),
		}, "red: routers are asked to prefer other ways\n", "network red is not there any more"},
		"gone for good": {"red", answers{
			statusOf(drainedNetwork("red", drain.Lowered, 0, 0)), nil,
		}, "red: routers are asked to prefer other ways\n", "the drain goes on, but waiting for it ends: no egret daemon answers"},
		"never begun": {"red", answers{statusOf(egress.NetworkStatus{Name: "red"})}, "", "the daemon does not begin"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				now := func() time.Time { return time.Now().UTC() }
				w := drainWait{status: tt.answers.status, network: tt.network, out: &out, now: now, seen: map[string]string{}}
				err := w.run(t.Context())
				if out.String() != tt.want {
					t.Errorf("printed\n%s", out.String())
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}
