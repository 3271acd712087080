package bgp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// scripted is a peer that sends whatever bytes a test gives it.
type scripted struct {
	t    *testing.T
	conn net.Conn
}

// message adds the header of RFC 4271 4.1.
func message(kind byte, body ...byte) []byte {
	m := slices.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, kind), body...)
}

// update is an UPDATE message without withdrawn routes.
func update(attrs []byte, nlri ...byte) []byte {
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
	return message(2, append(append(body, attrs...), nlri...)...)
}

// Attributes in the form flags, type, length, value.
var (
	origin   = []byte{0x40, 1, 1, 0}
	asPath   = []byte{0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9} // 65001
	nextHop4 = []byte{0x40, 3, 4, 192, 0, 2, 1}
	prefix10 = []byte{16, 10, 1} // 10.1.0.0/16
)

// dialGateway opens a session, with add-path for IPv4 if asked.
func dialGateway(t *testing.T, g *gateway, addPath bool) *scripted {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	s := &scripted{t: t}
	lab.Eventually(t, deadline, "scripted session", func() error {
		conn, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", g.config.ListenPort))
		if err != nil {
			return err
		}
		s.conn = conn
		caps := []byte{1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfd, 0xe9} // IPv4 unicast, 4-octet AS
		if addPath {
			caps = append(caps, 69, 4, 0, 1, 1, 2) // sends several paths of IPv4 unicast
		}
		open := []byte{4, 0xfd, 0xe9, 0, 90, 127, 0, 0, 2, byte(len(caps) + 2), 2, byte(len(caps))}
		s.send(message(1, append(open, caps...)...))
		for _, want := range []byte{1, 4} { // OPEN, KEEPALIVE
			kind, _, err := s.read()
			if err != nil || kind != want {
				conn.Close()
				return fmt.Errorf("got message %d: %w", kind, errors.Join(err, io.ErrUnexpectedEOF))
			}
		}
		s.send(message(4))
		return nil
	})
	t.Cleanup(func() { s.conn.Close() })
	return s
}

func (s *scripted) send(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Log(err) // the gateway may have closed the session, as it should
	}
}

func (s *scripted) read() (kind byte, body []byte, err error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		return 0, nil, err
	}
	header := make([]byte, 19)
	if _, err := io.ReadFull(s.conn, header); err != nil {
		return 0, nil, err
	}
	body = make([]byte, max(int(binary.BigEndian.Uint16(header[16:]))-19, 0))
	_, err = io.ReadFull(s.conn, body)
	return header[18], body, err
}

// notification reads until the gateway closes the session, and returns why.
func (s *scripted) notification() string {
	s.t.Helper()
	for {
		kind, body, err := s.read()
		if err != nil {
			return err.Error()
		}
		if kind == 3 && len(body) >= 2 {
			return notification{code: body[0], subcode: body[1]}.String()
		}
	}
}

func malformedGateway(t *testing.T) (*gateway, *upstream) {
	t.Helper()
	g := newGateway(t, nil)
	good := startUpstream(t, upstreamConfig{addr: "127.0.0.3", asn: 65002, gateway: g.config.ListenPort})
	good.announce(announcement{prefix: "10.9.0.0/16", nextHop: "192.0.2.9"})
	g.set(func(c *Config) {
		c.Peers = []Peer{{Address: addr("127.0.0.2"), ASN: 65001, Passive: true, Import: anything, AddPath: true}, good.peer(anything...)}
	})
	g.established(good)
	g.routes("10.9.0.0/16 via 192.0.2.9")
	return g, good
}

// TestMalformed has a peer send broken UPDATEs: RFC 7606 withdraws what they
// are about, or ends the session; in no case does another peer notice.
func TestMalformed(t *testing.T) {
	t.Parallel()
	join := slices.Concat[[]byte]
	for name, c := range map[string]struct {
		send []byte
		// ends is the NOTIFICATION that has to come; "" keeps the session and
		// withdraws the prefix.
		ends string
		// keeps is set where only the attribute is discarded.
		keeps bool
	}{
		"origin of a bad value":       {send: update(join([]byte{0x40, 1, 1, 9}, asPath, nextHop4), prefix10...)},
		"origin too long":             {send: update(join([]byte{0x40, 1, 2, 0, 0}, asPath, nextHop4), prefix10...)},
		"origin missing":              {send: update(join(asPath, nextHop4), prefix10...)},
		"AS path segment overruns":    {send: update(join(origin, []byte{0x40, 2, 6, 2, 9, 0, 0, 0xfd, 0xe9}, nextHop4), prefix10...)},
		"AS path segment of type 9":   {send: update(join(origin, []byte{0x40, 2, 6, 9, 1, 0, 0, 0xfd, 0xe9}, nextHop4), prefix10...)},
		"next hop too short":          {send: update(join(origin, asPath, []byte{0x40, 3, 3, 192, 0, 2}), prefix10...)},
		"MED too short":               {send: update(join(origin, asPath, nextHop4, []byte{0x80, 4, 3, 0, 0, 1}), prefix10...)},
		"communities of a bad length": {send: update(join(origin, asPath, nextHop4, []byte{0xc0, 8, 5, 0, 0, 0, 0, 1}), prefix10...)},
		"large community cut short":   {send: update(join(origin, asPath, nextHop4, []byte{0xc0, 32, 11, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}), prefix10...)},
		"aggregator of a bad length":  {send: update(join(origin, asPath, nextHop4, []byte{0xc0, 7, 3, 1, 2, 3}), prefix10...), keeps: true},
		"prefix too long":             {send: update(join(origin, asPath, nextHop4), 33, 10, 1, 1, 1, 1), ends: "3/10"},
		"prefix cut short":            {send: update(join(origin, asPath, nextHop4), 24, 10), ends: "3/"},
		"attributes overrun":          {send: message(2, 0, 0, 0, 99, 0x40, 1, 1, 0), ends: "3/1"},
		"three bytes of MP_REACH":     {send: update([]byte{0x80, 14, 3, 0, 1, 1}), ends: "3/"},
		"bad marker":                  {send: append([]byte{0}, message(4)[1:]...), ends: "1/1"},
		"bad length":                  {send: append(slices.Repeat([]byte{0xff}, 16), 0, 18, 4), ends: "1/2"},
		"bad type":                    {send: message(9), ends: "1/3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, good := malformedGateway(t)
			s := dialGateway(t, g, false)
			s.send(update(slices.Concat(origin, asPath, nextHop4), prefix10...))
			g.routes("10.1.0.0/16 via 192.0.2.1", "10.9.0.0/16 via 192.0.2.9")
			s.send(c.send)
			switch {
			case c.ends != "":
				if got := s.notification(); !strings.HasPrefix(got, c.ends) {
					t.Errorf("the session ended by %q, want %q", got, c.ends)
				}
				g.routes("10.9.0.0/16 via 192.0.2.9")
			case !c.keeps:
				g.routes("10.9.0.0/16 via 192.0.2.9")
			}
			if c.ends == "" { // the session goes on
				s.send(update(slices.Concat(origin, asPath, nextHop4), 16, 10, 2))
				want := []string{"10.2.0.0/16 via 192.0.2.1", "10.9.0.0/16 via 192.0.2.9"}
				if c.keeps {
					want = append([]string{"10.1.0.0/16 via 192.0.2.1"}, want...)
				}
				g.routes(want...)
			}
			if p := g.peerState(good.addr); p.State != established || p.Flaps != 0 {
				t.Errorf("the other peer: %+v", p)
			}
		})
	}
}

// TestAddPath takes several paths to a prefix from one peer.
func TestAddPath(t *testing.T) {
	t.Parallel()
	g, _ := malformedGateway(t)
	s := dialGateway(t, g, true)
	path := func(id, hop byte, prefix ...byte) []byte {
		return update(slices.Concat(origin, asPath, []byte{0x40, 3, 4, 192, 0, 2, hop}), append([]byte{0, 0, 0, id}, prefix...)...)
	}
	for i := range byte(3) {
		s.send(path(i+1, i+1, prefix10...))
	}
	g.routes("10.1.0.0/16 via 192.0.2.1 192.0.2.2 192.0.2.3", "10.9.0.0/16 via 192.0.2.9")
	if p := g.peerState(addr("127.0.0.2")); p.Received != 3 || p.Accepted != 3 || !slices.Contains(p.Capabilities, capAddPath) {
		t.Errorf("%+v", p)
	}
	// Withdrawn one at a time, the first one first.
	withdraw := func(id byte) {
		routes := append([]byte{0, 0, 0, id}, prefix10...)
		body := append(binary.BigEndian.AppendUint16(nil, uint16(len(routes))), routes...)
		s.send(message(2, append(body, 0, 0)...))
	}
	withdraw(1)
	g.routes("10.1.0.0/16 via 192.0.2.2 192.0.2.3", "10.9.0.0/16 via 192.0.2.9")
	s.send(path(3, 7, prefix10...))
	g.routes("10.1.0.0/16 via 192.0.2.2 192.0.2.7", "10.9.0.0/16 via 192.0.2.9")
	paths := g.Paths(Filter{Network: "red", Peer: addr("127.0.0.2"), Prefix: prefix("10.0.0.0/8")})
	if len(paths) != 2 || paths[0].ID != 2 || !paths[1].Best || paths[1].ASPath != "65001" {
		t.Errorf("%+v", paths)
	}
	withdraw(3)
	withdraw(2)
	g.routes("10.9.0.0/16 via 192.0.2.9")
}
