package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// twin is two Egrets that share the clients of one router.
type twin struct {
	*lab.Twin
	t   *testing.T
	gws [2]*running
}

// twinConfig is a gateway's configuration: its slice of the pool, and a speaker
// towards the clients' router.
func twinConfig(g *lab.TwinGateway) string {
	return fmt.Sprintf(`clients:
  interfaces: [eth0]
  prefixes: [10.244.0.0/16, "fd00:244::/32"]
  bgp:
    asn: %d
    routerID: %s
    gracefulRestart: {restartTime: 120s}
    communities: ["64512:%d"]
    peers: [{address: %s, asn: %d}, {address: "%s", asn: %[5]d}]
networks:
  - name: red
    interfaces: [eth1]
    addresses: [172.16.0.1/30, "fd00:16::1/64"]
    bgp:
      asn: %[1]d
      gracefulRestart: {restartTime: 120s}
      peers:
        - {address: 172.16.0.2, asn: %[7]d, import: [10.0.0.0/8]}
        - {address: "fd00:16::2", asn: %[7]d, import: ["fd00:10::/32"]}
    probes: [{type: icmp, targets: [%[10]s], interval: 1s, fall: 6, rise: 1}]
pools: [{name: slice, network: red, prefixes: [%[8]s, "%[9]s"]}]
policies:
  - name: all
    clients: [10.244.0.0/16, "fd00:244::/32"]
    rules: [{destination: 10.0.0.0/8, network: red}, {destination: "fd00:10::/32", network: red}]
`, lab.GatewayASN, g.Side(lab.IPv4), g.N, g.Neighbour(lab.IPv4), lab.ClientsASN, g.Neighbour(lab.IPv6), lab.RedASN, g.Slice(lab.IPv4), g.Slice(lab.IPv6), g.Target())
}

// TestTwoGateways: two gateways, each with its slice of the pool, share the flows
// of the clients' router. One whose upstream goes dark is left by all, at once for
// new flows and with the other's address; when it is back it has its share again. A
// killed and restarted daemon loses nothing.
func TestTwoGateways(t *testing.T) {
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.Conntrack, lab.FRR, lab.BIRD)
	w := &twin{Twin: lab.MustTwin(lab.New(t), 8), t: t}
	for i, g := range w.Gateways {
		w.gws[i] = &running{t: t, host: &g.EgretHost}
		w.gws[i].start(twinConfig(g))
	}
	for _, g := range w.gws {
		g.wait(map[string]string{"red": "Up"})
	}
	w.ways(1, 2)
	w.carry(map[int]bool{1: true, 2: true})

	t.Run("dark upstream", w.darkUpstream)
	t.Run("kill and restart", w.killAndRestart)
}

// ways waits until the clients' router has routes by these gateways, and no
// others, in its kernel.
func (w *twin) ways(gateways ...int) {
	w.t.Helper()
	for _, f := range lab.Families() {
		prefix, option := "10.0.0.0/8", "-4"
		if f == lab.IPv6 {
			prefix, option = "fd00:10::/32", "-6"
		}
		want := map[string]bool{}
		for _, n := range gateways {
			want[fmt.Sprint("g", n)] = true
		}
		lab.Eventually(w.t, patience, fmt.Sprintf("the clients' router goes by %v to %s", gateways, prefix), func() error {
			out, err := w.RouterNS.Run("ip", option, "-j", "route", "show", prefix)
			if err != nil {
				return err
			}
			got := map[string]bool{}
			var routes []struct {
				Dev      string `json:"dev"`
				Nexthops []struct {
					Dev string `json:"dev"`
				} `json:"nexthops"`
			}
			if err := json.Unmarshal([]byte(out), &routes); err != nil {
				return err
			}
			for _, r := range routes {
				if r.Dev != "" {
					got[r.Dev] = true
				}
				for _, h := range r.Nexthops {
					got[h.Dev] = true
				}
			}
			if len(got) != len(want) {
				return errors.New(out)
			}
			for dev := range want {
				if !got[dev] {
					return errors.New(out)
				}
			}
			return nil
		})
	}
}

// carry asks the server by many flows until each gateway that should carry has
// carried one; another that carries, or a flow without an answer, is an error.
func (w *twin) carry(want map[int]bool) {
	w.t.Helper()
	for _, f := range lab.Families() {
		server := netip.MustParseAddr(lab.Server4)
		if f == lab.IPv6 {
			server = netip.MustParseAddr(lab.Server6)
		}
		seen := map[int]int{}
		for i := range 32 {
			ctx, cancel := context.WithTimeout(w.t.Context(), patience)
			a, err := w.Ask(ctx, netip.AddrPortFrom(lab.TwinClient(f, i%8), 0), server)
			cancel()
			if err != nil {
				w.t.Fatalf("flow %d: %v", i, err)
			}
			n := 0
			for _, g := range w.Gateways {
				if g.Slice(f).Contains(a.Client.Addr()) {
					n = g.N
				}
			}
			if !want[n] {
				w.t.Fatalf("flow %d: %s, want one of the gateways %v", i, a, want)
			}
			if seen[n]++; i >= 7 && len(seen) == len(want) {
				break
			}
		}
		if len(seen) != len(want) {
			w.t.Errorf("%v: carried by %v, want %v", f, seen, want)
		}
	}
}

// darkUpstream cuts the link beyond the first gateway's upstream router.
func (w *twin) darkUpstream(t *testing.T) {
	if err := w.CutBeyond(1); err != nil {
		t.Fatal(err)
	}
	w.gws[0].wait(map[string]string{"red": "Down"})
	w.ways(2)
	w.carry(map[int]bool{2: true})
	s, err := w.gws[0].status()
	if err != nil || s.ClientBGP == nil || len(s.ClientBGP.Withheld) != 2 || len(s.ClientBGP.Advertised) != 0 {
		t.Errorf("status of the dark gateway: %+v, %v", s.ClientBGP, err)
	}
	if err := w.ConnectServer(1); err != nil {
		t.Fatal(err)
	}
	w.gws[0].wait(map[string]string{"red": "Up"})
	w.ways(1, 2)
	w.carry(map[int]bool{1: true, 2: true})
}

// killAndRestart kills each daemon in turn under traffic.
func (w *twin) killAndRestart(t *testing.T) {
	stop := w.pings(t)
	for i, g := range w.gws {
		g.daemon.Kill9()
		g.start(twinConfig(w.Gateways[i]))
		g.wait(map[string]string{"red": "Up"})
		g.empty("after the restart")
		lab.Eventually(t, patience, "the clients' router is told again", func() error {
			s, err := g.status()
			if err != nil {
				return err
			}
			for _, p := range s.ClientBGP.Peers {
				if p.State != "established" || p.Advertised == 0 {
					return fmt.Errorf("%+v", p)
				}
			}
			return nil
		})
	}
	w.ways(1, 2)
	for source, r := range stop() {
		if r.Lost > 0 || r.Received == 0 {
			t.Errorf("%s lost %d of %d over the restarts: %+v", source, r.Lost, r.Sent, r.Gaps)
		}
	}
}

// pings runs a stream of UDP datagrams from each client until stop.
func (w *twin) pings(t *testing.T) (stop func() map[netip.Addr]traffic.StreamReport) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	var mu sync.Mutex
	reports := map[netip.Addr]traffic.StreamReport{}
	for i := range 8 {
		f := lab.Families()[i%2]
		source := lab.TwinClient(f, i)
		s, err := w.Stream(traffic.StreamOptions{Protocol: traffic.UDP, Source: netip.AddrPortFrom(source, 0),
			Dest: netip.AddrPortFrom(server(source), lab.UDPPort), Interval: 50 * time.Millisecond, Linger: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		run.Go(func() {
			r := s.Run(ctx)
			mu.Lock()
			reports[source] = r
			mu.Unlock()
		})
	}
	return func() map[netip.Addr]traffic.StreamReport {
		cancel()
		run.Wait()
		return reports
	}
}
