package acceptance

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// TestDaemon goes through what an operator does with a running gateway: a
// second daemon, broken reloads, rules that skip, drop and reject.
func TestDaemon(t *testing.T) {
	g := topology(t, lab.OverlapOptions{})
	g.start(options{}.config())
	g.up(options{})
	t.Run("a second daemon is refused", func(t *testing.T) { g.second(t) })
	t.Run("a broken file changes nothing", func(t *testing.T) { g.brokenReload(t) })
	t.Run("skip, drop and reject", func(t *testing.T) { g.actions(t) })
	t.Run("metrics", func(t *testing.T) { g.metrics(t) })
	t.Run("removing a network", func(t *testing.T) { g.removal(t) })
}

func (g *gateway) second(t *testing.T) {
	for _, command := range []string{"run", "teardown"} {
		out, err := g.Egret(command, "--config", g.ConfigPath())
		if err == nil || !strings.Contains(err.Error(), "another egret runs in this network namespace") {
			t.Errorf("%s beside the running daemon: %v\n%s", command, err, out)
		}
	}
	g.phases("Up", "Up")
}

func (g *gateway) brokenReload(t *testing.T) {
	stop := g.streams(traffic.UDP, clients...)
	good := options{}.config()
	for _, tt := range []struct{ text, want string }{
		{strings.Replace(good, "asn: 64512", "asn: 0", 1), "networks[0].bgp.asn"},
		{strings.Replace(good, "network: red, pool", "network: rde, pool", 1), "policies[0].rules[0].network"},
		{strings.Replace(good, "interfaces: [eth1]", "interface: [eth1]", 1), "networks[0].interface"},
		{"networks: [", "egret.yaml"},
		{"", "egret.yaml"},
	} {
		if err := g.WriteConfig(tt.text); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, patience, "the refusal of "+tt.want, func() error {
			s, err := g.status()
			if err == nil && !strings.Contains(s.Config.Error, tt.want) {
				err = errors.New("the status says " + s.Config.Error)
			}
			return err
		})
	}
	if err := os.Remove(g.ConfigPath()); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patience, "the missing file in the status", func() error {
		s, err := g.status()
		if err == nil && !strings.Contains(s.Config.Error, "no such file") {
			err = errors.New("the status says " + s.Config.Error)
		}
		return err
	})
	g.reload(t, good)
	for c, r := range stop() {
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("%s lost %d of %d packets over refused reloads", c, r.Lost, r.Sent)
		}
	}
}

func (g *gateway) actions(t *testing.T) {
	o := options{policies: `
  - name: team-a
    clients: [10.244.1.0/24, "fd00:244:1::/48"]
    rules:
      - {network: red, pool: red-pool}
      - {destination: 10.0.0.5, action: reject}
      - {destination: "fd00:10::5", action: drop}
  - name: team-b
    clients: [10.244.2.0/24, "fd00:244:2::/48"]
    rules:
      - {destination: 10.0.0.0/8, network: blue, pool: blue-pool}
      - {destination: 10.0.0.5}
      - {destination: "fd00:10::/64", network: blue, pool: blue-pool}`}
	g.reload(t, o.config())
	ask := func(client string) error {
		source := netip.MustParseAddr(client)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		_, err := g.Ask(ctx, netip.AddrPortFrom(source, 0), server(source))
		return err
	}
	if err := ask(lab.ClientA4); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a rejected connection ended with %v, want connection refused", err)
	}
	if err := ask(lab.ClientA6); err == nil || strings.Contains(err.Error(), "refused") {
		t.Errorf("a dropped connection ended with %v, want silence", err)
	}
	// Skipped traffic is routed normally, and normally there is no route.
	if err := ask(lab.ClientB4); err == nil || !strings.Contains(err.Error(), "no route to host") && !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("skipped traffic ended with %v, want the gateway's own answer: unreachable", err)
	}
	g.answer(lab.ClientB6, "blue", o.pools("blue"))
	g.reload(t, options{}.config())
	for _, c := range clients {
		g.answer(c, teamNetwork(c), options{}.pools(teamNetwork(c)))
	}
}

func (g *gateway) metrics(t *testing.T) {
	var body string
	err := g.Gateway.Do(func() error {
		r, err := traffic.Fetch(t.Context(), netip.AddrPort{}, "http://127.0.0.1:9643/metrics")
		body = string(r.Body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`egret_network_up{network="red"} 1`, `egret_network_up{network="blue"} 1`,
		`egret_bgp_session_established{network="red",peer="172.16.0.2"} 1`, `egret_pool_advertised{network="blue",pool="blue-pool"} 1`,
		`egret_config_last_reload_successful 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// removal takes blue out of the configuration: its pools are withdrawn, its
// port is free, and red's streams do not notice.
func (g *gateway) removal(t *testing.T) {
	stop := g.streams(traffic.UDP, teamA...)
	full := options{}.config()
	i, j := strings.Index(full, "\n  - name: blue"), strings.Index(full, "\npools:")
	only := full[:i] + full[j:]
	only = strings.Replace(only, "  - {name: blue-pool, network: blue, prefixes: ["+bluePools+"]}\n", "", 1)
	k := strings.Index(only, "\n  - {name: team-b")
	only = only[:k] + "\n"
	g.reload(t, only)
	for _, p := range (options{}).pools("blue") {
		if err := g.Blue.Router.WaitRoute(t.Context(), patience, p, false); err != nil {
			t.Error(err)
		}
	}
	if out := g.Gateway.Must("ip", "-o", "link", "show", "eth2"); strings.Contains(out, "master") {
		t.Errorf("the removed network's port is still enslaved: %s", out)
	}
	for c, r := range stop() {
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("%s lost %d of %d packets while the other network was removed", c, r.Lost, r.Sent)
		}
	}
}
