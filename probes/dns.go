package probes

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// maxMessage bounds an answer, by UDP and by TCP, in bytes.
const maxMessage = 65535

var recordTypes = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "NS": dnsmessage.TypeNS, "SOA": dnsmessage.TypeSOA,
}

var responseCodes = map[string]dnsmessage.RCode{
	"NOERROR": dnsmessage.RCodeSuccess, "FORMERR": dnsmessage.RCodeFormatError, "SERVFAIL": dnsmessage.RCodeServerFailure,
	"NXDOMAIN": dnsmessage.RCodeNameError, "NOTIMP": dnsmessage.RCodeNotImplemented, "REFUSED": dnsmessage.RCodeRefused,
}

// errTruncated says that the answer has to be fetched by TCP.
var errTruncated = errors.New("answer is truncated")

// dnsAttempt asks one question of one server (RFC 1035), without the process's
// resolver and without a cache: by UDP, and by TCP when the answer is truncated.
// Each try has a socket, a port and an id of its own.
type dnsAttempt struct {
	config   DNSConfig
	device   string
	source   netip.Addr
	server   netip.AddrPort
	question dnsmessage.Question
	buf      []byte
	control  []byte
}

// newDNSAttempt is for a valid Config.
func newDNSAttempt(c Config, t Target) *dnsAttempt {
	d := c.dns()
	name, _ := dnsmessage.NewName(strings.TrimSuffix(d.Name, ".") + ".") // valid
	return &dnsAttempt{config: d, device: c.Device, source: c.source(t), server: t.Endpoint,
		question: dnsmessage.Question{Name: name, Type: recordTypes[d.Type], Class: dnsmessage.ClassINET},
		control:  make([]byte, 256)}
}

// try is an attempt.
func (a *dnsAttempt) try(ctx context.Context, timeout time.Duration) (time.Duration, error) {
	id, query, err := a.query()
	if err != nil {
		return 0, fmt.Errorf("make query: %w", err)
	}
	start := time.Now()
	came, err := a.overUDP(ctx, timeout, id, query)
	if errors.Is(err, errTruncated) {
		ctx, cancel := context.WithDeadline(ctx, start.Add(timeout))
		defer cancel()
		came, err = a.overTCP(ctx, id, query)
		if err != nil {
			err = fmt.Errorf("by TCP: %w", err)
		}
	}
	if err != nil {
		return 0, err
	}
	return max(1, came.Sub(start)), nil
}

// query is the message with a random id. Recursion is desired: servers that do
// not offer it ignore that.
func (a *dnsAttempt) query() (uint16, []byte, error) {
	var random [2]byte
	if _, err := rand.Read(random[:]); err != nil {
		return 0, nil, err
	}
	id := binary.BigEndian.Uint16(random[:])
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{a.question}}
	b, err := m.Pack()
	return id, b, err
}

// overUDP returns when the answer came.
func (a *dnsAttempt) overUDP(ctx context.Context, timeout time.Duration, id uint16, query []byte) (time.Time, error) {
	none := time.Time{}
	s, err := newSocket(familyOf(a.server.Addr()), unix.SOCK_DGRAM, a.device, a.source, stamps)
	if err != nil {
		return none, err
	}
	defer s.close()
	// Connected: only the server's packets come, and unreachable messages.
	if err := s.connect(a.server); err != nil {
		return none, fmt.Errorf("send query: %w", err)
	}
	if _, err := s.file.Write(query); err != nil {
		return none, fmt.Errorf("send query: %w", cause(err))
	}
	if a.buf == nil {
		a.buf = make([]byte, maxMessage)
	}
	deadline := time.Now().Add(timeout)
	var came time.Time
	err = s.wait(ctx, deadline, false, func(fd int) error {
		for range maxReads {
			p, err := receive(fd, a.buf, a.control)
			if err != nil {
				return err
			}
			if p.came.After(deadline) {
				return errLate
			}
			if answers(p.data, id, a.question) { // else a stray or a forgery
				came = p.came
				return a.judge(p.data)
			}
		}
		return errors.New("too many packets that are no answer")
	})
	if err != nil && !errors.Is(err, errTruncated) {
		return none, fmt.Errorf("ask by UDP: %w", err)
	}
	return came, err
}

// overTCP asks with the two bytes of length that TCP needs (RFC 1035, 4.2.2).
func (a *dnsAttempt) overTCP(ctx context.Context, id uint16, query []byte) (time.Time, error) {
	none := time.Time{}
	conn, err := dialerFor(a.device, a.source).DialContext(ctx, "tcp", a.server.String())
	if err != nil {
		return none, cause(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	if _, err := conn.Write(framed); err != nil {
		return none, fmt.Errorf("send query: %w", cause(err))
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return none, fmt.Errorf("read answer: %w", cause(err))
	}
	answer := a.buf[:binary.BigEndian.Uint16(size[:])]
	if _, err := io.ReadFull(conn, answer); err != nil {
		return none, fmt.Errorf("read answer: %w", cause(err))
	}
	if !answers(answer, id, a.question) {
		return none, errors.New("the answer is to another question")
	}
	if err := a.judge(answer); err != nil {
		return none, err
	}
	return time.Now(), nil
}

// dialerFor connects from the device, and from source when valid.
func dialerFor(device string, source netip.Addr) *net.Dialer {
	d := &net.Dialer{Control: bindTo(device), KeepAlive: -1}
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice(), Zone: source.Zone()}
	}
	return d
}

// answers reports whether m is a response with the id to that question. Names
// are compared without regard to case (RFC 1035, 2.3.3).
func answers(m []byte, id uint16, q dnsmessage.Question) bool {
	var p dnsmessage.Parser
	h, err := p.Start(m)
	if err != nil || !h.Response || h.ID != id {
		return false
	}
	got, err := p.Question()
	return err == nil && got.Type == q.Type && got.Class == q.Class && sameName(got.Name.String(), q.Name.String())
}

func sameName(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// judge reports what is wrong with an answer.
func (a *dnsAttempt) judge(m []byte) error {
	var p dnsmessage.Parser
	h, err := p.Start(m)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if h.Truncated {
		return errTruncated
	}
	if h.RCode != responseCodes[a.config.RCode] {
		return fmt.Errorf("response code %s, not %s", codeName(h.RCode), a.config.RCode)
	}
	if h.RCode != dnsmessage.RCodeSuccess {
		return nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return a.search(&p)
}

// search looks for what is expected among the answers. CNAMEs before them are
// followed by the server, and not checked here.
func (a *dnsAttempt) search(p *dnsmessage.Parser) error {
	var seen []string
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if h.Type != a.question.Type || h.Class != a.question.Class {
			if err := p.SkipAnswer(); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			continue
		}
		value, err := record(p, h.Type)
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if a.config.Answer == "" || a.expects(value) {
			return nil
		}
		seen = append(seen, value)
	}
	if a.config.Answer == "" {
		return fmt.Errorf("no record of type %s in the answer", a.config.Type)
	}
	return fmt.Errorf("%q is not among the answers %q", a.config.Answer, seen)
}

// record is the value of one answer that can be expected.
func record(p *dnsmessage.Parser, kind dnsmessage.Type) (string, error) {
	switch kind {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A).String(), err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA).String(), err
	case dnsmessage.TypeNS:
		r, err := p.NSResource()
		return r.NS.String(), err
	}
	r, err := p.SOAResource()
	return r.NS.String(), err
}

func (a *dnsAttempt) expects(value string) bool {
	if want, err := netip.ParseAddr(a.config.Answer); err == nil {
		got, err := netip.ParseAddr(value)
		return err == nil && got == want
	}
	return sameName(value, a.config.Answer)
}

// codeName is the name of a response code as people write it.
func codeName(code dnsmessage.RCode) string {
	for name, c := range responseCodes {
		if c == code {
			return name
		}
	}
	return fmt.Sprintf("%d", uint16(code))
}

// cause is the system's error without the addresses that net puts before it.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
