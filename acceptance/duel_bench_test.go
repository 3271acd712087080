//go:build bench

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// duel is Egret and BIRD side by side: two gateways, each with the same two
// routers as next hops to the same server, each router on a segment of its own.
// BIRD routes by static routes with BFD, without translation. Replies come
// straight from the server by a third segment.
//
//	clients ca -- eth0 ga eth1 -- segment 1 -- r1 --+
//	                      eth2 -- segment 2 -- r2 --+-- server
//	clients cb -- eth0 gb eth1, eth2 (the same) ----+
type duel struct {
	*lab.Lab
	running
	a, b           *lab.NS // gateways
	ca, cb, server *lab.NS
	segments       *lab.NS
	routers        [2]*lab.Router
	bird           *lab.Router
}

const (
	duelServer  = "10.0.0.5"
	duelPool    = "198.51.100.0/28"
	duelClients = "10.99.0.0/24" // of BIRD, untranslated
)

func newDuel(t *testing.T, interval time.Duration, mult int) *duel {
	t.Helper()
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.BIRD)
	l := lab.New(t)
	d := &duel{Lab: l}
	space := func(name string) *lab.NS {
		ns := l.MustNamespace(name)
		for _, key := range []string{"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1"} {
			ns.Must("sysctl", "-qw", key)
		}
		return ns
	}
	d.a, d.b, d.ca, d.cb, d.server, d.segments = space("ga"), space("gb"), space("ca"), space("cb"), space("server"), space("segments")
	plug := func(ns *lab.NS, device string, segment int, address string) {
		port := fmt.Sprintf("%s-%d", ns.Name, segment)
		l.MustLink(d.segments, port, ns, device)
		d.segments.MustIP(fmt.Sprintf("link set %s master br%d", port, segment))
		if address != "" {
			ns.MustIP(fmt.Sprintf("addr add %s dev %s", address, device))
		}
	}
	for i := 1; i <= 3; i++ {
		d.segments.MustIP(fmt.Sprintf("link add br%d type bridge forward_delay 0 mcast_snooping 0", i), fmt.Sprintf("link set br%d up", i))
	}
	l.MustLink(d.ca, "c0", d.a, "eth0")
	l.MustLink(d.cb, "c0", d.b, "eth0")
	d.ca.MustIP("addr add 10.244.0.10/24 dev c0", "route add 0.0.0.0/0 via 10.244.0.1")
	d.cb.MustIP("addr add 10.99.0.10/24 dev c0", "route add 0.0.0.0/0 via 10.99.0.1")
	d.a.MustIP("addr add 10.244.0.1/24 dev eth0")
	d.b.MustIP("addr add 10.99.0.1/24 dev eth0")
	for i := 1; i <= 2; i++ {
		plug(d.a, fmt.Sprint("eth", i), i, "")
		plug(d.b, fmt.Sprint("eth", i), i, fmt.Sprintf("172.16.%d.3/24", i))
	}
	plug(d.a, "eth3", 3, "")
	plug(d.b, "eth3", 3, "172.16.3.3/24")
	plug(d.server, "eth0", 3, "172.16.3.100/24")
	d.server.MustIP("addr add "+duelServer+" dev lo", "route add "+duelPool+" via 172.16.3.1", "route add "+duelClients+" via 172.16.3.3")
	for i := 1; i <= 2; i++ {
		r := space(fmt.Sprint("r", i))
		plug(r, "eth0", i, fmt.Sprintf("172.16.%d.11/24", i))
		l.MustLink(r, "srv0", d.server, fmt.Sprint("s", i))
		r.MustIP(fmt.Sprintf("addr add 10.1.%d.1/24 dev srv0", i), fmt.Sprintf("route add 10.0.0.0/24 via 10.1.%d.2", i))
		d.server.MustIP(fmt.Sprintf("addr add 10.1.%d.2/24 dev s%d", i, i))
		own := netip.MustParseAddr(fmt.Sprintf("172.16.%d.11", i))
		c := lab.RouterConfig{ASN: 65001, RouterID: own}
		for _, peer := range []int{1, 3} {
			c.BFD = append(c.BFD, lab.RouterBFD{Peer: netip.MustParseAddr(fmt.Sprintf("172.16.%d.%d", i, peer)), Local: own, Device: "eth0", Interval: interval, Mult: mult})
		}
		var err error
		if d.routers[i-1], err = lab.StartBIRD(r, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.serve(); err != nil {
		t.Fatal(err)
	}
	d.startBIRD(t, interval, mult)
	d.running = running{t: t, host: lab.HostEgret(d.a)}
	return d
}

func (d *duel) serve() error {
	return d.server.Do(func() error {
		s, err := traffic.Listen(traffic.ServerConfig{Name: "far", UDP: lab.UDPPort})
		if err == nil {
			d.Defer(s.Close)
		}
		return err
	})
}

// startBIRD makes the other gateway.
func (d *duel) startBIRD(t *testing.T, interval time.Duration, mult int) {
	t.Helper()
	var err error
	if d.bird, err = lab.StartBIRD(d.b, lab.RouterConfig{ASN: 65002, RouterID: netip.MustParseAddr("172.16.1.3")}); err != nil {
		t.Fatal(err)
	}
	timers := fmt.Sprintf("{ interval %d ms; multiplier %d; }", interval.Milliseconds(), mult)
	text := `log stderr all;
router id 172.16.1.3;
protocol device { scan time 5; }
protocol direct { ipv4; interface "eth1", "eth2"; }
protocol bfd { interface "eth1", "eth2" ` + timers + `; }
protocol static { ipv4; route 10.0.0.0/24 via 172.16.1.11 bfd via 172.16.2.11 bfd; }
protocol kernel { ipv4 { import none; export where source = RTS_STATIC; }; merge paths yes; }
`
	if err := os.WriteFile(d.b.Path("/run/bird.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := d.bird.Command("configure"); err != nil || !strings.Contains(out, "Reconfigur") {
		t.Fatalf("configure BIRD: %v: %s", err, out)
	}
}

// config is Egret's, with this way of probing next hops.
func duelConfig(probes string) string {
	return `clients: {interfaces: [eth0], prefixes: [10.244.0.0/24]}
networks:
  - name: red
    interfaces:
      - {name: eth1, addresses: [172.16.1.1/24]}
      - {name: eth2, addresses: [172.16.2.1/24]}
      - {name: eth3, addresses: [172.16.3.1/24]}
    staticRoutes: [{prefix: 10.0.0.0/24, nextHops: [172.16.1.11, 172.16.2.11]}]
    nextHopProbes: ` + probes + `
pools: [{name: red-pool, network: red, prefixes: [` + duelPool + `]}]
policies: [{name: all, clients: [10.244.0.0/24], rules: [{destination: 10.0.0.0/24, network: red}]}]
`
}

// flowsPerGateway are spread over both routers; the interval of one is
// duelInterval.
const (
	flowsPerGateway = 6
	duelInterval    = 10 * time.Millisecond
)

// gap breaks something while flows run through both gateways, and returns the
// longest time without an answer that a flow of each had.
func (d *duel) gap(t *testing.T, during func() error) (egret, bird time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	var mu sync.Mutex
	longest := map[*lab.NS]time.Duration{}
	for _, from := range []*lab.NS{d.ca, d.cb} {
		for range flowsPerGateway {
			var s *traffic.Stream
			err := from.Do(func() (err error) {
				s, err = traffic.OpenStream(traffic.StreamOptions{Protocol: traffic.UDP, Dest: netip.AddrPortFrom(netip.MustParseAddr(duelServer), lab.UDPPort), Interval: duelInterval})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			run.Go(func() {
				r := s.Run(ctx)
				mu.Lock()
				defer mu.Unlock()
				longest[from] = max(longest[from], time.Duration(r.LongestMS*float64(time.Millisecond)))
			})
		}
	}
	settle := time.NewTimer(time.Second)
	<-settle.C // a second of undisturbed traffic
	err := during()
	settle.Reset(3 * time.Second)
	<-settle.C // and three for the failover
	cancel()
	run.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return longest[d.ca], longest[d.cb]
}

// port is a gateway's or a router's port of a segment.
func (d *duel) port(name string, segment int, up bool) error {
	return d.segments.SetLink(fmt.Sprintf("%s-%d", name, segment), up)
}

// heal waits until both gateways use both routers again.
func (d *duel) heal(t *testing.T) {
	t.Helper()
	for _, name := range []string{"ga", "gb", "r1"} {
		if err := d.port(name, 1, true); err != nil {
			t.Fatal(err)
		}
	}
	for ns, wants := range map[*lab.NS][]string{d.b: {"ip", "route", "show", "10.0.0.0/24"}} {
		lab.Eventually(t, patience, "BIRD uses both routers", func() error {
			out, err := ns.Run(wants...)
			if err == nil && (!strings.Contains(out, "172.16.1.11") || !strings.Contains(out, "172.16.2.11")) {
				err = errors.New(out)
			}
			return err
		})
	}
	lab.Eventually(t, patience, "Egret uses both routers", func() error {
		n, err := d.network("red")
		if err != nil {
			return err
		}
		usable := 0
		for _, h := range n.NextHops {
			if h.Usable {
				usable++
			}
		}
		if usable != 2 {
			return fmt.Errorf("%d usable next hops: %+v", usable, n.NextHops)
		}
		return nil
	})
}

// TestFigures measures how long traffic stops when a next hop fails, Egret's
// beside BIRD's: the same failure at the same moment.
func TestFigures(t *testing.T) {
	const rounds = 5
	d := newDuel(t, 50*time.Millisecond, 3)
	d.start(duelConfig("[{type: bfd, interval: 50ms, fall: 3}]"))
	d.measure(t, rounds, "next hop silent, link up (BFD 50 ms x 3)", func() error { return d.port("r1", 1, false) })
	d.measure(t, rounds, "carrier lost at the gateway", func() error { return errors.Join(d.port("ga", 1, false), d.port("gb", 1, false)) })
	d.reload(t, duelConfig("[{type: icmp}]"))
	d.measure(t, rounds, "next hop silent, link up (Egret: ICMP with its defaults)", func() error { return d.port("r1", 1, false) })
}

func (d *duel) measure(t *testing.T, rounds int, what string, fail func() error) {
	t.Helper()
	var egret, bird []time.Duration
	for range rounds {
		d.heal(t)
		a, b := d.gap(t, fail)
		egret, bird = append(egret, a), append(bird, b)
	}
	median := func(ds []time.Duration) time.Duration {
		s := slices.Sorted(slices.Values(ds))
		return s[len(s)/2].Round(time.Millisecond)
	}
	t.Logf("FIGURE %-60s Egret median %v max %v, BIRD median %v max %v, ratio %.2f  %v %v", what, median(egret), slices.Max(egret).Round(time.Millisecond),
		median(bird), slices.Max(bird).Round(time.Millisecond), float64(median(egret))/float64(median(bird)), egret, bird)
}
