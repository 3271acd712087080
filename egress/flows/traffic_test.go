package flows

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"golang.org/x/sys/unix"
)

const wait = 30 * time.Second

// ruleset translates as Egret's own does, to one address in each family.
const ruleset = `
table inet egress
delete table inet egress
table inet egress {
	chain raw {
		type filter hook prerouting priority raw;
		iifname "cl0" meta mark set 0x10010001 ct reply zone set 40001
		iifname "up0" ct zone set 40001
	}
	chain mangle {
		type filter hook prerouting priority mangle;
		iifname "cl0" ct mark set meta mark
	}
	chain nat {
		type nat hook postrouting priority 95;
		oifname "up0" udp dport 9999 snat ip to 198.51.100.9:1024-1025
		oifname "up0" meta nfproto ipv4 snat ip to %s
		oifname "up0" meta nfproto ipv6 snat ip6 to %s
	}
}`

var (
	clients = map[lab.Family]string{lab.IPv4: "10.0.0.1", lab.IPv6: "fd00::1"}
	servers = map[lab.Family]string{lab.IPv4: "192.0.2.1", lab.IPv6: "2001:db8::1"}
	pools   = map[lab.Family]string{lab.IPv4: "198.51.100.1", lab.IPv6: "2001:db8:e::1"}
	pools2  = map[lab.Family]string{lab.IPv4: "198.51.100.2", lab.IPv6: "2001:db8:e::2"}
)

// A world is client - gateway - server; the server answers with the address that it saw.
type world struct {
	t        *testing.T
	cl, gw   *lab.NS
	table    *Table
	lastPort uint16
}

func newWorld(t *testing.T) *world {
	t.Helper()
	lab.Require(t, lab.Nft, lab.Conntrack)
	l := lab.New(t)
	w := &world{t: t, cl: l.MustNamespace("cl"), gw: l.MustNamespace("gw"), lastPort: 5000}
	srv := l.MustNamespace("srv")
	l.MustLink(w.cl, "cl0", w.gw, "cl0")
	l.MustLink(w.gw, "up0", srv, "up0")
	w.cl.MustIP("addr add 10.0.0.1/24 dev cl0", "addr add fd00::1/64 dev cl0 nodad",
		"route add default via 10.0.0.254", "route add default via fd00::fe")
	w.gw.MustIP("addr add 10.0.0.254/24 dev cl0", "addr add fd00::fe/64 dev cl0 nodad",
		"addr add 192.0.2.254/24 dev up0", "addr add 2001:db8::fe/64 dev up0 nodad")
	srv.MustIP("addr add 192.0.2.1/24 dev up0", "addr add 2001:db8::1/64 dev up0 nodad",
		"route add 198.51.100.0/24 via 192.0.2.254", "route add 2001:db8:e::/64 via 2001:db8::fe")
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.netfilter.nf_conntrack_acct"} {
		if err := w.gw.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	w.translate(pools)
	serve(t, srv)
	w.table = openIn(t, w.gw)
	return w
}

func (w *world) translate(to map[lab.Family]string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "rules.nft")
	if err := os.WriteFile(file, fmt.Appendf(nil, ruleset, to[lab.IPv4], to[lab.IPv6]), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.gw.Must("nft", "-f", file)
}

func serve(t *testing.T, srv *lab.NS) {
	t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	err := srv.Do(func() (err error) {
		if listener, err = net.Listen("tcp", "[::]:443"); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", "[::]:443")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = listener.Close(), packets.Close() })
	go func() {
		for b := make([]byte, 2000); ; {
			_, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo([]byte(from.String()+"\n"), from)
		}
	}()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for r := bufio.NewReader(c); ; {
					if _, err := r.ReadString('\n'); err != nil {
						return
					}
					_, _ = io.WriteString(c, c.RemoteAddr().String()+"\n")
				}
			}()
		}
	}()
}

func (w *world) dial(network string, f lab.Family) (net.Conn, uint16) {
	w.t.Helper()
	w.lastPort++
	local := netip.AddrPortFrom(netip.MustParseAddr(clients[f]), w.lastPort)
	d := net.Dialer{Timeout: wait, LocalAddr: net.UDPAddrFromAddrPort(local)}
	if network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	var conn net.Conn
	err := w.cl.Do(func() (err error) {
		conn, err = d.DialContext(w.t.Context(), network, net.JoinHostPort(servers[f], "443"))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn, w.lastPort
}

// ask returns which address the server sees.
func (w *world) ask(c net.Conn) netip.AddrPort {
	w.t.Helper()
	seen, err := try(c, wait)
	if err != nil {
		w.t.Fatal(err)
	}
	return seen
}

func try(c net.Conn, patience time.Duration) (netip.AddrPort, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := io.WriteString(c, "who\n"); err != nil {
		return netip.AddrPort{}, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, err
	}
	seen, err := netip.ParseAddrPort(strings.TrimSpace(line))
	return netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port()), err
}

// flow returns the one flow that begins at this port.
func (w *world) flow(proto uint8, port uint16) Flow {
	w.t.Helper()
	var found []Flow
	_, err := w.table.Sweep(w.t.Context(), markRed, 0xffffffff, func(f Flow) bool {
		if f.Proto == proto && (port == 0 || f.SrcPort == port) {
			found = append(found, f)
		}
		return false
	})
	if err != nil || len(found) != 1 {
		w.t.Fatalf("flows of protocol %d from port %d: %+v, %v", proto, port, found, err)
	}
	return found[0]
}

// What a sweep says of real flows is what their ends see.
func TestTrafficIsSeen(t *testing.T) {
	w := newWorld(t)
	for _, f := range lab.Families() {
		for network, proto := range map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP} {
			conn, port := w.dial(network, f)
			seen := w.ask(conn)
			w.check(w.flow(proto, port), Flow{
				Mark: markRed, Zone: zoneRed, Proto: proto, Src: netip.MustParseAddr(clients[f]), SrcPort: port,
				Dst: netip.MustParseAddr(servers[f]), DstPort: 443, Address: seen.Addr(), Port: seen.Port(),
			})
			if seen.Addr().String() != pools[f] {
				t.Errorf("the server saw %s", seen)
			}
		}
		w.cl.Must("ping", "-n", "-c", "1", "-W", "30", servers[f])
		proto, kind := uint8(unix.IPPROTO_ICMP), uint16(8)
		if f == lab.IPv6 {
			proto, kind = unix.IPPROTO_ICMPV6, 128
		}
		got := w.flow(proto, 0)
		w.check(got, Flow{
			Mark: markRed, Zone: zoneRed, Proto: proto, Src: netip.MustParseAddr(clients[f]), SrcPort: got.SrcPort,
			Dst: netip.MustParseAddr(servers[f]), DstPort: kind << 8, Address: netip.MustParseAddr(pools[f]), Port: got.Port,
		})
	}
}

// check compares a flow whose packets are counted and whose time runs.
func (w *world) check(got, want Flow) {
	w.t.Helper()
	if got.Sent.Packets == 0 || got.Received.Packets == 0 || got.Sent.Bytes < 20*got.Sent.Packets || got.Timeout <= 0 {
		w.t.Errorf("counters or timeout are missing: %+v", got)
	}
	got.Sent, got.Received, got.Timeout = Counter{}, Counter{}, 0
	if got != want {
		w.t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A flow keeps its translation over an edit of the rules until it is cut, and
// another flow is not touched.
func TestTrafficIsCut(t *testing.T) {
	w := newWorld(t)
	for _, f := range lab.Families() {
		w.translate(pools)
		conn, port := w.dial("udp", f)
		spared, _ := w.dial("udp", f)
		w.ask(conn)
		w.ask(spared)
		w.translate(pools2)
		if seen := w.ask(conn); seen.Addr().String() != pools[f] {
			t.Errorf("the edit moved the flow to %s", seen)
		}
		r, err := w.table.Sweep(t.Context(), markRed&maskHop, maskHop, func(f Flow) bool { return f.SrcPort == port })
		if err != nil || r.Cut != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		if seen := w.ask(conn); seen.Addr().String() != pools2[f] {
			t.Errorf("after the cut the server saw %s", seen)
		}
		if seen := w.ask(spared); seen.Addr().String() != pools[f] {
			t.Errorf("the cut moved another flow to %s", seen)
		}
	}
}

// Flows beyond the ports of a pool address are what InsertFailed counts.
func TestTrafficExhaustsPool(t *testing.T) {
	w := newWorld(t)
	conn, _ := w.dial("tcp", lab.IPv4)
	w.ask(conn)
	before, err := w.table.Stats(t.Context())
	if err != nil || before.Count == 0 || before.Max < before.Count || before.InsertFailed != 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	for port := range 3 {
		err := w.cl.Do(func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{Port: 7000 + port}}
			c, err := d.DialContext(t.Context(), "udp", "192.0.2.1:9999")
			if err != nil {
				return err
			}
			_, err = io.WriteString(c, "x")
			_ = c.Close()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lab.Eventually(t, wait, "a flow that finds no port", func() error {
		s, err := w.table.Stats(t.Context())
		if err == nil && s.InsertFailed == 0 {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	used := NewUsage(10)
	if _, err := w.table.Sweep(t.Context(), maskAll, maskAll, func(f Flow) bool { used.Add(f); return false }); err != nil {
		t.Fatal(err)
	}
	for _, a := range used.Addresses() {
		if a.Address.String() == "198.51.100.9" && (a.Fullest.Flows != 2 || a.Fullest.DstPort != 9999) {
			t.Errorf("%+v", a)
		}
	}
	if len(used.Addresses()) != 2 {
		t.Errorf("%+v", used.Addresses())
	}
}

// A flow that a flowtable forwards is shown as such, and a cut ends it, too.
func TestTrafficOffloaded(t *testing.T) {
	lab.Require(t, lab.Nft, lab.Conntrack, lab.Flowtable)
	w := newWorld(t)
	w.gw.Must("nft", `table inet fast {
		flowtable ft { hook ingress priority 0; devices = { cl0, up0 }; counter; }
		chain forward { type filter hook forward priority 0; ct state established flow add @ft; }
	}`)
	for _, f := range lab.Families() {
		w.translate(pools)
		conn, port := w.dial("udp", f)
		lab.Eventually(t, wait, "an offloaded flow", func() error {
			w.ask(conn)
			if got := w.flow(unix.IPPROTO_UDP, port); !got.Offloaded || got.Timeout != 0 {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		w.translate(pools2)
		if seen := w.ask(conn); seen.Addr().String() != pools[f] {
			t.Errorf("the edit moved the flow to %s", seen)
		}
		r, err := w.table.Sweep(t.Context(), markRed&maskHop, maskHop, func(f Flow) bool { return f.SrcPort == port })
		if err != nil || r.Cut != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		lab.Eventually(t, wait, "the flow's new address", func() error {
			seen, err := try(conn, time.Second)
			if err == nil && seen.Addr().String() != pools2[f] {
				err = fmt.Errorf("the server sees %s", seen)
			}
			return err
		})
	}
}
