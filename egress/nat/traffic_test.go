package nat

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var pools = map[lab.Family]string{lab.IPv4: "198.51.100.0", lab.IPv6: "2001:db8:e::"}

// silence is how long a test waits for an answer that must not come. A counter
// or a sniffer then says that the packet was there; the wait alone proves
// nothing.
const silence = 300 * time.Millisecond

func TestTraffic(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct {
		name string
		run  func(*world)
	}{
		{"Overlap", overlapTraffic},
		{"Ping", pingTraffic},
		{"SharedAddress", sharedAddressTraffic},
		{"Own", ownTraffic},
		{"Stray", strayTraffic},
		{"Spoofed", spoofedTraffic},
		{"WrongPort", wrongPortTraffic},
		{"NoAddress", noAddressTraffic},
		{"Reject", rejectTraffic},
		{"Edits", editTraffic},
		{"OldFlow", oldFlowTraffic},
		{"Inbound", inboundTraffic},
		{"Unmatched", unmatchedTraffic},
		{"Spread", spreadTraffic},
		{"Fallback", fallbackTraffic},
		{"Refuse", refuseTraffic},
		{"Quoted", quotedTraffic},
		{"Guards", guardTraffic},
	} {
		t.Run(step.name, func(t *testing.T) {
			w.t, w.table.t = t, t
			w.become(overlapConfig())
			_, _ = w.gw.Run("conntrack", "-F")
			step.run(w)
			w.become(overlapConfig())
			w.settle()
		})
	}
}

func (w *world) flow(network string, f lab.Family, n int, srcPort uint16) net.Conn {
	w.t.Helper()
	return w.mustDial(network, netip.AddrPortFrom(client(f, n), srcPort), netip.AddrPortFrom(servers[f], port))
}

// Two clients, one source port, one destination, one pool address, two
// networks, all at once.
func overlapTraffic(w *world) {
	for _, f := range lab.Families() {
		for _, network := range []string{"tcp", "udp"} {
			red, blue := w.flow(network, f, 10, 44444), w.flow(network, f, 11, 44444)
			for range 2 {
				if p := w.mustAsk(red, "red", pools[f]); p != "44444" {
					w.t.Errorf("red's client became port %s", p)
				}
				if p := w.mustAsk(blue, "blue", pools[f]); p != "44444" {
					w.t.Errorf("blue's client became port %s", p)
				}
			}
		}
	}
	stats := w.gw.Must("conntrack", "-S")
	for field := range strings.FieldsSeq(stats) {
		if name, value, _ := strings.Cut(field, "="); name == "insert_failed" && value != "0" {
			w.t.Errorf("conntrack says %s", field)
		}
	}
}

func pingTraffic(w *world) {
	for _, f := range lab.Families() {
		for n := 10; n < 12; n++ {
			w.cl.Must("ping", "-n", "-c", "2", "-i", "0.2", "-W", "60", "-I", client(f, n).String(), servers[f].String())
		}
	}
}

// Two clients of one address with one source port: the kernel chooses another
// port for the second. A pool of several addresses gives a client the same one
// again.
func sharedAddressTraffic(w *world) {
	cfg := overlapConfig()
	cfg.Policies[0].Clients = append(cfg.Policies[0].Clients, prefixes("10.244.0.12/32", "fd00:244::12/128")...)
	w.become(cfg)
	for _, f := range lab.Families() {
		first, second := w.flow("tcp", f, 10, 45000), w.flow("tcp", f, 12, 45000)
		a, b := w.mustAsk(first, "red", pools[f]), w.mustAsk(second, "red", pools[f])
		if a != "45000" || b == a {
			w.t.Errorf("%s: ports %s and %s", f, a, b)
		}
	}

	cfg.Pools[0].Pool4 = addrs("198.51.100.0", "198.51.100.1")
	cfg.Pools[0].Pool6 = addrs("2001:db8:e::", "2001:db8:e::1")
	w.become(cfg)
	for _, f := range lab.Families() {
		seen := map[string]bool{}
		for _, n := range []int{10, 12} {
			answers := map[string]bool{}
			for i := range 3 {
				line, err := ask(w.flow("udp", f, n, uint16(46000+i)), deadline)
				if err != nil {
					w.t.Fatal(err)
				}
				host, _, _ := net.SplitHostPort(strings.TrimPrefix(line, "red saw "))
				answers[host] = true
			}
			if len(answers) != 1 {
				w.t.Errorf("%s client %d had the addresses %v", f, n, answers)
			}
			for a := range answers {
				seen[a] = true
			}
		}
		w.t.Logf("%s: two clients had %v", f, seen)
	}
}

// The node's own traffic in a VRF works and is not in conntrack.
func ownTraffic(w *world) {
	for _, network := range []string{"tcp", "udp"} {
		for _, f := range lab.Families() {
			for _, vrf := range []string{"red", "blue"} {
				d := net.Dialer{Timeout: deadline, Control: bindTo(vrf)}
				var conn net.Conn
				err := w.gw.Do(func() (err error) {
					conn, err = d.DialContext(w.t.Context(), network, netip.AddrPortFrom(servers[f], port).String())
					return err
				})
				if err != nil {
					w.t.Fatalf("%s %s in %s: %v", network, f, vrf, err)
				}
				w.mustAsk(conn, vrf, map[lab.Family]string{lab.IPv4: "172.16.0.1", lab.IPv6: "fd00:16::1"}[f])
				conn.Close()
			}
		}
	}
	w.gw.Must("ping", "-n", "-c", "1", "-W", "60", "-I", "red", "172.16.0.2")
	w.gw.Must("ping", "-n", "-c", "1", "-W", "60", "-I", "blue", "fd00:16::2")
	w.red.Must("ping", "-n", "-c", "1", "-W", "60", "172.16.0.1")
	w.blue.Must("ping", "-n", "-c", "1", "-W", "60", "fd00:16::1")
	for _, family := range []string{"ipv4", "ipv6"} {
		for line := range strings.Lines(w.gw.Must("conntrack", "-L", "-f", family)) {
			if strings.Contains(line, "172.16.0.") || strings.Contains(line, "fd00:16::") {
				w.t.Errorf("the node's own traffic is tracked: %s", line)
			}
		}
	}
}

func bindTo(dev string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, dev)
		}), err)
	}
}

// Packets that conntrack cannot make sense of do not leave, since they cannot
// be translated.
func strayTraffic(w *world) {
	before := w.counter(counterInvalid)
	sent := uint64(0)
	for _, f := range lab.Families() {
		for _, tcp := range []layers.TCP{{RST: true}, {SYN: true, FIN: true}, {}, {SYN: true, RST: true}, {FIN: true, URG: true, PSH: true}} {
			tcp.SrcPort, tcp.DstPort, tcp.Seq, tcp.Window = 50000, port, 7, 1000
			w.inject(w.cl, "c0", "eth0", client(f, 10), servers[f], 64, &tcp)
			sent++
		}
	}
	w.settle()
	if got := w.counter(counterInvalid) - before; got != sent {
		w.t.Errorf("%d of %d packets counted as invalid", got, sent)
	}
	// The middle of a connection that nobody began.
	before = w.counter(counterMidstream)
	for _, f := range lab.Families() {
		w.inject(w.cl, "c0", "eth0", client(f, 10), servers[f], 64, &layers.TCP{SrcPort: 50001, DstPort: port, ACK: true, Seq: 7, Ack: 9, Window: 1000})
	}
	w.settle()
	if got := w.counter(counterMidstream) - before; got != 2 {
		w.t.Errorf("%d of 2 packets counted as midstream", got)
	}
	// A source outside the clients' prefixes is nobody's: it takes the normal
	// way, as do an uplink's and a pool's address.
	for i, src := range addrs("192.0.2.77", "172.16.0.1", "198.51.100.0") {
		w.inject(w.cl, "c0", "eth0", src, servers[lab.IPv4], 64, &layers.UDP{SrcPort: 5, DstPort: layers.UDPPort(6000 + i)})
	}
	for i, src := range addrs("fe80::77", "fd00:16::1", "2001:db8:e::") {
		w.inject(w.cl, "c0", "eth0", src, servers[lab.IPv6], 64, &layers.UDP{SrcPort: 5, DstPort: layers.UDPPort(6000 + i)})
	}
	w.settle()
	for _, network := range []string{"red", "blue"} {
		for _, p := range w.sniffers[network].all() {
			if udp, ok := p.TransportLayer().(*layers.UDP); ok && udp.DstPort >= 6000 && udp.DstPort < 6010 {
				w.t.Errorf("out of %s's uplink: %s", network, p)
			}
		}
	}
}

// A network cannot begin a flow, nor speak in a flow of the other network.
func spoofedTraffic(w *world) {
	if err := w.gw.Sysctl("net.netfilter.nf_conntrack_acct", "1"); err != nil {
		w.t.Fatal(err)
	}
	for _, f := range lab.Families() {
		conn := w.flow("udp", f, 11, 47000)
		w.mustAsk(conn, "blue", pools[f])
		before := w.counter(counterInbound)
		// From red: the answer of blue's server to blue's client, translated and
		// not; and new flows to clients.
		reply := &layers.UDP{SrcPort: port, DstPort: 47000}
		w.inject(w.red, "r0", "eth1", servers[f], client(f, 11), 64, reply, gopacket.Payload("spoofed\n"))
		w.inject(w.red, "r0", "eth1", client(f, 11), servers[f], 64, &layers.UDP{SrcPort: 47000, DstPort: port}, gopacket.Payload("spoofed\n"))
		w.inject(w.red, "r0", "eth1", netip.MustParseAddr(pools[f]), servers[f], 64, &layers.UDP{SrcPort: 47000, DstPort: port}, gopacket.Payload("spoofed\n"))
		w.inject(w.red, "r0", "eth1", servers[f], netip.MustParseAddr(pools[f]), 64, reply, gopacket.Payload("spoofed\n"))
		w.inject(w.red, "r0", "eth1", servers[f], client(f, 10), 64, &layers.TCP{SYN: true, SrcPort: 5, DstPort: 22, Window: 1000})
		w.settle()
		// The guard stops all that in any case; it must not even have touched the
		// state of blue's flow, which a reset could end.
		if got := w.flowPackets(f, 47000); got != "1 1" {
			w.t.Errorf("%s: conntrack counts %q packets of blue's flow, want one each way", f, got)
		}
		// What went to the client or the server: nothing but the next real answer.
		w.mustAsk(conn, "blue", pools[f])
		if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			w.t.Fatal(err)
		}
		buf := make([]byte, 100)
		if n, err := conn.Read(buf); err == nil {
			w.t.Errorf("%s: blue's client heard %q from red", f, buf[:n])
		}
		if got := w.counter(counterInbound) - before; got < 2 {
			w.t.Errorf("%s: %d packets counted as inbound", f, got)
		}
	}
}

// flowPackets is what conntrack has counted, both ways, of client 11's flow from
// a source port.
func (w *world) flowPackets(f lab.Family, srcPort int) string {
	w.t.Helper()
	list := w.gw.Must("conntrack", "-L", "-f", string(f), "-p", "udp", "-s", client(f, 11).String(), "--sport", fmt.Sprint(srcPort))
	var counts []string
	for field := range strings.FieldsSeq(list) {
		if count, ok := strings.CutPrefix(field, "packets="); ok {
			counts = append(counts, count)
		}
	}
	return strings.Join(counts, " ")
}

// Traffic with red's mark that would leave by blue's port is stopped, also
// where both networks have the same pool addresses: as a new flow and in the
// middle of one.
func wrongPortTraffic(w *world) {
	conn := w.flow("udp", lab.IPv4, 10, 48000)
	w.mustAsk(conn, "red", pools[lab.IPv4])
	before := w.counter("guard_drops_blue")
	w.ip(w.gw, "route replace 10.0.0.0/24 via 172.16.0.2 dev eth2 table 10001", "-6 route replace fd00:10::/64 via fd00:16::2 dev eth2 table 10001")
	defer w.ip(w.gw, "route replace 10.0.0.0/24 via 172.16.0.2 dev eth1 table 10001", "-6 route replace fd00:10::/64 via fd00:16::2 dev eth1 table 10001")
	if got, err := ask(conn, silence); err == nil {
		w.t.Errorf("in the middle of a flow: %q", got)
	}
	for _, f := range lab.Families() {
		if got, err := ask(w.flow("udp", f, 10, 48001), silence); err == nil {
			w.t.Errorf("as a new flow: %q", got)
		}
	}
	if got := w.counter("guard_drops_blue") - before; got != 3 {
		w.t.Errorf("blue's guard dropped %d packets, want 3", got)
	}
}

// An exit without an address of the family lets nothing out.
func noAddressTraffic(w *world) {
	cfg := overlapConfig()
	cfg.Pools[0].Pool6 = nil
	cfg.Pools[1].Pool4, cfg.Pools[1].Pool6 = nil, nil
	w.become(cfg)
	before := w.counter(counterNoAddress)
	for _, c := range []struct {
		f lab.Family
		n int
	}{{lab.IPv6, 10}, {lab.IPv4, 11}, {lab.IPv6, 11}} {
		if got, err := ask(w.flow("udp", c.f, c.n, 48100), silence); err == nil {
			w.t.Errorf("client %s: %q", client(c.f, c.n), got)
		}
	}
	if got := w.counter(counterNoAddress) - before; got != 3 {
		w.t.Errorf("%d packets counted, want 3", got)
	}
	// Beside them the rest works.
	w.mustAsk(w.flow("tcp", lab.IPv4, 10, 48101), "red", pools[lab.IPv4])
}

// An ICMP error that the gateway sends to a server about a reply quotes the
// pool's address, not the client's.
func quotedTraffic(w *world) {
	for i, f := range lab.Families() {
		srcPort := uint16(48500 + i)
		w.mustAsk(w.flow("udp", f, 10, srcPort), "red", pools[f])
		seen := len(w.sniffers["red"].all())
		w.inject(w.red, "r0", "eth1", servers[f], netip.MustParseAddr(pools[f]), 1, &layers.UDP{SrcPort: port, DstPort: layers.UDPPort(srcPort)}, gopacket.Payload("late"))
		lab.Eventually(w.t, deadline, "an ICMP error", func() error {
			for _, p := range w.sniffers["red"].all()[seen:] {
				// A late answer of an earlier step may bring an error of the other family.
				if quoted := quotedIn(p); quoted != nil && destinationOf(quoted).Is4() == servers[f].Is4() {
					if a := destinationOf(quoted).String(); a != pools[f] {
						return lab.Final(fmt.Errorf("it quotes a packet to %s", a))
					}
					return nil
				}
			}
			return errors.New("none yet")
		})
	}
}

// With the guards alone nothing gets out, or in, or is in the way of others.
func guardTraffic(w *world) {
	udp := w.flow("udp", lab.IPv4, 10, 48600)
	w.mustAsk(udp, "red", pools[lab.IPv4])
	bare, err := RemoveAllButGuards(w.have).ApplyTo(w.have)
	if err != nil {
		w.t.Fatal(err)
	}
	w.change(bare)
	// Marked by hand, as if the rest of the table were broken: to the VRF, and
	// not translated.
	if err := w.gw.IP("rule add pref 700 iif eth0 to 10.0.0.0/24 lookup 10001"); err != nil {
		w.t.Fatal(err)
	}
	defer w.ip(w.gw, "rule del pref 700")
	before := w.counter("guard_drops_red")
	fresh := w.flow("udp", lab.IPv4, 12, 48601)
	if got, err := ask(fresh, silence); err == nil {
		w.t.Errorf("untranslated: %q", got)
	}
	if got := w.counter("guard_drops_red") - before; got != 1 {
		w.t.Errorf("red's guard dropped %d packets, want 1", got)
	}
	w.mustAsk(w.mustDial("tcp", netip.AddrPortFrom(client(lab.IPv4, 13), 0), netip.MustParseAddrPort("203.0.113.5:8080")), "out", "10.244.0.13")
	w.lawful()
	if !slices.ContainsFunc(w.sniffers["out"].all(), func(p gopacket.Packet) bool {
		l := p.NetworkLayer()
		return l != nil && sourceOf(l) == client(lab.IPv4, 13)
	}) {
		w.t.Error("the sniffer saw nothing of the normal traffic")
	}
}
