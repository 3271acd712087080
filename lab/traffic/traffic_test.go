package traffic_test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

const deadline = 30 * time.Second

// network is a client and a server with a link between them.
type network struct {
	*lab.Lab
	client, server *lab.NS
}

var (
	clients = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	servers = []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}
)

func newNetwork(t *testing.T) network {
	t.Helper()
	lab.Require(t, lab.Root)
	l := lab.New(t)
	n := network{l, l.MustNamespace("client"), l.MustNamespace("server")}
	l.MustLink(n.client, "c0", n.server, "s0")
	n.client.MustIP("addr add 10.0.0.1/24 dev c0", "addr add fd00::1/64 dev c0 nodad")
	n.server.MustIP("addr add 10.0.0.5/24 dev s0", "addr add fd00::5/64 dev s0 nodad")
	var s *traffic.Server
	in(t, n.server, func() (err error) {
		s, err = traffic.Listen(traffic.ServerConfig{Name: "red", HTTP: 80, TCP: 7, UDP: 7})
		return err
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func in(t *testing.T, ns *lab.NS, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersNameServerAndClient(t *testing.T) {
	n := newNetwork(t)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for i := range servers {
		source := netip.AddrPortFrom(clients[i], 44444)
		want := traffic.Answer{Server: "red", Client: source}
		in(t, n.client, func() error {
			for range 3 { // the source port is free again at once
				got, err := traffic.FetchAnswer(ctx, source, netip.AddrPortFrom(servers[i], 80))
				if err != nil || got != want {
					t.Errorf("HTTP: %v, %v, want %v", got, err, want)
				}
			}
			r, err := traffic.Fetch(ctx, source, "http://"+netip.AddrPortFrom(servers[i], 80).String()+"/")
			if err != nil || r.Body != want.String()+"\n" {
				t.Errorf("HTTP: %+v, %v, want %v", r, err, want)
			}
			if got, err := traffic.AskUDP(ctx, source, netip.AddrPortFrom(servers[i], 7)); err != nil || got != want {
				t.Errorf("UDP: %v, %v, want %v", got, err, want)
			}
			x, err := traffic.DialExchange(ctx, source, netip.AddrPortFrom(servers[i], 7))
			if err != nil {
				return err
			}
			if x.Server != want {
				t.Errorf("TCP: %v, want %v", x.Server, want)
			}
			return x.Exchange("hello", deadline)
		})
	}
}

func TestStreamsNoticeACut(t *testing.T) {
	n := newNetwork(t)
	// Without its addresses the client could not even send; so the server's side is cut.
	for i := range servers {
		for _, protocol := range []traffic.Protocol{traffic.ICMP, traffic.UDP} {
			t.Run(string(protocol)+" "+servers[i].String(), func(t *testing.T) {
				s := openStream(t, n.client, traffic.StreamOptions{
					Protocol: protocol, Dest: netip.AddrPortFrom(servers[i], 7), Interval: 5 * time.Millisecond, Linger: 100 * time.Millisecond,
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan traffic.StreamReport, 1)
				go func() { done <- s.Run(ctx) }()
				received := func(atLeast int) {
					t.Helper()
					lab.Eventually(t, deadline, "replies", func() error { return enough(s.Report().Received, atLeast) })
				}
				received(20)
				before := s.Report()
				dropAll(n.server, true)
				lab.Eventually(t, deadline, "losses", func() error { return enough(s.Report().Lost, 50) })
				dropAll(n.server, false)
				received(before.Received + 20)
				cancel()
				report := <-done
				checkCut(t, protocol, report)
			})
		}
	}
}

func openStream(t *testing.T, ns *lab.NS, o traffic.StreamOptions) (s *traffic.Stream) {
	t.Helper()
	in(t, ns, func() (err error) {
		s, err = traffic.OpenStream(o)
		return err
	})
	return s
}

// dropAll makes the server deaf or not, whatever the protocol.
func dropAll(ns *lab.NS, drop bool) {
	if drop {
		ns.Must("nft", "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; policy drop; }")
		return
	}
	ns.Must("nft", "delete table inet deaf")
}

func checkCut(t *testing.T, protocol traffic.Protocol, report traffic.StreamReport) {
	t.Helper()
	if report.Sent != report.Received+report.Lost || report.Duplicates != 0 {
		t.Errorf("numbers do not add up: %+v", report)
	}
	longest := 0
	for _, gap := range report.Gaps {
		longest = max(longest, gap.Lost)
	}
	if longest < 20 || report.LongestMS < 5*20/2 {
		t.Errorf("no gap in %+v", report)
	}
	if protocol == traffic.UDP && (len(report.Answers) != 1 || report.Answers[0].Server != "red") {
		t.Errorf("answers %v", report.Answers)
	}
}

func TestStreamWithoutLoss(t *testing.T) {
	n := newNetwork(t)
	for i := range servers {
		in(t, n.client, func() error {
			r, err := traffic.Ping(t.Context(), clients[i], servers[i], 10, time.Millisecond)
			if err == nil && (r.Sent != 10 || r.Received != 10 || r.Lost != 0 || len(r.Gaps) != 0 || r.MaxRTTMS <= 0) {
				t.Errorf("ping %s: %+v", servers[i], r)
			}
			return err
		})
	}
}

func TestConnectionsSurviveOrBreak(t *testing.T) {
	n := newNetwork(t)
	for i := range servers {
		server := netip.AddrPortFrom(servers[i], 7)
		var x *traffic.Connection
		dial := func() {
			in(t, n.client, func() (err error) {
				x, err = traffic.DialExchange(t.Context(), netip.AddrPort{}, server)
				return err
			})
		}
		dial()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if r := x.Run(ctx, time.Millisecond, deadline); r.Broken || r.Exchanges == 0 {
			t.Errorf("%s: %+v", server, r)
		}
		cancel()
		dial()
		dropAll(n.server, true)
		if r := x.Run(t.Context(), time.Millisecond, 50*time.Millisecond); !r.Broken || r.Error == "" {
			t.Errorf("%s, cut: %+v", server, r)
		}
		dropAll(n.server, false)
	}
}

func TestSnifferSeesInjections(t *testing.T) {
	n := newNetwork(t)
	sniffers := map[*lab.NS]traffic.SnifferOptions{
		n.client: {Device: "c0", Direction: traffic.Out},
		n.server: {Device: "s0", Direction: traffic.In},
	}
	running := map[*lab.NS]*traffic.Sniffer{}
	for ns, o := range sniffers {
		o.Allowed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}
		in(t, ns, func() (err error) {
			running[ns], err = traffic.OpenSniffer(o)
			return err
		})
	}
	foreign := []netip.Addr{netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("fd00:244:1::10")}
	var want []traffic.Packet
	for i := range servers {
		for _, flags := range []string{"RST", "SYN+FIN"} {
			bits, err := traffic.ParseFlags(flags)
			if err != nil {
				t.Fatal(err)
			}
			injection := traffic.Injection{
				Protocol: "tcp", Flags: bits, Source: netip.AddrPortFrom(foreign[i], 1234), Dest: netip.AddrPortFrom(servers[i], 80),
			}
			in(t, n.client, func() error { return traffic.Inject(t.Context(), injection) })
			injection.Device = "c0"
			in(t, n.client, func() error { return traffic.Inject(t.Context(), injection) })
			p := traffic.Packet{Source: foreign[i], Dest: servers[i], Protocol: 6, SourcePort: 1234, DestPort: 80, TCPFlags: bits, Length: 40 + 20*i}
			want = append(want, p, p)
		}
		in(t, n.client, func() error {
			_, err := traffic.Ping(t.Context(), clients[i], servers[i], 3, time.Millisecond)
			return err
		})
	}
	for ns, s := range running {
		report, err := s.Stop()
		if err != nil {
			t.Error(err)
		}
		var got []traffic.Packet
		for _, leak := range report.Leaks {
			got = append(got, leak.Packet)
		}
		if !reflect.DeepEqual(got, want) || report.Leaked != len(want) || report.Dropped != 0 {
			t.Errorf("sniffer in %s: %+v, want leaks %v", ns.Name, report, want)
		}
		if report.Err() == nil {
			t.Errorf("sniffer in %s: no error", ns.Name)
		}
		for _, client := range clients {
			// The replies go the other way.
			if report.Sources[client] < 3 || report.Sources[servers[0]] != 0 {
				t.Errorf("sniffer in %s: sources %v", ns.Name, report.Sources)
			}
		}
	}
}

func enough(have, want int) error {
	if have < want {
		return fmt.Errorf("%d of %d", have, want)
	}
	return nil
}
