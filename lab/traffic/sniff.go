package traffic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Direction selects packets as the sniffed interface sees them.
type Direction string

// The directions of a sniffer.
const (
	Both Direction = "both"
	In   Direction = "in"
	Out  Direction = "out"
)

// SnifferOptions describe a sniffer.
type SnifferOptions struct {
	Device    string
	Direction Direction // default Both
	// Allowed are the source prefixes that may be seen. Link-local and
	// unspecified sources, which routers and neighbours use among themselves, are always allowed.
	Allowed []netip.Prefix
	// OnLeak, if not nil, is called for every other packet, on the sniffer's goroutine.
	OnLeak func(time.Time, Packet)
}

// Bounds of what a report lists.
const (
	maxLeaks   = 50
	maxSources = 256
)

// A Leak is a packet with a source that is not allowed.
type Leak struct {
	Time time.Time `json:"time"`
	Packet
}

// A SniffReport is what a sniffer has seen. A report with Dropped > 0 proves nothing
// about the absence of leaks.
type SniffReport struct {
	Packets int `json:"packets"` // IP packets in the chosen direction
	Allowed int `json:"allowed"`
	Leaked  int `json:"leaked"`
	Other   int `json:"other"`   // not IP, like ARP
	Dropped int `json:"dropped"` // by the kernel, because the sniffer was too slow
	// Leaks are the first fifty.
	Leaks []Leak `json:"leaks,omitempty"`
	// Sources counts the packets per source address, of the first 256 addresses.
	Sources map[netip.Addr]int `json:"sources,omitempty"`
}

// Err is an error if packets leaked, if some were not seen, or if none were.
func (r SniffReport) Err() error {
	switch {
	case r.Leaked > 0:
		return fmt.Errorf("%d packets with foreign sources, the first: %s", r.Leaked, r.Leaks[0].Packet)
	case r.Dropped > 0:
		return fmt.Errorf("%d packets were not looked at", r.Dropped)
	case r.Packets == 0:
		return errors.New("no packet seen")
	}
	return nil
}

// A Sniffer looks at every packet of an interface until Stop.
type Sniffer struct {
	options SnifferOptions
	fd      int
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	report SniffReport
	err    error
}

const (
	// snifferBuffer holds what arrives while this process does not run: some 100,000 small packets.
	snifferBuffer = 64 << 20
	// pollInterval is how soon a quiet sniffer notices Stop.
	pollInterval = 50 * time.Millisecond
)

// OpenSniffer starts a sniffer on an interface of the calling thread's network
// namespace. It stays with the interface when that goes down or joins a VRF.
func OpenSniffer(o SnifferOptions) (*Sniffer, error) {
	if o.Direction == "" {
		o.Direction = Both
	}
	if !slices.Contains([]Direction{Both, In, Out}, o.Direction) {
		return nil, fmt.Errorf("sniff: unknown direction %q", o.Direction)
	}
	fd, err := openPacketSocket(o.Device)
	if err != nil {
		return nil, fmt.Errorf("sniff on %q: %w", o.Device, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sniffer{options: o, fd: fd, cancel: cancel, done: make(chan struct{})}
	s.report.Sources = map[netip.Addr]int{}
	go s.run(ctx)
	return s, nil
}

func openPacketSocket(device string) (int, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return -1, err
	}
	// Nothing is received before bind names the protocol, so packets of other interfaces are not either.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(pollInterval.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, snifferBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: link.Index}),
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

func (s *Sniffer) run(ctx context.Context) {
	defer close(s.done)
	defer unix.Close(s.fd)
	b := make([]byte, 256) // the headers
	for {
		n, from, err := unix.Recvfrom(s.fd, b, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			// The queue is empty, so nothing from before Stop is missed.
			s.countDrops()
			if ctx.Err() != nil {
				return
			}
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
		case err != nil:
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return
		default:
			if link, ok := from.(*unix.SockaddrLinklayer); ok {
				s.saw(b[:n], link)
			}
		}
	}
}

func (s *Sniffer) saw(b []byte, link *unix.SockaddrLinklayer) {
	outgoing := link.Pkttype == unix.PACKET_OUTGOING
	if s.options.Direction == In && outgoing || s.options.Direction == Out && !outgoing {
		return
	}
	protocol := networkOrder(link.Protocol)
	p, ok := ParsePacket(b)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || protocol != unix.ETH_P_IP && protocol != unix.ETH_P_IPV6 {
		s.report.Other++
		return
	}
	s.report.Packets++
	if _, known := s.report.Sources[p.Source]; known || len(s.report.Sources) < maxSources {
		s.report.Sources[p.Source]++
	}
	if s.allowed(p.Source) {
		s.report.Allowed++
		return
	}
	s.report.Leaked++
	if len(s.report.Leaks) < maxLeaks {
		s.report.Leaks = append(s.report.Leaks, Leak{now, p})
	}
	if s.options.OnLeak != nil {
		s.options.OnLeak(now, p)
	}
}

func (s *Sniffer) allowed(source netip.Addr) bool {
	if source.IsLinkLocalUnicast() || source.IsUnspecified() {
		return true
	}
	return slices.ContainsFunc(s.options.Allowed, func(p netip.Prefix) bool { return p.Contains(source) })
}

// countDrops reads the kernel's counter, which reading resets.
func (s *Sniffer) countDrops() {
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.report.Dropped += int(stats.Drops)
	s.mu.Unlock()
}

// Report is what has been seen so far.
func (s *Sniffer) Report() SniffReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.Leaks, r.Sources = slices.Clone(r.Leaks), maps.Clone(r.Sources)
	return r
}

// Stop ends the sniffer after it has looked at everything that arrived before,
// and reports. An error means that it had stopped looking earlier.
func (s *Sniffer) Stop() (SniffReport, error) {
	s.cancel()
	<-s.done
	r := s.Report()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return r, fmt.Errorf("sniff on %q: %w", s.options.Device, s.err)
	}
	return r, nil
}
