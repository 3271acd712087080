package nat

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Values that the kernel computed (TestKernelHashes): a client keeps its exit
// and its address over versions.
func TestBucketsOfClientsStayForever(t *testing.T) {
	var spread, pool []int
	for _, a := range addrs("10.244.0.10", "10.244.0.11", "192.0.2.1", "fd00:244::10", "fd00:244::11", "2001:db8::1") {
		spread, pool = append(spread, ClientBucket(a, 1024)), append(pool, PoolBucket(a, 256))
	}
	if got := fmt.Sprint(spread, pool); got != "[6 293 207 289 118 597] [96 154 139 209 218 245]" {
		t.Errorf("the buckets are %s", got)
	}
}

func TestBucketsOfClientsAreEven(t *testing.T) {
	const clients, n = 6400, 64
	for f, a := range map[string]netip.Addr{"ipv4": netip.MustParseAddr("10.244.0.0"), "ipv6": netip.MustParseAddr("fd00:244::")} {
		count := make([]int, n)
		both := map[[2]int]bool{}
		for range clients {
			b := ClientBucket(a, n)
			count[b]++
			both[[2]int{b, PoolBucket(a, n)}] = true
			a = a.Next()
		}
		if low, high := slices.Min(count), slices.Max(count); low < 60 || high > 150 {
			t.Errorf("%s: from %d to %d clients in a bucket, 100 were even", f, low, high)
		}
		// The two choices have nothing to do with each other.
		if len(both) < 3000 {
			t.Errorf("%s: %d of %d pairs of buckets, random were 3237", f, len(both), n*n)
		}
	}
	if ClientBucket(netip.MustParseAddr("::ffff:10.0.0.1"), 64) != ClientBucket(netip.MustParseAddr("10.0.0.1"), 64) || ClientBucket(netip.Addr{}, 0) != 0 {
		t.Error("a mapped address, or none, has another bucket")
	}
}

// hashWorld is a gateway that clients send through to a network in the main
// table, so that it needs no VRF: what it computes of their addresses is noted
// by a table beside ours.
func hashWorld(t *testing.T, cfg Config) *world {
	lab.Require(t, lab.Nft)
	l := lab.New(t)
	w := &world{t: t, cl: l.MustNamespace("cl"), gw: l.MustNamespace("gw"), red: l.MustNamespace("red")}
	l.MustLink(w.cl, "c0", w.gw, "eth0")
	l.MustLink(w.red, "r0", w.gw, "eth1")
	for key, value := range map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.eth0.rp_filter": "0"} {
		if err := w.gw.Sysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	mac, err := w.red.MAC("r0")
	if err != nil {
		t.Fatal(err)
	}
	w.ip(w.gw, "addr add 172.16.0.1/30 dev eth1", "addr add fd00:16::1/64 dev eth1 nodad",
		"route add default via 172.16.0.2", "-6 route add default via fd00:16::2 dev eth1",
		"neigh replace 172.16.0.2 dev eth1 lladdr "+mac.String(), "neigh replace fd00:16::2 dev eth1 lladdr "+mac.String())
	w.table = tableIn(t, w.gw)
	w.become(cfg)
	for _, command := range []string{
		"add table inet probe",
		"add set inet probe marks4 { type ipv4_addr . mark; size 65535; flags dynamic; }",
		"add set inet probe marks6 { type ipv6_addr . mark; size 65535; flags dynamic; }",
		"add set inet probe sources4 { typeof ip daddr . ct original ip saddr . ip saddr; size 65535; flags dynamic; }",
		"add set inet probe sources6 { typeof ip6 daddr . ct original ip6 saddr . ip6 saddr; size 65535; flags dynamic; }",
		"add chain inet probe pre { type filter hook prerouting priority -299; }",
		"add rule inet probe pre add @marks4 { ip saddr . meta mark }",
		"add rule inet probe pre add @marks6 { ip6 saddr . meta mark }",
		"add chain inet probe post { type filter hook postrouting priority 300; }",
		"add rule inet probe post add @sources4 { ip daddr . ct original ip saddr . ip saddr }",
		"add rule inet probe post add @sources6 { ip6 daddr . ct original ip6 saddr . ip6 saddr }",
	} {
		w.gw.Must("nft", command)
	}
	return w
}

// noted are the members of a set of the probe's, their parts as text.
func (w *world) noted(set string) [][]string {
	w.t.Helper()
	var list struct {
		Nftables []struct {
			Set struct {
				Elem []struct {
					Elem   *struct{ Val struct{ Concat []any } }
					Concat []any
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(w.gw.Must("nft", "-j", "list", "set", "inet", "probe", set)), &list); err != nil {
		w.t.Fatal(err)
	}
	var out [][]string
	for _, object := range list.Nftables {
		for _, e := range object.Set.Elem {
			if e.Elem != nil {
				e.Concat = e.Elem.Val.Concat
			}
			parts := make([]string, 0, len(e.Concat))
			for _, part := range e.Concat {
				if number, ok := part.(float64); ok {
					part = mark(uint32(number))
				}
				parts = append(parts, fmt.Sprint(part))
			}
			out = append(out, parts)
		}
	}
	return out
}

// hashConfig spreads all clients over 64 exits, and translates them to four
// addresses by client, or by flow to 10.9.0.0/16 and fd09::/16.
func hashConfig() Config {
	cfg := overlapConfig()
	cfg.ClientPrefixes = prefixes("10.244.0.0/16", "fd00:244::/32")
	cfg.Networks = cfg.Networks[:1]
	cfg.Networks[0].Sources = prefixes("198.51.100.0/28", "2001:db8:e::/124")
	cfg.Pools = []Pool{
		{Name: "client", Network: "red", ID: 1, Pool4: addrs("198.51.100.1", "198.51.100.2", "198.51.100.3"), Pool6: addrs("2001:db8:e::1", "2001:db8:e::2")},
		{Name: "flow", Network: "red", ID: 2, PerFlow: true, Pool4: addrs("198.51.100.5", "198.51.100.6"), Pool6: addrs("2001:db8:e::5", "2001:db8:e::6")},
	}
	cfg.Exits = []Exit{{Name: "flow", Network: "red", Mark: 0x10010002, Pool: "flow"}}
	s := Spread{Name: "spread"}
	for i := range 64 {
		e := Exit{Name: fmt.Sprint("exit", i), Network: "red", Mark: EgressMark | uint32(1+i)<<16 | 1, Pool: "client"}
		cfg.Exits = append(cfg.Exits, e)
		s.Exits = append(s.Exits, e.Name)
	}
	cfg.Spreads = []Spread{s}
	cfg.Policies = []Policy{{Name: "all", Clients: cfg.ClientPrefixes, Rules: []Rule{
		rule("0.0.0.0/0", ToExit, "spread"), rule("::/0", ToExit, "spread"), rule("10.9.0.0/16", ToExit, "flow"), rule("fd09::/16", ToExit, "flow"),
	}}}
	return cfg
}

// The kernel chooses the buckets that we say it does, of exits and of
// addresses, in both families.
func TestKernelHashes(t *testing.T) {
	cfg := hashConfig()
	w := hashWorld(t, cfg)
	for _, f := range lab.Families() {
		digit, a := "4", netip.MustParseAddr("10.244.7.9")
		if f == lab.IPv6 {
			digit, a = "6", netip.MustParseAddr("fd00:244:5::ffff:1")
		}
		pool := poolAddrs(append(slices.Clone(cfg.Pools[0].Pool4), cfg.Pools[0].Pool6...), f == lab.IPv4)
		buckets := Buckets(pool, 8) // as renderFew
		var clients []netip.Addr
		for range 300 {
			clients = append(clients, a)
			w.inject(w.cl, "c0", "eth0", a, servers[f], 64, &layers.UDP{SrcPort: 5000, DstPort: port}, gopacket.Payload("x"))
			for range 37 {
				a = a.Next()
			}
		}
		lab.Eventually(t, deadline, "all packets", func() error {
			if n := len(w.noted("sources" + digit)); n != len(clients) {
				return fmt.Errorf("%d of %d came out", n, len(clients))
			}
			return nil
		})
		marks, sources := map[string]string{}, map[string]string{}
		for _, parts := range w.noted("marks" + digit) {
			marks[parts[0]] = parts[1]
		}
		for _, parts := range w.noted("sources" + digit) {
			sources[parts[1]] = parts[2]
		}
		for _, c := range clients {
			if want := mark(EgressMark | uint32(1+ClientBucket(c, 64))<<16 | 1); marks[c.String()] != want {
				t.Errorf("%s has the mark %s, want %s", c, marks[c.String()], want)
			}
			if want := buckets[PoolBucket(c, 8)].String(); sources[c.String()] != want {
				t.Errorf("%s became %s, want %s", c, sources[c.String()], want)
			}
		}
	}
}

// A pool per flow gives one client all its addresses, and each packet one.
func TestKernelAddressPerFlow(t *testing.T) {
	w := hashWorld(t, hashConfig())
	for _, f := range lab.Families() {
		digit, net, protocols := "4", "10.9.0.", []gopacket.SerializableLayer{
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 7},
			&layers.GRE{Protocol: layers.EthernetTypeIPv4}}
		if f == lab.IPv6 {
			digit, net, protocols = "6", "fd09::", []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}}
		}
		expect := map[string]bool{}
		send := func(last string, l gopacket.SerializableLayer) {
			dst := netip.MustParseAddr(net + last)
			expect[dst.String()] = true
			w.inject(w.cl, "c0", "eth0", client(f, 10), dst, 64, l, gopacket.Payload("payload"))
		}
		for i := range 24 {
			send("1", &layers.UDP{SrcPort: layers.UDPPort(5000 + i), DstPort: port})
			send("2", &layers.TCP{SYN: true, SrcPort: layers.TCPPort(5000 + i), DstPort: port, Window: 1000})
		}
		for i, l := range protocols {
			send(fmt.Sprint(3+i), l)
		}
		seen := map[string][]string{}
		lab.Eventually(t, deadline, "all packets", func() error {
			clear(seen)
			for _, parts := range w.noted("sources" + digit) {
				if parts[1] == client(f, 10).String() {
					seen[parts[0]] = append(seen[parts[0]], parts[2])
				}
			}
			if len(seen) != len(expect) || len(seen[net+"1"]) != 2 || len(seen[net+"2"]) != 2 {
				return fmt.Errorf("addresses by destination: %v", seen)
			}
			return nil
		})
		for _, sources := range seen {
			for _, s := range sources {
				if !strings.HasSuffix(s, "5") && !strings.HasSuffix(s, "6") {
					t.Errorf("%s: an address that the pool has not: %v", f, seen)
				}
			}
		}
	}
}
