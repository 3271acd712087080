package main

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
)

func TestParseResult(t *testing.T) {
	text := "Params: count 32  min_pkt_size: 60  max_pkt_size: 60\nCurrent:\n     pkts-sofar: 32  errors: 0\nResult: OK: 1234(c1230+d4) usec, 32 (60byte,0frags)\n  25931pps 12Mb/sec (12446880bps) errors: 0\n"
	sent, took, err := parseResult(text)
	if err != nil || sent != 32 || took != 1234*time.Microsecond {
		t.Errorf("%d packets in %v, %v", sent, took, err)
	}
	for _, bad := range []string{"", "Result: Idle\n", "Result: OK: max_before_softirq=2\n"} {
		if _, _, err := parseResult(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestCommands(t *testing.T) {
	four := stream{src: netip.MustParseAddr("10.64.0.1"), dst: netip.MustParseAddr("198.18.0.1"), mac: nowhere, srcPort: 10032, dstPort: 9, portAt: toNetwork}
	got := strings.Join(four.commands(7), "; ")
	for _, want := range []string{"count 7", "pkt_size 60", "src_min 10.64.0.1", "dst_max 198.18.0.1", "udp_src_min 10032; udp_src_max 10064; udp_dst_min 9; udp_dst_max 9"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	six := stream{src: netip.MustParseAddr("2001:db8::1"), dst: netip.MustParseAddr("fd00::1"), srcPort: 9, dstPort: 10032, portAt: toClients}
	commands := six.commands(7)
	for _, want := range []string{"src6 2001:db8::1", "dst6 fd00::1", "udp_src_max 9", "udp_dst_min 10032", "udp_dst_max 10064"} {
		if !slices.Contains(commands, want) {
			t.Errorf("no %q in %q", want, commands)
		}
	}
}

func TestOtherHostOf(t *testing.T) {
	stats := make([]byte, 25*8)
	binary.NativeEndian.PutUint64(stats[24*8:], 77)
	if n, err := otherHostOf(stats); err != nil || n != 77 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := otherHostOf(stats[:24*8]); err == nil {
		t.Error("statistics of an older kernel are accepted")
	}
}

func TestConverged(t *testing.T) {
	c := egretCase(1, 1, false)
	status := func() *egress.Status {
		return &egress.Status{
			Networks: []egress.NetworkStatus{{Name: "n0", Phase: egress.PhaseUp}},
			Policies: []egress.PolicyStatus{{Name: "all", Rules: []egress.RuleStatus{{Forwarding: true}}}},
		}
	}
	if err := converged(status(), c); err != nil {
		t.Error(err)
	}
	for i, change := range []func(*egress.Status){
		func(s *egress.Status) { s.Round.LastError = "broken" },
		func(s *egress.Status) { s.Networks[0].Phase = egress.PhaseDown },
		func(s *egress.Status) { s.Networks = nil },
		func(s *egress.Status) { s.Policies = nil },
		func(s *egress.Status) { s.Policies[0].Rules[0].Forwarding = false },
	} {
		s := status()
		change(s)
		if converged(s, c) == nil {
			t.Errorf("converged after change %d", i)
		}
	}
}
