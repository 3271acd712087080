package probes

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestChanges: each change is told with its cause and how long it took.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := testProber(quiet(), nil, w.attempts)
		defer p.Close()
		mustSet(t, p, ping("red/icmp", 1, 2))
		time.Sleep(5 * time.Second)
		up := p.Changes(0)
		if len(up) != 3 || up[0].Whole || !up[1].Whole || up[0].Seq != 1 || up[2].Seq != 3 {
			t.Fatalf("%+v", up)
		}
		for _, c := range up {
			if c.From != Unknown || c.To != Up || c.Probe != "red/icmp" || c.Network != "red" || c.Cause != "" || c.Detection != 0 || c.Attempts != 3 || c.Suppressed || c.Released {
				t.Errorf("%+v", c)
			}
		}
		w.set("red/icmp 10.0.0.1", true)
		time.Sleep(5 * time.Second)
		down := p.Changes(3)
		if len(down) != 1 {
			t.Fatalf("%+v", down)
		}
		if c := down[0]; c.Whole || c.Target != "10.0.0.1" || c.From != Up || c.To != Down || !strings.Contains(c.Cause, "no answer within 300ms") ||
			c.Detection != 600*time.Millisecond || c.Attempts != 2 {
			t.Errorf("%+v", c)
		}
		w.set("red/icmp 10.0.0.2", true)
		time.Sleep(5 * time.Second)
		if last := p.Changes(4); len(last) != 2 || !last[1].Whole || last[1].To != Down || last[1].Detection != 600*time.Millisecond || last[1].Target != "10.0.0.2" {
			t.Errorf("%+v", last)
		}
		s := one(t, p)
		if s.Changes != 2 || s.Targets[0].Changes != 2 || s.Targets[0].Detection != 600*time.Millisecond || s.Network != "red" {
			t.Errorf("%+v", s)
		}
		if got := p.Changes(6); got != nil {
			t.Errorf("%+v", got)
		}
		if got := p.Changes(math.MaxUint64); got != nil {
			t.Errorf("%+v", got)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for range changesKept + 10 {
		h.add(Change{})
	}
	got := h.since(0)
	if len(got) != changesKept || got[0].Seq != 11 || got[changesKept-1].Seq != changesKept+10 {
		t.Errorf("%d changes, from %d", len(got), got[0].Seq)
	}
	if got := h.since(changesKept + 9); len(got) != 1 || got[0].Seq != changesKept+10 {
		t.Errorf("%+v", got)
	}
}

func TestPacketsPerSecond(t *testing.T) {
	c := ping("a", 1, 2)
	if got := c.PacketsPerSecond(); math.Abs(got-4/0.285) > 0.01 {
		t.Errorf("%v packets per second", got)
	}
	c.Type, c.Targets = HTTP, []Target{{URL: "https://10.0.0.1/"}}
	if got := c.PacketsPerSecond(); math.Abs(got-16/0.285) > 0.01 {
		t.Errorf("%v packets per second", got)
	}
}

func TestTargetString(t *testing.T) {
	source := netip.MustParseAddr("10.0.0.9")
	for want, target := range map[string]Target{
		"10.0.0.1":                       {Address: netip.MustParseAddr("10.0.0.1")},
		"10.0.0.1 from 10.0.0.9":         {Address: netip.MustParseAddr("10.0.0.1"), Source: source},
		"[fd00::1]:80":                   {Endpoint: netip.MustParseAddrPort("[fd00::1]:80")},
		"http://10.0.0.1/ from 10.0.0.9": {URL: "http://10.0.0.1/", Source: source},
	} {
		if got := target.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
