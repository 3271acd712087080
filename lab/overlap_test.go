package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// TestOverlap lets a BIRD in the gateway be an ordinary router to one upstream
// after the other, which shows that everything around the gateway works.
func TestOverlap(t *testing.T) {
	lab.Require(t, lab.FRR, lab.BIRD)
	o := lab.MustOverlap(lab.New(t), lab.OverlapOptions{RPFilter: 2})
	checkGateway(t, o)
	for key, value := range map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"} {
		if err := o.Gateway.Sysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	pool := map[string][]netip.Prefix{"red": prefixes("198.51.100.0/28", "2001:db8:51::/64"), "blue": prefixes("203.0.113.0/28", "2001:db8:113::/64")}
	for _, u := range o.Upstreams() {
		t.Run(u.Name, func(t *testing.T) { testUpstream(t, o, u, pool[u.Name]) })
	}
	if err := errors.Join(o.CutBeyond("green"), o.Heal("green")); err == nil {
		t.Error("an unknown upstream is cut")
	}
}

// checkGateway wants the gateway as nobody has prepared it.
func checkGateway(t *testing.T, o *lab.Overlap) {
	t.Helper()
	for key, want := range map[string]string{
		"net.ipv4.conf.all.rp_filter": "2", "net.ipv4.conf.eth1.rp_filter": "2",
		"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0",
	} {
		if got, err := o.Gateway.ReadSysctl(key); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", key, got, err, want)
		}
	}
	if out := o.Gateway.Must("ip", "-br", "addr", "show", "scope", "global"); !strings.Contains(out, "10.244.0.1/16") || strings.Contains(out, "172.16") {
		t.Errorf("addresses of the gateway: %s", out)
	}
}

func testUpstream(t *testing.T, o *lab.Overlap, u *lab.Upstream, pool []netip.Prefix) {
	o.Gateway.MustIP("addr add 172.16.0.1/30 dev "+u.Uplink, "addr add fd00:16::1/64 nodad dev "+u.Uplink)
	// Without translation the router needs routes to the clients.
	u.RouterNS.MustIP("route add 10.244.0.0/16 via 172.16.0.1", "route add fd00:244::/32 via fd00:16::1")
	c := lab.RouterConfig{
		ASN: lab.GatewayASN, RouterID: netip.MustParseAddr(lab.TransferGateway4),
		Accept: prefixes("0.0.0.0/0", "::/0"), Announce: append(prefixes("192.0.2.0/24"), pool...),
	}
	for _, a := range []string{lab.TransferRouter4, lab.TransferRouter6} {
		c.Peers = append(c.Peers, lab.RouterPeer{Address: netip.MustParseAddr(a), ASN: u.ASN})
	}
	gateway, err := lab.StartBIRD(o.Gateway, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pool {
		if err := u.Router.WaitRoute(t.Context(), deadline, p, true); err != nil {
			t.Error(err)
		}
	}
	if filtered, err := u.Router.Filtered(lab.IPv4); err != nil || len(filtered) != 1 || filtered[0] != prefixes("192.0.2.0/24")[0] {
		t.Errorf("the router filters %v, %v", filtered, err)
	}
	for _, p := range prefixes(lab.Destination4, lab.Destination6) {
		if err := gateway.WaitRoute(t.Context(), deadline, p, true); err != nil {
			t.Error(err)
		}
	}
	testTraffic(t, o, u)
	testCut(t, o, u, gateway)
	if err := gateway.Stop(); err != nil {
		t.Error(err)
	}
	o.Gateway.MustIP("addr flush dev " + u.Uplink)
}

// ask wants the upstream's own server to see this very client.
func ask(t *testing.T, o *lab.Overlap, u *lab.Upstream, source, server string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	want := traffic.Answer{Server: u.Name, Client: netip.AddrPortFrom(netip.MustParseAddr(source), 44444)}
	a, err := o.Ask(ctx, want.Client, netip.MustParseAddr(server))
	if err == nil && a != want {
		err = fmt.Errorf("answer %v, want %v", a, want)
	}
	return err
}

func testTraffic(t *testing.T, o *lab.Overlap, u *lab.Upstream) {
	t.Helper()
	sniffer, err := o.Sniff(u.Name, prefixes("10.244.1.0/24", "fd00:244:1::/48")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{lab.ClientA4, lab.Server4}, {lab.ClientA6, lab.Server6}, {lab.ClientB4, lab.Server4}} {
		lab.Eventually(t, deadline, "answer to "+pair[0], func() error { return ask(t, o, u, pair[0], pair[1]) })
	}
	report, err := sniffer.Stop()
	if err != nil || report.Leaked == 0 || report.Allowed == 0 || report.Sources[netip.MustParseAddr(lab.ClientB4)] != report.Leaked {
		t.Errorf("sniffer: %+v, %v; want packets of team b as the only leaks", report, err)
	}
}

// testCut holds that a cut beyond the router is invisible to BGP.
func testCut(t *testing.T, o *lab.Overlap, u *lab.Upstream, gateway *lab.Router) {
	t.Helper()
	if err := o.CutBeyond(u.Name); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, deadline, "loss of carrier", func() error {
		out, err := u.RouterNS.Run("ip", "link", "show", "srv0")
		if err == nil && !strings.Contains(out, "NO-CARRIER") {
			err = errors.New(out)
		}
		return err
	})
	if err := ask(t, o, u, lab.ClientA4, lab.Server4); err == nil {
		t.Error("an answer from beyond the cut")
	}
	if err := gateway.WaitEstablished(t.Context(), deadline); err != nil {
		t.Error(err)
	}
	for _, p := range prefixes(lab.Destination4, lab.Destination6) {
		if err := gateway.WaitRoute(t.Context(), deadline, p, true); err != nil {
			t.Error(err)
		}
	}
	if err := o.Heal(u.Name); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{lab.ClientA4, lab.Server4}, {lab.ClientA6, lab.Server6}} {
		lab.Eventually(t, deadline, "answer after healing to "+pair[0], func() error { return ask(t, o, u, pair[0], pair[1]) })
	}
}
