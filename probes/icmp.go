package probes

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	icmpFilter   = 1 // ICMP_FILTER, linux/icmp.h
	icmpv6Filter = 1 // ICMPV6_FILTER, linux/icmpv6.h

	// cookieSize is the part of the token that all requests of a wire share.
	cookieSize = 4
)

// echoLine is a raw socket for echo requests to many targets.
//
// One socket serves all targets of a VRF and source: a socket for each would
// make the kernel walk over all of them with every reply, as raw sockets of one
// protocol are one list. Raw sockets need CAP_NET_RAW; ping sockets would need
// net.ipv4.ping_group_range of every namespace. Only replies whose data begin
// with the wire's cookie pass the kernel's filter, so that the replies to others,
// and a flood of forged ones, fill no buffer and wake nobody.
type echoLine struct {
	fd  int
	v6  bool
	in  *reader
	out [echoHeader + tokenSize]byte
}

func openEcho(key wireKey, cookie [cookieSize]byte) (*echoLine, error) {
	l := &echoLine{v6: key.kind == echo6, in: newReader()}
	family, protocol, options := unix.AF_INET, unix.IPPROTO_ICMP, onlyEchoReplies4
	if l.v6 {
		family, protocol, options = unix.AF_INET6, unix.IPPROTO_ICMPV6, onlyEchoReplies6
	}
	filter := func(fd int) error { return onlyCookie(fd, l.v6, cookie) }
	var err error
	l.fd, err = openSocket(family, unix.SOCK_RAW, protocol, key.device, key.source, options, filter, stamps, largeBuffers)
	return l, err
}

// onlyEchoReplies4 spares us all other messages, and asks for errors.
func onlyEchoReplies4(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply4)); err != nil {
		return os.NewSyscallError("setsockopt ICMP_FILTER", err)
	}
	return os.NewSyscallError("setsockopt IP_RECVERR", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1))
}

func onlyEchoReplies6(fd int) error {
	if err := onlyICMP6(fd, echoReply6); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt IPV6_RECVERR", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1))
}

// onlyICMP6 lets messages of one type in.
func onlyICMP6(fd int, kind byte) error {
	var block unix.ICMPv6Filter // a set bit blocks
	for i := range block.Data {
		block.Data[i] = ^uint32(0)
	}
	block.Data[kind/32] &^= 1 << (kind % 32)
	return os.NewSyscallError("setsockopt ICMPV6_FILTER", unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, icmpv6Filter, &block))
}

// onlyCookie attaches a classic BPF program. A raw IPv4 socket's packet begins
// with the IP header, an IPv6 one's with the ICMPv6 header.
func onlyCookie(fd int, v6 bool, cookie [cookieSize]byte) error {
	load := []unix.SockFilter{
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0}, // X = length of the IP header
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_IND, K: echoHeader},
	}
	if v6 {
		load = []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: echoHeader}}
	}
	return attach(fd, append(load,
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: binary.BigEndian.Uint32(cookie[:]), Jf: 1},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}))
}

func attach(fd int, program []unix.SockFilter) error {
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
}

func (l *echoLine) descriptor() int { return l.fd }

func (l *echoLine) close() { _ = unix.Close(l.fd) }

func (l *echoLine) send(f *flight) error {
	if f.to.size == 0 || f.target.Zone() != "" { // whose index may change
		var index int
		if zone := f.target.Zone(); zone != "" {
			var err error
			if index, err = indexOf(l.fd, zone); err != nil {
				return fmt.Errorf("find device %q: %w", zone, err)
			}
		}
		f.to = inet(f.target, index)
	}
	if err := sendTo(l.fd, f.echo.request(l.out[:0], l.v6), &f.to); err != nil {
		return fmt.Errorf("send echo request: %w", err)
	}
	return nil
}

func (l *echoLine) receive(w *wire) bool {
	more := l.in.drain(l.fd, 0, func(p packet) { l.reply(w, p) })
	return l.in.drain(l.fd, unix.MSG_ERRQUEUE, func(p packet) { l.unreachable(w, p) }) || more
}

// reply gives a packet to the flight that waits for it. id and seq may collide
// between probes and between processes; the token is random, so it decides.
func (l *echoLine) reply(w *wire, p packet) {
	m := p.data
	if !l.v6 {
		m = icmpOf(m)
	}
	if len(m) < echoHeader+tokenSize {
		return
	}
	f := w.flights[[tokenSize]byte(m[echoHeader:])]
	if f != nil && p.from.host() == f.target.WithZone("") && f.echo.answeredBy(p.data, l.v6) {
		f.answered(p.came)
	}
}

// unreachable notes why an attempt fails. The message quotes at least the
// request's header (RFC 792), and comes with its destination.
func (l *echoLine) unreachable(w *wire, p packet) {
	level, kind := int32(unix.SOL_IP), int32(unix.IP_RECVERR)
	if l.v6 {
		level, kind = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	extended, ok := controlMessage(p.control, level, kind)
	if !ok || len(extended) < 4 || len(p.data) < echoHeader {
		return
	}
	why := unix.Errno(binary.NativeEndian.Uint32(extended))
	id, seq, to := binary.BigEndian.Uint16(p.data[4:]), binary.BigEndian.Uint16(p.data[6:]), p.from.host()
	if len(p.data) >= echoHeader+tokenSize {
		if f := w.flights[[tokenSize]byte(p.data[echoHeader:])]; f != nil {
			f.why = why
		}
		return
	}
	for _, f := range w.flights {
		if f.echo.id == id && f.echo.seq == seq && f.target.WithZone("") == to {
			f.why = why
		}
	}
}
