package acceptance

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// patience bounds every wait: generous, because machines are shared and
// emulated, and because nothing is measured here.
const patience = 2 * time.Minute

// options are what the tests vary of the standard gateway.
type options struct {
	// redPools and bluePools default to a /28 and a /124 each, different ones.
	redPools, bluePools string
	// policies replaces the two standing ones.
	policies string
	// more is appended to the configuration.
	more string
}

const (
	redPools  = `198.51.100.0/28, "2001:db8:51::/124"`
	bluePools = `203.0.113.0/28, "2001:db8:113::/124"`
	policies  = `
  - {name: team-a, clients: [10.244.1.0/24, "fd00:244:1::/48"], rules: [{network: red, pool: red-pool}]}
  - {name: team-b, clients: [10.244.2.0/24, "fd00:244:2::/48"], rules: [{network: blue, pool: blue-pool}]}`
)

// config is the standing configuration: two networks with the same transfer
// subnet, the same peers and the same destinations. Probes are slow to judge,
// because an emulated machine on a busy host stands still for seconds.
func (o options) config() string {
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	network := func(name, port string, asn int) string {
		return fmt.Sprintf(`
  - name: %s
    interfaces: [%s]
    addresses: [172.16.0.1/30, "fd00:16::1/64"]
    bgp:
      asn: 64512
      gracefulRestart: {restartTime: 120s}
      peers:
        - {address: 172.16.0.2, asn: %d, import: [10.0.0.0/8]}
        - {address: "fd00:16::2", asn: %d, import: ["fd00:10::/32"]}
    probes:
      - {type: icmp, targets: [10.0.0.5], interval: 1s, fall: 8, rise: 1}
      - {type: http, targets: ["http://[fd00:10::5]/"], interval: 2s, fall: 5, rise: 1}`, name, port, asn, asn)
	}
	return `clients: {interfaces: [eth0], prefixes: [10.244.0.0/16, "fd00:244::/32"]}
networks:` + network("red", "eth1", lab.RedASN) + network("blue", "eth2", lab.BlueASN) + fmt.Sprintf(`
pools:
  - {name: red-pool, network: red, prefixes: [%s]}
  - {name: blue-pool, network: blue, prefixes: [%s]}
policies:%s
%s`, or(o.redPools, redPools), or(o.bluePools, bluePools), or(o.policies, policies), o.more)
}

// gateway is an Egret in the standard topology.
type gateway struct {
	*lab.Overlap
	running
}

// binary is the egret under test, copied to a local file system: where the
// tests run in a VM, each start would read it anew from the host.
var binary = sync.OnceValues(func() (string, error) {
	path := os.Getenv("EGRET_BIN")
	if path == "" {
		path = filepath.Join("..", "bin", "egret")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("the binary under test is missing (make build): %w", err)
	}
	copied := filepath.Join(os.TempDir(), fmt.Sprintf("egret-under-test-%d", os.Getpid()))
	return copied, os.WriteFile(copied, data, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.Remove(path)
	}
	os.Exit(code)
}

// topology builds the lab's networks; no Egret runs yet.
func topology(t *testing.T, o lab.OverlapOptions) *gateway {
	t.Helper()
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.Conntrack, lab.FRR, lab.BIRD)
	g := &gateway{Overlap: lab.MustOverlap(lab.New(t), o)}
	g.running = running{t: t, host: &g.EgretHost}
	return g
}

// up waits until both networks forward and all pools are in their router's RIB.
func (g *gateway) up(o options) {
	g.t.Helper()
	g.phases("Up", "Up")
	for _, u := range g.Upstreams() {
		if err := u.Router.WaitEstablished(g.t.Context(), patience); err != nil {
			g.t.Fatal(err)
		}
		for _, p := range o.pools(u.Name) {
			if err := u.Router.WaitRoute(g.t.Context(), patience, p, true); err != nil {
				g.t.Fatal(err)
			}
		}
	}
}

// pools are the prefixes of one network's pool.
func (o options) pools(network string) []netip.Prefix {
	text := map[string]string{"red": o.redPools, "blue": o.bluePools}[network]
	if text == "" {
		text = map[string]string{"red": redPools, "blue": bluePools}[network]
	}
	var out []netip.Prefix
	for _, p := range strings.Split(text, ",") {
		out = append(out, netip.MustParsePrefix(strings.Trim(p, ` "`)))
	}
	return out
}

// phases waits for the phases of both networks.
func (g *gateway) phases(red, blue string) {
	g.t.Helper()
	g.wait(map[string]string{"red": red, "blue": blue})
}

// answer waits until a client is answered by the named network's server, as
// an address of pool.
func (g *gateway) answer(client, network string, pool []netip.Prefix) {
	g.t.Helper()
	source := netip.MustParseAddr(client)
	lab.Eventually(g.t, patience, client+" answered by "+network, func() error {
		ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Second)
		defer cancel()
		a, err := g.Ask(ctx, netip.AddrPortFrom(source, 0), server(source))
		if err != nil {
			return err
		}
		return sawPool(a, network, pool)
	})
}

// server is the destination of a client's family.
func server(client netip.Addr) netip.Addr {
	if client.Is4() {
		return netip.MustParseAddr(lab.Server4)
	}
	return netip.MustParseAddr(lab.Server6)
}

// sawPool wants an answer of the named server that saw an address of pool.
func sawPool(a traffic.Answer, network string, pool []netip.Prefix) error {
	if a.Server != network {
		return fmt.Errorf("answered by %s, want %s", a.Server, network)
	}
	for _, p := range pool {
		if p.Contains(a.Client.Addr()) {
			return nil
		}
	}
	return fmt.Errorf("%s saw %s, which is not in its pool %v", a.Server, a.Client, pool)
}

// streams runs a steady UDP stream from each team in each family until stop,
// which returns the reports by client address.
func (g *gateway) streams(protocol traffic.Protocol, clients ...string) (stop func() map[string]traffic.StreamReport) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	var run sync.WaitGroup
	var mu sync.Mutex
	reports := map[string]traffic.StreamReport{}
	for _, c := range clients {
		source := netip.MustParseAddr(c)
		s, err := g.Stream(traffic.StreamOptions{Protocol: protocol, Source: netip.AddrPortFrom(source, 0),
			Dest: netip.AddrPortFrom(server(source), lab.UDPPort), Interval: 50 * time.Millisecond, Linger: 20 * time.Second})
		if err != nil {
			g.t.Fatal(err)
		}
		run.Go(func() {
			r := s.Run(ctx)
			mu.Lock()
			reports[c] = r
			mu.Unlock()
		})
	}
	return func() map[string]traffic.StreamReport {
		cancel()
		run.Wait()
		return reports
	}
}

var (
	teamA   = []string{lab.ClientA4, lab.ClientA6}
	teamB   = []string{lab.ClientB4, lab.ClientB6}
	clients = []string{lab.ClientA4, lab.ClientA6, lab.ClientB4, lab.ClientB6}
)

// teamNetwork is where a client's policy sends it.
func teamNetwork(client string) string {
	if client == lab.ClientA4 || client == lab.ClientA6 {
		return "red"
	}
	return "blue"
}
