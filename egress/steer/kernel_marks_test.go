package steer

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// foreign is a table of somebody who has set every bit of marks: of packets as they come
// from a pod, and of flows. Its counters say what is left of these at the end: "kept" of
// packets into the tunnel and "flows" of their flows, with all bits but ours, "outside" of
// the tunnel's own packets, "plain" of a pod without a policy.
func foreign(mask, ours uint32) string {
	return fmt.Sprintf(`table inet foreign {
	counter kept {}; counter other {}; counter flows {}; counter outside {}; counter plain {}
	chain first {
		type filter hook prerouting priority -320
		iifname pod0 ip saddr 10.244.1.3 meta mark set %#[2]x return
		iifname pod0 meta mark set 0xffffffff
	}
	chain early {
		type filter hook prerouting priority -160
		iifname pod0 ct mark set ct mark | %#[1]x
	}
	chain last {
		type filter hook postrouting priority 400
		oifname egret-vx meta mark == %#[1]x counter name kept
		oifname egret-vx ip saddr 10.244.1.2 meta mark != %#[1]x counter name other
		oifname egret-vx ip6 saddr fd00:244:1::2 meta mark != %#[1]x counter name other
		oifname egret-vx ct mark & %#[1]x == %#[1]x ct mark & %#[3]x != 0 counter name flows
		oifname eth0 udp dport 4790 meta mark == %#[1]x counter name outside
		oifname eth0 ip saddr 10.244.1.3 meta mark == %#[2]x counter name plain
	}
}`, ^mask, ^ours, ours)
}

// TestKernelMarksOfOthers: packets of pods leave with the marks that others gave them,
// without ours, and find their way in spite of them.
func TestKernelMarksOfOthers(t *testing.T) {
	lab.Require(t, lab.Nft)
	for _, mask := range []uint32{DefaultMarkMask, 0x40000fff, 0x10003f00} {
		t.Run(fmt.Sprintf("%#x", mask), func(t *testing.T) { marksOfOthers(t, mask) })
	}
}

func marksOfOthers(t *testing.T, mask uint32) {
	l := lab.New(t)
	ns, far, pod := l.MustNamespace("node"), l.MustNamespace("far"), l.MustNamespace("pod")
	l.MustLink(ns, "eth0", far, "eth0")
	l.MustLink(ns, "pod0", pod, "eth0")
	ns.MustIP("addr add 192.0.2.1/24 dev eth0", "addr add 10.244.1.1/24 dev pod0", "addr add fd00:244:1::1/64 dev pod0 nodad",
		"route add default via 192.0.2.11")
	far.MustIP("addr add 192.0.2.11/24 dev eth0", "addr add 192.0.2.12/24 dev eth0", "addr add 192.0.2.13/24 dev eth0")
	pod.MustIP("addr add 10.244.1.2/24 dev eth0", "addr add 10.244.1.3/24 dev eth0", "addr add fd00:244:1::2/64 dev eth0 nodad",
		"route add default via 10.244.1.1", "route add default via fd00:244:1::1")
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := ns.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	ns.Must("nft", foreign(mask, marksOf(mask).ours))

	agent := New(slog.New(slog.DiscardHandler), realEdges(t, ns))
	cfg := node()
	cfg.MarkMask, cfg.Tunnel.Local = mask, cfg.Tunnel.Local[:1]
	cfg.Policies[0].Rules[0].MaxNextHops = 1
	agent.SetConfig(cfg)
	agent.SetHealth(ready("a", "b", "c"))
	if err := ns.Do(func() error { return agent.Round(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	counted := func(name string) bool {
		return !strings.Contains(ns.Must("nft", "list", "counter", "inet", "foreign", name), "packets 0 ")
	}
	for _, send := range []struct{ from, to string }{{"10.244.1.2", "203.0.113.5"}, {"fd00:244:1::2", "2001:db8:99::5"}, {"10.244.1.3", "203.0.113.5"}} {
		ns.Must("nft", "reset", "counters", "table", "inet", "foreign")
		want := []string{"kept", "flows", "outside"}
		if send.from == "10.244.1.3" {
			want = []string{"plain"}
		}
		err := lab.Poll(t.Context(), 30*time.Second, "the packet", func() error {
			if err := pod.Do(func() error { return sendTwo(send.from, send.to) }); err != nil {
				return err
			}
			for _, name := range want {
				if !counted(name) {
					return fmt.Errorf("no packet is counted as %q: %s", name, ns.Must("nft", "list", "counters", "table", "inet", "foreign"))
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", send.from, err)
		}
		if counted("other") {
			t.Errorf("%s: packets have other marks than theirs", send.from)
		}
	}
}

// sendTwo sends two packets of one flow: the second is one that keeps its set.
func sendTwo(from, to string) error {
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(from), 5000)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(to), 9)))
	if err != nil {
		return err
	}
	defer c.Close()
	for range 2 {
		// ECONNREFUSED and the like are answers to earlier ones.
		if _, err = c.Write([]byte("x")); err != nil {
			_, err = c.Write([]byte("x"))
		}
	}
	return err
}
