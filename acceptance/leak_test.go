package acceptance

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// noAddress is a client whose pool has no IPv4 address.
const noAddress = "10.244.3.10"

// leakOptions add team c, whose pool has IPv6 addresses only.
var leakOptions = options{policies: policies + `
  - {name: team-c, clients: [10.244.3.0/24], rules: [{network: red, pool: six-pool}]}`}

const sixPool = "2001:db8:51:6::/124"

func leakConfig() string {
	return insertPool(leakOptions.config(), `  - {name: six-pool, network: red, prefixes: ["`+sixPool+`"]}`)
}

// insertPool adds a line to the list of pools.
func insertPool(config, line string) string {
	const head = "\npools:\n"
	return strings.Replace(config, head, head+line+"\n", 1)
}

// TestNothingLeaks watches both uplinks from before the first start to after
// the teardown: start, reload, kill -9, restart, stop, with traffic of all
// clients running and with packets that conntrack does not like. Nothing may
// arrive at a router from a source that is not in that network's pools. The
// gateway starts with all.rp_filter=2, which would drop all policy traffic.
func TestNothingLeaks(t *testing.T) {
	g := topology(t, lab.OverlapOptions{RPFilter: 2})
	if err := g.AddClient(netip.MustParseAddr(noAddress)); err != nil {
		t.Fatal(err)
	}
	sniffers := map[string]*traffic.Sniffer{}
	for _, u := range g.Upstreams() {
		allowed := leakOptions.pools(u.Name)
		if u.Name == "red" {
			allowed = append(allowed, netip.MustParsePrefix(sixPool))
		}
		s, err := g.Sniff(u.Name, allowed...)
		if err != nil {
			t.Fatal(err)
		}
		sniffers[u.Name] = s
	}
	stopStreams := g.streams(traffic.UDP, append([]string{noAddress}, clients...)...)
	stopStrays := g.strays(t)

	steps := []struct {
		name string
		do   func()
	}{
		{"start", func() { g.start(leakConfig()); g.up(leakOptions) }},
		{"reload", func() {
			moved := leakOptions
			moved.policies = `
  - {name: team-a, clients: [10.244.1.0/24, "fd00:244:1::/48"], rules: [{network: blue, pool: blue-pool}]}
  - {name: team-b, clients: [10.244.2.0/24, "fd00:244:2::/48"], rules: [{network: red, pool: red-pool}]}`
			g.reload(t, insertPool(moved.config(), `  - {name: six-pool, network: red, prefixes: ["`+sixPool+`"]}`))
			for _, c := range clients {
				network := map[string]string{"red": "blue", "blue": "red"}[teamNetwork(c)]
				g.answer(c, network, leakOptions.pools(network))
			}
			g.reload(t, leakConfig())
		}},
		{"kill -9 and restart", func() { g.daemon.Kill9(); g.start(leakConfig()); g.up(leakOptions) }},
		{"stop and start", func() {
			if err := g.daemon.Stop(); err != nil {
				t.Error(err)
			}
			g.start(leakConfig())
			g.up(leakOptions)
		}},
		{"stop and teardown", func() {
			if err := g.daemon.Stop(); err != nil {
				t.Error(err)
			}
			if out, err := g.Egret("teardown", "--config", g.ConfigPath()); err != nil {
				t.Errorf("teardown: %v\n%s", err, out)
			}
		}},
	}
	for _, s := range steps {
		s.do()
		for name, sniffer := range sniffers {
			if r := sniffer.Report(); r.Leaked > 0 {
				t.Fatalf("%s: %d packets leaked into %s, the first: %s", s.name, r.Leaked, name, r.Leaks[0].Packet)
			}
		}
	}
	stopStrays()
	reports := stopStreams()
	for _, c := range clients {
		if reports[c].Received == 0 {
			t.Errorf("%s never got an answer: nothing is proved", c)
		}
	}
	if reports[noAddress].Received > 0 {
		t.Errorf("%s has no pool address and got %d answers", noAddress, reports[noAddress].Received)
	}
	for name, s := range sniffers {
		r, err := s.Stop()
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s's uplink: %d packets, %d from pools, 0 others", name, r.Packets, r.Allowed)
	}
	g.nothingLeft(t)
}

// strays sends what belongs to no connection, from both teams in both
// families, until stop: SYN+FIN, RST, ACK, FIN, and bare SYNs.
func (g *gateway) strays(t *testing.T) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var run sync.WaitGroup
	for i, flags := range []string{"SYN+FIN", "RST", "ACK", "FIN+PSH+URG", "SYN", "RST+ACK"} {
		bits, err := traffic.ParseFlags(flags)
		if err != nil {
			t.Fatal(err)
		}
		run.Go(func() {
			for {
				for _, c := range clients {
					source := netip.MustParseAddr(c)
					err := g.Client.Do(func() error {
						return traffic.Inject(t.Context(), traffic.Injection{Protocol: "tcp", Flags: bits, Seq: 7, Ack: 9,
							Source: netip.AddrPortFrom(source, uint16(20000+i)), Dest: netip.AddrPortFrom(server(source), lab.HTTPPort), Count: 3})
					})
					if err != nil {
						t.Errorf("inject %s: %v", flags, err)
						return
					}
				}
				select {
				case <-done:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	return func() { close(done); run.Wait() }
}

// nothingLeft: after the teardown the kernel has nothing of ours, and the
// settings are what they were.
func (g *gateway) nothingLeft(t *testing.T) {
	t.Helper()
	for what, words := range map[string][]string{
		"VRF":          {"ip", "link", "show", "type", "vrf"},
		"route":        {"ip", "route", "show", "table", "all", "proto", "108"},
		"IPv6 route":   {"ip", "-6", "route", "show", "table", "all", "proto", "108"},
		"learned":      {"ip", "route", "show", "table", "all", "proto", "109"},
		"IPv6 learned": {"ip", "-6", "route", "show", "table", "all", "proto", "109"},
		"next hop":     {"ip", "nexthop", "show"},
		"nftables":     {"nft", "list", "ruleset"},
	} {
		if out := g.Gateway.Must(words...); out != "" {
			t.Errorf("%s left after teardown:\n%s", what, out)
		}
	}
	// This ip(8) ignores "proto" for rules, but prints it.
	for _, family := range []string{"-4", "-6"} {
		if out := g.Gateway.Must("ip", family, "rule", "show"); strings.Contains(out, "proto 108") {
			t.Errorf("rules left after teardown:\n%s", out)
		}
	}
	for key, want := range map[string]string{"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0",
		"net.ipv4.conf.all.rp_filter": "2", "net.ipv4.nexthop_compat_mode": "1"} {
		if got, err := g.Gateway.ReadSysctl(key); err != nil || got != want {
			t.Errorf("%s is %q after teardown (%v), want the %q from before", key, got, err, want)
		}
	}
}

// TestSpoofedFromTheOtherNetwork: packets from red with the addresses of a flow
// of blue are not delivered to blue's client, translated or not. The same
// packets from blue are: the test can fail.
func TestSpoofedFromTheOtherNetwork(t *testing.T) {
	same := options{redPools: `198.51.100.7/32, "2001:db8:51::7/128"`, bluePools: `198.51.100.7/32, "2001:db8:51::7/128"`}
	g := topology(t, lab.OverlapOptions{})
	g.start(same.config())
	g.up(same)
	for _, c := range teamB {
		t.Run(c, func(t *testing.T) { g.spoof(t, same, c) })
	}
}

func (g *gateway) spoof(t *testing.T, o options, client string) {
	const port = 45000
	source := netip.MustParseAddr(client)
	answers := func() traffic.Answer {
		var a traffic.Answer
		err := g.Client.Do(func() (err error) {
			a, err = traffic.AskUDP(t.Context(), netip.AddrPortFrom(source, port), netip.AddrPortFrom(server(source), lab.UDPPort))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := answers() // blue's flow, whose reply side is what the packets imitate
	count := func(from *lab.Upstream, to netip.AddrPort) int {
		t.Helper()
		var mu sync.Mutex
		n := 0
		var s *traffic.Sniffer
		err := g.Client.Do(func() (err error) {
			s, err = traffic.OpenSniffer(traffic.SnifferOptions{Device: "c0", Direction: traffic.In, OnLeak: func(_ time.Time, p traffic.Packet) {
				mu.Lock()
				defer mu.Unlock()
				if p.Source == server(source) && p.DestPort == port {
					n++
				}
			}})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = from.RouterNS.Do(func() error {
			via := netip.MustParseAddr(lab.TransferGateway4)
			if source.Is6() {
				via = netip.MustParseAddr(lab.TransferGateway6)
			}
			return traffic.Inject(t.Context(), traffic.Injection{Protocol: "udp", Source: netip.AddrPortFrom(server(source), lab.UDPPort),
				Dest: to, Device: "eth0", Via: via, Count: 20, Payload: []byte("spoofed")})
		})
		if err != nil {
			t.Fatal(err)
		}
		// A later packet on the same way tells that the injected ones are through.
		g.answer(client, "blue", o.pools("blue"))
		if _, err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return n
	}
	if n := count(g.Blue, a.Client); n == 0 {
		t.Error("packets of the flow's own network do not arrive: the test proves nothing")
	}
	if n := count(g.Red, a.Client); n > 0 {
		t.Errorf("%d packets from red arrived in blue's flow", n)
	}
	direct := netip.AddrPortFrom(source, port)
	for _, u := range g.Upstreams() {
		if n := count(u, direct); n > 0 {
			t.Errorf("%d packets from %s to the client's own address arrived", n, u.Name)
		}
	}
}
