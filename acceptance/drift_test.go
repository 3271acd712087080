package acceptance

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// TestDriftIsRepaired deletes by hand, one after the other, what is Egret's:
// each is repaired by the event, logged, and traffic goes on.
func TestDriftIsRepaired(t *testing.T) {
	g := topology(t, lab.OverlapOptions{})
	// The resync is far away: only events can bring the repair.
	o := options{more: "resync: 1h"}
	g.start(o.config())
	g.up(o)
	g.empty("before anything is broken")
	table := g.table(t, "red")
	for _, tt := range []struct{ name, command string }{
		{"rule", "ip rule del pref 800"},
		{"IPv6 rule", "ip -6 rule del pref 810"},
		{"catch-all", "ip rule del pref 990"},
		{"learned route", "ip route del 10.0.0.0/24 table " + table},
		{"IPv6 learned route", "ip -6 route del fd00:10::/64 table " + table},
		{"terminal route", "ip route del unreachable default table " + table},
		{"pool route", "ip route del blackhole 198.51.100.0/28 table " + table},
		{"next hops", "ip nexthop flush"},
		{"address", "ip addr del 172.16.0.1/30 dev eth1"},
		{"port out of its VRF", "ip link set eth1 nomaster"},
		{"VRF down", "ip link set red down"},
		{"VRF deleted", "ip link del blue"},
		{"nftables table", "nft delete table inet egret"},
		{"whole ruleset", "nft flush ruleset"},
		{"chain", "nft flush chain inet egret policy_team-a"},
		{"map element", "nft delete element inet egret clients4 { 10.244.1.0/24 }"},
		{"a rule added", "nft insert rule inet egret policy_team-a accept"},
		{"setting", "sysctl -qw net.ipv4.conf.all.rp_filter=1"},
		{"forwarding", "sysctl -qw net.ipv4.ip_forward=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := strings.Count(g.daemon.Log(), "repaired drift")
			g.Gateway.Must("sh", "-c", tt.command)
			g.empty("after " + tt.command)
			for _, c := range clients {
				g.answer(c, teamNetwork(c), o.pools(teamNetwork(c)))
			}
			g.phases("Up", "Up")
			lab.Eventually(t, patience, "the repair in the log", func() error {
				if strings.Count(g.daemon.Log(), "repaired drift") == before {
					return errors.New("not logged")
				}
				return nil
			})
			if s, err := g.status(); err == nil {
				t.Logf("repaired %s after the first event", s.Round.LastRepair.Round(100*time.Microsecond))
			}
		})
	}
}

func (g *gateway) table(t *testing.T, network string) string {
	t.Helper()
	s, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Networks {
		if n.Name == network {
			return fmt.Sprint(n.Table)
		}
	}
	t.Fatalf("no network %q in the status", network)
	return ""
}
