package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/probes/echo"
)

// TestTargetsOf: a node is asked once about all its gateways, by an address of a
// family that this node has.
func TestTargetsOf(t *testing.T) {
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	cfg := steer.Config{Tunnel: steer.Tunnel{Local: addrs("2001:db8::9")}, Gateways: []steer.Gateway{
		{ID: "a/red@n1", Endpoints: addrs("192.0.2.1", "2001:db8::1")}, {ID: "a/blue@n1", Endpoints: addrs("192.0.2.1", "2001:db8::1")},
		{ID: "a/red@n2", Endpoints: addrs("2001:db8::2")}, {ID: "a/red@n3", Endpoints: addrs("192.0.2.3")}}}
	want := []echo.Target{{Endpoint: netip.MustParseAddrPort("[2001:db8::1]:9"), Instances: []string{"a/red@n1", "a/blue@n1"}},
		{Endpoint: netip.MustParseAddrPort("[2001:db8::2]:9"), Instances: []string{"a/red@n2"}}}
	if diff := cmp.Diff(want, targetsOf(cfg, 9), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
}

func TestMarkMask(t *testing.T) {
	for text, want := range map[string]string{
		"0x30ff": "", "1073745919": "",
		"red": `--mark-mask "red" is not a number`, "": `--mark-mask "" is not`, "0x100003000": "32 bits",
		"0": "--mark-mask: mark mask 0x0 has none of the bits", "0xffff": "kube-proxy",
	} {
		mask, err := markMask(text)
		if want == "" && (err != nil || mask == 0) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %#x, %v; want %q", text, mask, err, want)
		}
	}
}

func TestHealthOf(t *testing.T) {
	states := map[string]echo.State{"r": echo.Ready, "d": echo.Draining, "f": echo.Failed, "a": echo.Absent}
	prefixed := func(node string) map[string]echo.State {
		out := map[string]echo.State{}
		for id, s := range states {
			out[id+"@"+node] = s
		}
		return out
	}
	got := healthOf([]echo.Status{{Verdict: echo.Up, Instances: prefixed("up")}, {Verdict: echo.Down, Instances: prefixed("down")}, {Verdict: echo.Unknown, Instances: prefixed("new")}})
	want := map[string]steer.Health{"r@up": steer.Ready, "d@up": steer.Draining, "f@up": steer.Down, "a@up": steer.Down}
	for id := range states {
		want[id+"@down"], want[id+"@new"] = steer.Down, steer.Unknown
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
