package probes

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// deviceCheck is how often a wire that is used looks whether its device still
	// has the index that its socket is bound to.
	deviceCheck = 100 * time.Millisecond
	// socketBuffer is the bound of the send and receive buffers of a wire, in
	// bytes. Requests wait in the send buffer while the kernel looks for a
	// neighbour that does not answer, about three seconds, and those of hundreds
	// of dead targets must not get in the way of the living.
	socketBuffer = 32 << 20
	// maxReads bounds the packets that are read from a wire in a row.
	maxReads = 4096
	// maxErrors is how many errors of a socket are ignored in a row.
	maxErrors = 64
	// sendTries is how often a packet is sent when that fails.
	sendTries = 3
)

// wireKind is what is spoken on a wire.
type wireKind uint8

const (
	echo4 wireKind = iota
	echo6
	arp
	nd
)

func wireOf(t Type, target netip.Addr) wireKind {
	k := echo4
	if t == ARPND {
		k = arp
	}
	if target.Is6() {
		k++
	}
	return k
}

// answer says that none came.
func (k wireKind) answer() string {
	switch k {
	case arp:
		return "no ARP reply"
	case nd:
		return "no neighbour advertisement"
	}
	return "no echo reply"
}

// wireKey is what flights on a wire have in common. source may be invalid.
type wireKey struct {
	kind   wireKind
	device string
	source netip.Addr
}

// wire is a socket that flights share.
type wire struct {
	key  wireKey
	line line
	// index is the device's when the socket was bound.
	index         int
	checked, used time.Time
	// active says that the wire is in pinger.active, retired that it is not in
	// pinger.wires any more.
	active, retired bool
	// cookie begins all tokens of this wire: the kernel drops other replies.
	cookie  [cookieSize]byte
	flights map[[tokenSize]byte]*flight
}

// line is the socket of a wire; it never waits.
type line interface {
	// send sends the request of f.
	send(f *flight) error
	// receive takes in what has come for the flights of w, and reports whether
	// there may be more.
	receive(w *wire) bool
	// descriptor is a file descriptor to ask the kernel by.
	descriptor() int
	close()
}

// wire finds the wire of key or opens one. A device that was deleted and made
// again is found: the name is looked up anew, at most every deviceCheck.
func (p *pinger) wire(key wireKey, now time.Time) (*wire, error) {
	w := p.wires[key]
	if w != nil && now.Sub(w.checked) >= deviceCheck {
		w.checked = now
		if index, err := indexOf(w.line.descriptor(), key.device); err != nil || index != w.index {
			p.retire(w)
			w = nil
		}
	}
	if w != nil {
		return w, nil
	}
	if p.closed {
		return nil, ErrClosed
	}
	w, err := openWire(key, p.random.Uint64())
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	w.checked, w.used = now, now
	p.wires[key] = w
	p.clock.sooner(&p.sweep, now.Add(wireIdle))
	return w, nil
}

func openWire(key wireKey, cookie uint64) (*wire, error) {
	w := &wire{key: key, flights: map[[tokenSize]byte]*flight{}}
	for i := range w.cookie {
		w.cookie[i] = byte(cookie >> (8 * i))
	}
	var err error
	switch key.kind {
	case arp:
		w.line, err = openARP(key)
	case nd:
		w.line, err = openND(key)
	default:
		w.line, err = openEcho(key, w.cookie)
	}
	if err != nil {
		return nil, err
	}
	if w.index, err = indexOf(w.line.descriptor(), key.device); err != nil {
		w.line.close()
		return nil, fmt.Errorf("find device %q: %w", key.device, err)
	}
	return w, nil
}

// retire makes later flights open a new wire.
func (p *pinger) retire(w *wire) {
	if p.wires[w.key] == w {
		delete(p.wires, w.key)
		w.retired = true
		if !w.active {
			w.line.close()
		}
	}
}

// closeIdle closes wires that nobody used for a while.
func (p *pinger) closeIdle(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, w := range p.wires {
		if !w.active && now.Sub(w.used) >= wireIdle {
			w.line.close()
			delete(p.wires, key)
		}
	}
	if len(p.wires) > 0 {
		p.clock.set(&p.sweep, now.Add(wireIdle))
	}
}

// transient reports whether an error of sending is about the way to the target,
// and not about the socket.
func transient(err error) bool {
	return slices.ContainsFunc([]error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EPERM, unix.EACCES, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN, unix.EMSGSIZE},
		func(e error) bool { return errors.Is(err, e) })
}

// indexOf asks the kernel for the index of a device.
func indexOf(fd int, device string) (int, error) {
	req, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, err
	}
	return int(req.Uint32()), nil
}

// openSocket makes a socket that never waits, bound to the device and, when
// valid, to the source. options are set before it is bound to an address.
func openSocket(family, kind, protocol int, device string, source netip.Addr, options ...func(fd int) error) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	if err := prepare(fd, device, source, options); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepare(fd int, device string, source netip.Addr, options []func(fd int) error) error {
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
		return fmt.Errorf("bind to device %q: %w", device, err)
	}
	for _, set := range options {
		if err := set(fd); err != nil {
			return err
		}
	}
	if source.IsValid() {
		to, err := sockaddr(fd, netip.AddrPortFrom(source, 0))
		if err == nil {
			err = unix.Bind(fd, to)
		}
		if err != nil {
			return fmt.Errorf("bind to source %q: %w", source, err)
		}
	}
	return nil
}

// sockaddr is a, with the index of its zone.
func sockaddr(fd int, a netip.AddrPort) (unix.Sockaddr, error) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	to := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		index, err := indexOf(fd, zone)
		if err != nil {
			return nil, fmt.Errorf("find device %q: %w", zone, err)
		}
		to.ZoneId = uint32(index)
	}
	return to, nil
}

// largeBuffers lets a socket hold socketBuffer bytes, or what the system allows
// to those without CAP_NET_ADMIN.
func largeBuffers(fd int) error {
	for _, o := range [][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], socketBuffer)
		}
	}
	return nil
}
