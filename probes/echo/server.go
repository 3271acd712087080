package echo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers for the gateways of a node: one socket for each of its
// addresses, so that answers come from the address that was asked, in the network
// namespace of the thread that calls NewServer. What it has not been told of is
// Absent. Its methods may be called by several goroutines.
type Server struct {
	log    *slog.Logger
	conns  []*net.UDPConn
	states atomic.Pointer[map[key]State]
	done   sync.WaitGroup
}

// NewServer answers at each of the addresses, which the node need not have yet, with
// these states, by the IDs of gateways. A
// zero port is one of the kernel's choice; see Addresses. Close ends it.
func NewServer(log *slog.Logger, addresses []netip.AddrPort, states map[string]State) (*Server, error) {
	s := &Server{log: log}
	s.Set(states)
	listen := net.ListenConfig{Control: freebind}
	for _, a := range addresses {
		network := "udp6"
		if a.Addr().Unmap().Is4() {
			network = "udp4"
		}
		conn, err := listen.ListenPacket(context.Background(), network, a.String())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("answer for gateways: %w", err), s.Close())
		}
		s.conns = append(s.conns, conn.(*net.UDPConn))
	}
	for _, conn := range s.conns {
		s.done.Go(func() { s.serve(conn) })
	}
	return s, nil
}

// freebind allows addresses that are not there (yet): an IPv6 address is
// tentative for a second after it was given.
func freebind(network, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if network == "udp4" {
			err = os.NewSyscallError("setsockopt IP_FREEBIND", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
		} else {
			err = os.NewSyscallError("setsockopt IPV6_FREEBIND", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1))
		}
	})
	return errors.Join(cerr, err)
}

// Set replaces the states, by the IDs of gateways.
func (s *Server) Set(states map[string]State) {
	byKey := make(map[key]State, len(states))
	for id, state := range maps.All(states) {
		byKey[keyOf(id)] = state
	}
	s.states.Store(&byKey)
}

// Addresses are where it answers, in the order of NewServer.
func (s *Server) Addresses() []netip.AddrPort {
	var list []netip.AddrPort
	for _, conn := range s.conns {
		list = append(list, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return list
}

// Close ends the answers.
func (s *Server) Close() error {
	var errs []error
	for _, conn := range s.conns {
		errs = append(errs, conn.Close())
	}
	s.done.Wait()
	return errors.Join(errs...)
}

// errorPause is how long a socket that fails is left alone.
const errorPause = 10 * time.Millisecond

func (s *Server) serve(conn *net.UDPConn) {
	packet, reply := make([]byte, maxPacket), make([]byte, 0, maxPacket)
	keys, states := make([]key, 0, MaxInstances), make([]State, 0, MaxInstances)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Debug("question of a client's node not read", "err", err)
			time.Sleep(errorPause)
			continue
		}
		nonce, asked, err := parseRequest(packet[:n], keys[:0])
		if err != nil {
			continue
		}
		known := *s.states.Load()
		states = states[:0]
		for _, k := range asked {
			states = append(states, known[k])
		}
		reply = appendAnswer(reply[:0], nonce, states)
		if _, err := conn.WriteToUDPAddrPort(reply, from); err != nil {
			s.log.Debug("client's node not answered", "client", from, "err", err)
		}
	}
}
