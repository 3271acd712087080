package lab_test

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/egret-router/egret/lab"
)

// TestRouters lets FRR and BIRD learn each other's announcements and filter
// what they do not accept.
func TestRouters(t *testing.T) {
	lab.Require(t, lab.FRR, lab.BIRD)
	l := lab.New(t)
	red, blue := l.MustNamespace("red"), l.MustNamespace("blue")
	l.MustLink(red, "eth0", blue, "eth0")
	red.MustIP("addr add 172.16.0.1/30 dev eth0", "addr add fd00:16::1/64 dev eth0 nodad")
	blue.MustIP("addr add 172.16.0.2/30 dev eth0", "addr add fd00:16::2/64 dev eth0 nodad")
	config := func(asn uint32, id, peer4, peer6 string, peer uint32, announce ...netip.Prefix) lab.RouterConfig {
		return lab.RouterConfig{
			ASN: asn, RouterID: netip.MustParseAddr(id),
			Peers: []lab.RouterPeer{
				{Address: netip.MustParseAddr(peer4), ASN: peer},
				{Address: netip.MustParseAddr(peer6), ASN: peer},
			},
			Announce: announce,
			Accept:   prefixes("198.51.100.0/24", "2001:db8:51::/48"),
		}
	}
	announced := prefixes("198.51.100.0/28", "203.0.113.0/28", "2001:db8:51:1::/64", "2001:db8:113::/64")
	frr, err := lab.StartFRR(red, config(65001, "192.0.2.1", "172.16.0.2", "fd00:16::2", 65002, announced...))
	if err != nil {
		t.Fatal(err)
	}
	bird, err := lab.StartBIRD(blue, config(65002, "192.0.2.2", "172.16.0.1", "fd00:16::1", 65001, announced...))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*lab.Router{frr, bird} {
		if err := r.WaitEstablished(t.Context(), deadline); err != nil {
			t.Fatal(err)
		}
	}
	hops := map[*lab.Router][]string{frr: {"172.16.0.2", "fd00:16::2"}, bird: {"172.16.0.1", "fd00:16::1"}}
	for r, hop := range hops {
		checkRoutes(t, r, lab.IPv4, announced[0], hop[0], announced[1])
		checkRoutes(t, r, lab.IPv6, announced[2], hop[1], announced[3])
	}
	t.Run("announce", func(t *testing.T) {
		for from, to := range map[*lab.Router]*lab.Router{frr: bird, bird: frr} {
			more := netip.MustParsePrefix("198.51.100.128/32")
			if err := from.Announce(more, announced[2]); err != nil {
				t.Fatal(err)
			}
			for prefix, present := range map[netip.Prefix]bool{more: true, announced[0]: false, announced[2]: true} {
				if err := to.WaitRoute(t.Context(), deadline, prefix, present); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Run("restart", func(t *testing.T) {
		if err := bird.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := frr.WaitRoute(t.Context(), deadline, announced[2], false); err != nil {
			t.Error(err)
		}
		if err := bird.Start(); err != nil {
			t.Fatal(err)
		}
		if err := frr.WaitRoute(t.Context(), deadline, announced[2], true); err != nil {
			t.Error(err)
		}
	})
	t.Run("graceful restart", func(t *testing.T) {
		// A helper keeps the routes of a peer that was killed; BIRD speaks for itself when it is frozen.
		if err := bird.WaitEstablished(t.Context(), deadline); err != nil {
			t.Fatal(err)
		}
		bird.Kill9()
		lab.Eventually(t, deadline, "end of the session", func() error {
			state, err := frr.BGPState(netip.MustParseAddr("fd00:16::2"))
			if err == nil && state == "Established" {
				return errEstablished
			}
			return err
		})
		if routes, err := frr.Routes(lab.IPv6); err != nil || len(routes[announced[2]]) == 0 {
			t.Errorf("after the peer's death FRR has %v, %v", routes, err)
		}
	})
}

var errEstablished = errors.New("still established")

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// checkRoutes wants exactly one accepted route and one filtered prefix.
func checkRoutes(t *testing.T, r *lab.Router, f lab.Family, prefix netip.Prefix, hop string, refused netip.Prefix) {
	t.Helper()
	if err := r.WaitRoute(t.Context(), deadline, prefix, true); err != nil {
		t.Fatal(err)
	}
	routes, err := r.Routes(f)
	want := map[netip.Prefix][]netip.Addr{prefix: {netip.MustParseAddr(hop)}}
	if err != nil || !reflect.DeepEqual(routes, want) {
		t.Errorf("%s routes of %s: %v, %v, want %v", f, r.Kind, routes, err, want)
	}
	filtered, err := r.Filtered(f)
	if err != nil || !slices.Equal(filtered, []netip.Prefix{refused}) {
		t.Errorf("%s routes filtered by %s: %v, %v, want %v", f, r.Kind, filtered, err, refused)
	}
}
