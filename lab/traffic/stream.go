package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Protocol of a stream.
type Protocol string

// The protocols of a stream.
const (
	ICMP Protocol = "icmp"
	UDP  Protocol = "udp"
)

// StreamOptions describe a stream of numbered packets that are to come back.
type StreamOptions struct {
	Protocol Protocol
	Source   netip.AddrPort // zero: the kernel chooses; ICMP has no ports
	Dest     netip.AddrPort // for UDP a Server's UDP service
	Interval time.Duration  // default 10 ms
	// Count ends the stream after that many packets; 0 and more than MaxCount mean MaxCount.
	Count int
	// Linger is how long replies are awaited after the last packet; default 2 s. It ends early when all have come.
	Linger time.Duration
}

// MaxCount bounds a stream: at 10 ms almost three hours.
const MaxCount = 1 << 20

// maxGaps and maxAnswers bound what a report lists.
const (
	maxGaps    = 100
	maxAnswers = 16
)

// A Gap is a run of consecutive packets that did not come back.
type Gap struct {
	First int `json:"first"` // number of the first packet lost
	Lost  int `json:"lost"`
	// AfterMS is when the first was sent, in milliseconds since the stream's start.
	AfterMS float64 `json:"after_ms"`
	// LastedMS is the time from sending the first lost packet to sending the next that came back.
	LastedMS float64 `json:"lasted_ms"`
}

// A StreamReport tells what became of a stream.
type StreamReport struct {
	Sent       int     `json:"sent"`
	Received   int     `json:"received"` // each number counted once
	Lost       int     `json:"lost"`
	Duplicates int     `json:"duplicates"`
	SendErrors int     `json:"send_errors"` // these packets count as sent and lost
	LastError  string  `json:"last_error,omitempty"`
	LongestMS  float64 `json:"longest_gap_ms"` // the longest LastedMS
	MaxRTTMS   float64 `json:"max_rtt_ms"`
	MeanRTTMS  float64 `json:"mean_rtt_ms"`
	Gaps       []Gap   `json:"gaps,omitempty"` // the first hundred
	// Answers are the different servers and client addresses that UDP replies named.
	Answers []Answer `json:"answers,omitempty"`
}

// A Stream is open; Run runs it.
type Stream struct {
	options StreamOptions
	wire    wire
	id      uint64

	mu       sync.Mutex
	sent     []time.Duration // since start, by number
	arrived  []bool
	report   StreamReport
	totalRTT time.Duration
	start    time.Time
}

// wire sends and receives payloads of one protocol.
type wire interface {
	send(number int, payload []byte) error
	receive(b []byte) ([]byte, error) // blocks until Close
	Close() error
}

// OpenStream opens a stream's socket. ICMP needs CAP_NET_RAW.
func OpenStream(o StreamOptions) (*Stream, error) {
	if o.Interval <= 0 {
		o.Interval = 10 * time.Millisecond
	}
	if o.Count <= 0 || o.Count > MaxCount {
		o.Count = MaxCount
	}
	if o.Linger <= 0 {
		o.Linger = 2 * time.Second
	}
	s := &Stream{options: o, id: rand.Uint64()}
	var err error
	switch o.Protocol {
	case UDP:
		s.wire, err = openUDP(o)
	case ICMP:
		s.wire, err = openICMP(o, uint16(s.id))
	default:
		err = fmt.Errorf("unknown protocol %q", o.Protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("open stream to %s: %w", o.Dest, err)
	}
	return s, nil
}

// payloadSize is the stream's id and the packet's number.
const payloadSize = 16

// Run sends until the count is reached or the context ends, waits for the last
// replies, closes the socket and reports.
func (s *Stream) Run(ctx context.Context) StreamReport {
	s.start = time.Now()
	var receiver sync.WaitGroup
	receiver.Go(s.receive)
	tick := time.NewTicker(s.options.Interval)
	defer tick.Stop()
	for n := range s.options.Count {
		s.sendOne(n)
		if n == s.options.Count-1 {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	s.linger()
	s.wire.Close()
	receiver.Wait()
	return s.Report()
}

func (s *Stream) sendOne(n int) {
	b := binary.BigEndian.AppendUint64(nil, s.id)
	b = binary.BigEndian.AppendUint64(b, uint64(n))
	s.mu.Lock()
	s.sent = append(s.sent, time.Since(s.start))
	s.arrived = append(s.arrived, false)
	s.mu.Unlock()
	if err := s.wire.send(n, b); err != nil {
		s.mu.Lock()
		s.report.SendErrors++
		s.report.LastError = err.Error()
		s.mu.Unlock()
	}
}

// linger waits until everything has come back, or not for long.
func (s *Stream) linger() {
	end := time.Now().Add(s.options.Linger)
	for time.Now().Before(end) {
		s.mu.Lock()
		all := s.report.Received == len(s.sent)
		s.mu.Unlock()
		if all {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *Stream) receive() {
	b := make([]byte, maxDatagram)
	for {
		payload, err := s.wire.receive(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // an ICMP error that came back for a UDP packet
			s.mu.Lock()
			s.report.LastError = err.Error()
			s.mu.Unlock()
			continue
		}
		s.took(payload)
	}
}

func (s *Stream) took(payload []byte) {
	if len(payload) < payloadSize || binary.BigEndian.Uint64(payload) != s.id {
		return
	}
	number := binary.BigEndian.Uint64(payload[8:])
	answer, answerErr := parseAnswer(string(payload[payloadSize:]))
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case number >= uint64(len(s.sent)):
		return
	case s.arrived[number]:
		s.report.Duplicates++
		return
	}
	s.arrived[number] = true
	s.report.Received++
	rtt := time.Since(s.start) - s.sent[number]
	s.totalRTT += rtt
	s.report.MaxRTTMS = max(s.report.MaxRTTMS, milliseconds(rtt))
	if answerErr == nil && len(s.report.Answers) < maxAnswers && !slices.Contains(s.report.Answers, answer) {
		s.report.Answers = append(s.report.Answers, answer)
	}
}

// Report is the state of the stream, also while it runs; then packets on
// their way count as lost.
func (s *Stream) Report() StreamReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.Answers = slices.Clone(r.Answers)
	r.Sent = len(s.sent)
	r.Lost = r.Sent - r.Received
	if r.Received > 0 {
		r.MeanRTTMS = milliseconds(s.totalRTT / time.Duration(r.Received))
	}
	end := time.Duration(0)
	if r.Sent > 0 {
		end = s.sent[r.Sent-1] + s.options.Interval
	}
	r.LongestMS, r.Gaps = gaps(s.sent, s.arrived, end)
	return r
}

// gaps finds the runs of packets that did not arrive; the last one lasts until end.
func gaps(sent []time.Duration, arrived []bool, end time.Duration) (longestMS float64, list []Gap) {
	for i := 0; i < len(arrived); i++ {
		if arrived[i] {
			continue
		}
		first := i
		for i < len(arrived) && !arrived[i] {
			i++
		}
		until := end
		if i < len(arrived) {
			until = sent[i]
		}
		lasted := milliseconds(until - sent[first])
		longestMS = max(longestMS, lasted)
		if len(list) < maxGaps {
			list = append(list, Gap{First: first, Lost: i - first, AfterMS: milliseconds(sent[first]), LastedMS: lasted})
		}
	}
	return longestMS, list
}

// Ping sends count echo requests and reports; it is a Stream with an end.
func Ping(ctx context.Context, source, dest netip.Addr, count int, interval time.Duration) (StreamReport, error) {
	s, err := OpenStream(StreamOptions{
		Protocol: ICMP, Source: netip.AddrPortFrom(source, 0), Dest: netip.AddrPortFrom(dest, 0), Count: count, Interval: interval,
	})
	if err != nil {
		return StreamReport{}, err
	}
	return s.Run(ctx), nil
}

// AskUDP sends a datagram to a Server's UDP service, once a second until an
// answer comes or the context ends.
func AskUDP(ctx context.Context, source, server netip.AddrPort) (Answer, error) {
	s, err := OpenStream(StreamOptions{Protocol: UDP, Source: source, Dest: server, Interval: time.Second, Linger: time.Millisecond})
	if err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var run sync.WaitGroup
	defer run.Wait()
	defer cancel()
	run.Go(func() { s.Run(ctx) })
	for {
		if r := s.Report(); len(r.Answers) > 0 {
			return r.Answers[0], nil
		} else if ctx.Err() != nil {
			return Answer{}, fmt.Errorf("ask %s by udp: no answer to %d datagrams (%s): %w", server, r.Sent, r.LastError, ctx.Err())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type udpWire struct{ *net.UDPConn }

func openUDP(o StreamOptions) (wire, error) {
	d := net.Dialer{Control: func(network, address string, c syscall.RawConn) error {
		return errors.Join(reuseAddress(network, address, c), deepBuffer(network, address, c))
	}}
	if o.Source.Addr().IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(o.Source)
	} else if o.Source.Port() != 0 {
		d.LocalAddr = &net.UDPAddr{Port: int(o.Source.Port())}
	}
	c, err := d.Dial("udp", o.Dest.String())
	if err != nil {
		return nil, err
	}
	return udpWire{c.(*net.UDPConn)}, nil
}

func (w udpWire) send(_ int, payload []byte) error {
	_, err := w.Write(payload)
	return err
}

func (w udpWire) receive(b []byte) ([]byte, error) {
	n, err := w.Read(b)
	return b[:max(n, 0)], err
}

// socketBuffer holds what arrives while this process does not run, of a few hundred
// streams for seconds: with the default one emulated processor that is busy elsewhere
// for a second makes the socket drop, which looks as if the network had.
const socketBuffer = 16 << 20

// deepBuffer enlarges the receive buffer of a socket, beyond the bound of the system
// where we may.
func deepBuffer(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer); errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
		}
	})
	return errors.Join(ctlErr, err)
}

type icmpWire struct {
	*icmp.PacketConn
	id       uint16
	to       *net.IPAddr
	request  icmp.Type
	reply    icmp.Type
	protocol int
}

func openICMP(o StreamOptions, id uint16) (wire, error) {
	w := icmpWire{id: id, to: &net.IPAddr{IP: o.Dest.Addr().AsSlice(), Zone: o.Dest.Addr().Zone()}}
	network, any := "ip4:icmp", "0.0.0.0"
	w.request, w.reply, w.protocol = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, 1
	if o.Dest.Addr().Is6() {
		network, any = "ip6:ipv6-icmp", "::"
		w.request, w.reply, w.protocol = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	if o.Source.Addr().IsValid() {
		any = o.Source.Addr().String()
	}
	c, err := icmp.ListenPacket(network, any)
	w.PacketConn = c
	return w, err
}

func (w icmpWire) send(number int, payload []byte) error {
	m := icmp.Message{Type: w.request, Body: &icmp.Echo{ID: int(w.id), Seq: number & 0xffff, Data: payload}}
	b, err := m.Marshal(nil) // the kernel fills in the checksum of ICMPv6
	if err != nil {
		return err
	}
	_, err = w.WriteTo(b, w.to)
	return err
}

func (w icmpWire) receive(b []byte) ([]byte, error) {
	for {
		n, _, err := w.ReadFrom(b)
		if err != nil {
			return nil, err
		}
		m, err := icmp.ParseMessage(w.protocol, b[:n])
		if err != nil || m.Type != w.reply {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && echo.ID == int(w.id) {
			return echo.Data, nil
		}
	}
}
