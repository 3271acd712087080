package probes_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is a DNS server in a namespace that does as it is told, by UDP and
// by TCP.
type nameServer struct {
	answer   atomic.Pointer[func(m *dnsmessage.Message, tcp bool)]
	from     atomic.Pointer[netip.AddrPort]
	udp, tcp atomic.Int64
}

func newNameServer(t *testing.T, ns *lab.NS, at string) *nameServer {
	t.Helper()
	s := &nameServer{}
	var udp net.PacketConn
	var tcp net.Listener
	lab.Eventually(t, time.Minute, "address "+at, func() error {
		return ns.Do(func() (err error) {
			if udp, err = net.ListenPacket("udp", at); err != nil {
				return err
			}
			if tcp, err = net.Listen("tcp", at); err != nil {
				_ = udp.Close()
			}
			return err
		})
	})
	t.Cleanup(func() { _, _ = udp.Close(), tcp.Close() })
	go s.serveUDP(udp)
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go s.serveTCP(c)
		}
	}()
	return s
}

func (s *nameServer) do(answer func(m *dnsmessage.Message, tcp bool)) { s.answer.Store(&answer) }

// reply is nil for silence.
func (s *nameServer) reply(query []byte, tcp bool) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || s.answer.Load() == nil {
		return nil
	}
	m.Response = true
	(*s.answer.Load())(&m, tcp)
	b, _ := m.Pack()
	return b
}

func (s *nameServer) serveUDP(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		s.udp.Add(1)
		a := from.(*net.UDPAddr).AddrPort()
		s.from.Store(&a)
		if b := s.reply(buf[:n], false); b != nil {
			_, _ = c.WriteTo(b, from)
		}
	}
}

func (s *nameServer) serveTCP(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	s.tcp.Add(1)
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, query); err != nil {
		return
	}
	if b := s.reply(query, true); b != nil {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	}
}

// records answers with what the name has: one record of each type.
func records(m *dnsmessage.Message) {
	q := m.Questions[0]
	h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET, TTL: 1}
	ns := dnsmessage.MustNewName("ns.Example.com.")
	bodies := map[dnsmessage.Type]dnsmessage.ResourceBody{
		dnsmessage.TypeA:    &dnsmessage.AResource{A: [4]byte{192, 0, 2, 80}},
		dnsmessage.TypeAAAA: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::80").As16()},
		dnsmessage.TypeNS:   &dnsmessage.NSResource{NS: ns},
		dnsmessage.TypeSOA:  &dnsmessage.SOAResource{NS: ns, MBox: ns},
	}
	alias := h
	alias.Type = dnsmessage.TypeCNAME
	m.Answers = append(m.Answers, dnsmessage.Resource{Header: alias, Body: &dnsmessage.CNAMEResource{CNAME: ns}},
		dnsmessage.Resource{Header: h, Body: bodies[q.Type]})
}

func dnsProbe(name string, d probes.DNSConfig, servers ...string) probes.Config {
	c := icmpProbe(name, "g0")
	c.Type, c.DNS, c.AttemptTimeout = probes.DNS, &d, time.Second
	for _, s := range servers {
		c.Targets = append(c.Targets, probes.Target{Endpoint: netip.MustParseAddrPort(s)})
	}
	return c
}

func TestDNSAnswers(t *testing.T) {
	n := newPair(t)
	s, six := newNameServer(t, n.far, "10.0.0.5:53"), newNameServer(t, n.far, "[fd00::5]:5353")
	well := func(m *dnsmessage.Message, _ bool) { records(m) }
	s.do(well)
	six.do(well)
	p := startProber(t, n.gw)
	plain := dnsProbe("plain", probes.DNSConfig{Name: "www.example.com"}, "10.0.0.5:53", "[fd00::5]:5353")
	plain.Targets[0].Source = netip.MustParseAddr("10.0.0.2")
	p.set(plain,
		dnsProbe("a", probes.DNSConfig{Name: "www.example.com.", Answer: "192.0.2.80"}, "10.0.0.5:53"),
		dnsProbe("aaaa", probes.DNSConfig{Name: "www.example.com", Type: "AAAA", Answer: "2001:db8:0::80"}, "10.0.0.5:53"),
		dnsProbe("ns", probes.DNSConfig{Name: "example.com", Type: "NS", Answer: "NS.example.com"}, "10.0.0.5:53"),
		dnsProbe("soa", probes.DNSConfig{Name: "example.com", Type: "SOA", Answer: "ns.example.com."}, "10.0.0.5:53"),
		dnsProbe("other", probes.DNSConfig{Name: "www.example.com", Answer: "192.0.2.81"}, "10.0.0.5:53"),
		dnsProbe("code", probes.DNSConfig{Name: "www.example.com", RCode: "NXDOMAIN"}, "10.0.0.5:53"),
		dnsProbe("port", probes.DNSConfig{Name: "www.example.com"}, "10.0.0.5:54"),
		dnsProbe("device", probes.DNSConfig{Name: "www.example.com"}, "10.0.0.99:53"))
	for _, name := range []string{"plain", "a", "aaaa", "ns", "soa"} {
		p.verdict(name, probes.Up)
	}
	p.verdict("other", probes.Down, `"192.0.2.81" is not among the answers ["192.0.2.80"]`)
	p.verdict("code", probes.Down, "response code NOERROR, not NXDOMAIN")
	p.verdict("port", probes.Down, "connection refused")
	p.verdict("device", probes.Down)

	p.set(plain)
	p.attempts("plain", 2)
	if from := s.from.Load(); from.Addr() != netip.MustParseAddr("10.0.0.2") {
		t.Errorf("asked from %v", from)
	}
	release := well
	for _, bad := range []struct {
		name   string
		answer func(m *dnsmessage.Message, tcp bool)
		text   string
	}{
		{"code", func(m *dnsmessage.Message, _ bool) { m.RCode = dnsmessage.RCodeServerFailure }, "response code SERVFAIL, not NOERROR"},
		{"nothing", func(*dnsmessage.Message, bool) {}, "no record of type A in the answer"},
		{"other id", func(m *dnsmessage.Message, _ bool) { records(m); m.ID++ }, "no answer within 1s: ask by UDP"},
		{"query", func(m *dnsmessage.Message, _ bool) { records(m); m.Response = false }, "no answer within 1s"},
		{"other question", func(m *dnsmessage.Message, _ bool) { records(m); m.Questions[0].Type = dnsmessage.TypeAAAA }, "no answer within 1s"},
		{"truncated", func(m *dnsmessage.Message, tcp bool) { m.Truncated = true }, "by TCP: answer is truncated"},
	} {
		s.do(bad.answer)
		p.verdict("plain", probes.Down, bad.text)
		s.do(release)
		p.verdict("plain", probes.Up)
	}
}

// TestDNSTruncated: the rest of a truncated answer is fetched by TCP.
func TestDNSTruncated(t *testing.T) {
	n := newPair(t)
	s := newNameServer(t, n.far, "10.0.0.5:53")
	s.do(func(m *dnsmessage.Message, tcp bool) {
		if m.Truncated = !tcp; tcp {
			records(m)
		}
	})
	p := startProber(t, n.gw)
	p.set(dnsProbe("tcp", probes.DNSConfig{Name: "www.example.com", Answer: "192.0.2.80"}, "10.0.0.5:53"))
	p.verdict("tcp", probes.Up)
	if s.tcp.Load() == 0 || s.udp.Load() < s.tcp.Load() {
		t.Errorf("asked %d times by UDP and %d times by TCP", s.udp.Load(), s.tcp.Load())
	}
	s.do(func(m *dnsmessage.Message, tcp bool) {
		if m.Truncated = !tcp; tcp {
			m.ID++
		}
	})
	p.verdict("tcp", probes.Down, "by TCP: the answer is to another question")
}
