package nat

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"golang.org/x/sys/unix"
)

// world is a gateway with clients on one side, two networks with the same
// addresses on the other, and an ordinary neighbour ("out") in the default VRF:
// overlapConfig as a network.
//
//	cl c0 --- eth0 gw eth1 --- r0 red     10.0.0.5 and fd00:10::5 in both
//	               gw eth2 --- b0 blue
//	               gw eth3 --- o0 out     203.0.113.5
type world struct {
	t                      *testing.T
	lab                    *lab.Lab
	cl, gw, red, blue, out *lab.NS
	table                  kernelTable
	have                   Ruleset // what the gateway was given last
	sniffers               map[string]*sniffer
}

const (
	deadline = 2 * time.Minute // generous: emulated machines are slow
	port     = 8080
)

var servers = map[lab.Family]netip.Addr{
	lab.IPv4: netip.MustParseAddr("10.0.0.5"),
	lab.IPv6: netip.MustParseAddr("fd00:10::5"),
}

// client is the address of client n, which is 10 for red and 11 for blue.
func client(f lab.Family, n int) netip.Addr {
	if f == lab.IPv4 {
		return netip.AddrFrom4([4]byte{10, 244, 0, byte(n)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00:244::%d", n))
}

func newWorld(t *testing.T) *world {
	lab.Require(t, lab.Nft, lab.VRF, lab.Conntrack)
	l := lab.New(t)
	w := &world{
		t: t, lab: l, cl: l.MustNamespace("cl"), gw: l.MustNamespace("gw"), red: l.MustNamespace("red"),
		blue: l.MustNamespace("blue"), out: l.MustNamespace("out"), sniffers: map[string]*sniffer{},
	}
	for _, ns := range []*lab.NS{w.gw, w.red, w.blue, w.out} {
		for _, setting := range []string{"net.ipv4.ip_forward 1", "net.ipv6.conf.all.forwarding 1", "net.ipv4.conf.all.rp_filter 0", "net.ipv4.conf.default.rp_filter 0"} {
			key, value, _ := strings.Cut(setting, " ")
			if err := ns.Sysctl(key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.MustLink(w.cl, "c0", w.gw, "eth0")
	l.MustLink(w.red, "r0", w.gw, "eth1")
	l.MustLink(w.blue, "b0", w.gw, "eth2")
	l.MustLink(w.out, "o0", w.gw, "eth3")
	w.addresses()
	w.table = tableIn(t, w.gw)
	for ns, dev := range map[*lab.NS]string{w.red: "r0", w.blue: "b0", w.out: "o0"} {
		w.sniffers[ns.Name] = w.sniff(ns, dev)
	}
	for _, ns := range []*lab.NS{w.red, w.blue} {
		for _, addr := range servers {
			w.serve(ns, netip.AddrPortFrom(addr, port))
		}
	}
	w.serve(w.out, netip.MustParseAddrPort("203.0.113.5:8080"))
	return w
}

func (w *world) addresses() {
	w.ip(w.gw, "addr add 10.244.0.1/24 dev eth0", "addr add fd00:244::1/64 dev eth0", "addr add 192.0.2.1/30 dev eth3", "route add default via 192.0.2.2",
		"rule add pref 800 fwmark 0x20000000/0x20000000 lookup main", "rule add pref 990 fwmark 0x10000000/0x10000000 unreachable",
		"-6 rule add pref 800 fwmark 0x20000000/0x20000000 lookup main", "-6 rule add pref 990 fwmark 0x10000000/0x10000000 unreachable")
	for i, network := range []string{"red", "blue"} {
		dev, table := fmt.Sprintf("eth%d", i+1), fmt.Sprint(10001+i)
		w.ip(w.gw, "link add "+network+" type vrf table "+table, "link set "+network+" up", "link set "+dev+" master "+network,
			"addr add 172.16.0.1/30 dev "+dev, "addr add fd00:16::1/64 dev "+dev,
			"route add 10.0.0.0/24 via 172.16.0.2 dev "+dev+" table "+table, "-6 route add fd00:10::/64 via fd00:16::2 dev "+dev+" table "+table,
			"route add unreachable default metric 4278198272 table "+table, "-6 route add unreachable default metric 4278198272 table "+table)
		for _, family := range []string{"", "-6 "} {
			w.ip(w.gw, fmt.Sprintf("%srule add pref 810 fwmark 0x1%03x0000/0x1fff0000 lookup %s", family, i+1, table))
		}
	}
	w.ip(w.cl, "route add default via 10.244.0.1 dev c0 onlink", "-6 route add default via fd00:244::1 dev c0 onlink")
	for n := 10; n < 14; n++ {
		w.ip(w.cl, fmt.Sprintf("addr add %s/24 dev c0", client(lab.IPv4, n)), fmt.Sprintf("addr add %s/64 dev c0", client(lab.IPv6, n)))
	}
	for ns, dev := range map[*lab.NS]string{w.red: "r0", w.blue: "b0"} {
		w.ip(ns, "addr add 172.16.0.2/30 dev "+dev, "addr add fd00:16::2/64 dev "+dev, "addr add 10.0.0.5/32 dev lo", "addr add fd00:10::5/128 dev lo",
			"route add 198.51.100.0/24 via 172.16.0.1", "route add 10.244.0.0/16 via 172.16.0.1", "-6 route add 2001:db8:e::/64 via fd00:16::1", "-6 route add fd00:244::/64 via fd00:16::1")
	}
	w.ip(w.out, "addr add 192.0.2.2/30 dev o0", "addr add 203.0.113.5/32 dev lo", "route add 10.0.0.0/8 via 192.0.2.1")
}

// ip runs ip(8) commands, those that begin with -6 in that family.
func (w *world) ip(ns *lab.NS, commands ...string) {
	w.t.Helper()
	for _, c := range commands {
		ns.Must(append([]string{"ip"}, strings.Fields(c)...)...)
	}
}

// become gives the gateway a configuration.
func (w *world) become(cfg Config) {
	w.t.Helper()
	w.change(renderFew(cfg))
}

// change is become with a ruleset. That the kernel has what it was given is the
// matter of other tests.
func (w *world) change(want Ruleset) {
	w.t.Helper()
	w.table.apply(Diff(w.have, want))
	w.have = want
}

// serve answers each line and each datagram with the server's name and the
// address it came from.
func (w *world) serve(ns *lab.NS, addr netip.AddrPort) {
	var tcp net.Listener
	var udp net.PacketConn
	err := ns.Do(func() (err error) {
		if tcp, err = net.Listen("tcp", addr.String()); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp", addr.String())
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			go answer(conn, ns.Name)
		}
	}()
	go func() {
		buf := make([]byte, 2000)
		for {
			_, from, err := udp.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = fmt.Fprintf(discardErrors{udp, from}, "%s saw %s\n", ns.Name, from)
			}
		}
	}()
}

type discardErrors struct {
	net.PacketConn
	to net.Addr
}

func (d discardErrors) Write(b []byte) (int, error) { return d.WriteTo(b, d.to) }

func answer(conn net.Conn, name string) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if _, err := fmt.Fprintf(conn, "%s saw %s\n", name, conn.RemoteAddr()); err != nil {
			return
		}
	}
}

// dial opens a connection out of a namespace.
func (w *world) dial(ns *lab.NS, network string, local, remote netip.AddrPort, limit time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: limit, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	} else {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	var conn net.Conn
	err := ns.Do(func() (err error) { conn, err = d.DialContext(w.t.Context(), network, remote.String()); return err })
	if err == nil {
		w.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// mustDial is dial for connections that have to come about.
func (w *world) mustDial(network string, local, remote netip.AddrPort) net.Conn {
	w.t.Helper()
	conn, err := w.dial(w.cl, network, local, remote, deadline)
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// ask sends a line and gives the answer without its newline.
func ask(conn net.Conn, limit time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// mustAsk checks the server's name and the address it saw.
func (w *world) mustAsk(conn net.Conn, server, address string) string {
	w.t.Helper()
	got, err := ask(conn, deadline)
	if err != nil {
		w.t.Fatalf("%s over %s: %v", conn.RemoteAddr(), conn.RemoteAddr().Network(), err)
	}
	name, from, _ := strings.Cut(got, " saw ")
	host, srcPort, _ := net.SplitHostPort(from)
	if name != server || host != address {
		w.t.Fatalf("%s to %s: got %q, want %s to see %s", conn.LocalAddr(), conn.RemoteAddr(), got, server, address)
	}
	return srcPort
}
