package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A ServerConfig names a server and its ports; port 0 leaves a service out.
// All listen on every address of both families.
type ServerConfig struct {
	Name string
	// HTTP answers GET / with "NAME saw ADDRESS:PORT", or with an Answer as JSON if the path is
	// /json; GET /health with 200, or 503 after SetHealthy(false).
	HTTP uint16
	// TCP greets with "NAME ADDRESS:PORT" and returns every line it gets.
	TCP uint16
	// UDP returns every datagram followed by " NAME ADDRESS:PORT".
	UDP uint16
}

// An Answer tells which server answered and which client it saw.
type Answer struct {
	Server string         `json:"server"`
	Client netip.AddrPort `json:"client"`
}

func (a Answer) String() string { return a.Server + " saw " + a.Client.String() }

// A Server runs until Close.
type Server struct {
	name    string
	sick    atomic.Bool
	cancel  context.CancelFunc
	ctx     context.Context
	closers []io.Closer
	wg      sync.WaitGroup
}

// Listen opens a server's sockets and serves.
func Listen(config ServerConfig) (*Server, error) {
	s := &Server{name: config.Name}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	err := errors.Join(s.serveHTTP(config.HTTP), s.serveTCP(config.TCP), s.serveUDP(config.UDP))
	if err != nil {
		return nil, fmt.Errorf("serve as %q: %w", config.Name, errors.Join(err, s.Close()))
	}
	return s, nil
}

// SetHealthy changes the answer to GET /health.
func (s *Server) SetHealthy(healthy bool) { s.sick.Store(!healthy) }

// Close ends all connections and waits for the server's goroutines.
func (s *Server) Close() error {
	s.cancel()
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.wg.Wait()
	return errors.Join(errs...)
}

func (s *Server) serveHTTP(port uint16) error {
	if port == 0 {
		return nil
	}
	l, err := net.Listen("tcp", fmt.Sprint(":", port))
	if err != nil {
		return err
	}
	h := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 1 << 14}
	// The server closes first, so that the client may use its source port again.
	h.SetKeepAlivesEnabled(false)
	s.closers = append(s.closers, h)
	s.wg.Go(func() { _ = h.Serve(l) }) // always ErrServerClosed: Close is the only end
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(r *http.Request) Answer {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return Answer{Server: s.name}
		}
		return Answer{s.name, unmap(client)}
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, answer(r)) })
	mux.HandleFunc("GET /json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer(r)) // the client may be gone
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if s.sick.Load() {
			http.Error(w, "sick", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "healthy")
	})
	return mux
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// maxConnections bounds the TCP service.
const maxConnections = 1024

func (s *Server) serveTCP(port uint16) error {
	if port == 0 {
		return nil
	}
	l, err := net.Listen("tcp", fmt.Sprint(":", port))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, l)
	slots := make(chan struct{}, maxConnections)
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			select {
			case slots <- struct{}{}:
				s.wg.Go(func() {
					s.echoLines(c)
					<-slots
				})
			default:
				c.Close()
			}
		}
	})
	return nil
}

func (s *Server) echoLines(c net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	client, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	if _, err := fmt.Fprintf(c, "%s %s\n", s.name, unmap(client)); err != nil {
		return
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if _, err := fmt.Fprintf(c, "%s\n", lines.Text()); err != nil {
			return
		}
	}
}

// serveUDP uses a socket per family, and answers from the address it was asked at.
func (s *Server) serveUDP(port uint16) error {
	if port == 0 {
		return nil
	}
	listen := net.ListenConfig{Control: deepBuffer}
	c4, err := listen.ListenPacket(context.Background(), "udp4", fmt.Sprint(":", port))
	if err != nil {
		return err
	}
	p4 := ipv4.NewPacketConn(c4)
	s.closers = append(s.closers, c4)
	c6, err := listen.ListenPacket(context.Background(), "udp6", fmt.Sprint(":", port))
	if err != nil {
		return err
	}
	p6 := ipv6.NewPacketConn(c6)
	s.closers = append(s.closers, c6)
	if err := errors.Join(p4.SetControlMessage(ipv4.FlagDst, true), p6.SetControlMessage(ipv6.FlagDst, true)); err != nil {
		return err
	}
	s.wg.Go(func() {
		s.echoDatagrams(func(b []byte) error {
			n, cm, from, err := p4.ReadFrom(b)
			if err == nil && cm != nil {
				_, err = p4.WriteTo(s.reply(b[:n], from), &ipv4.ControlMessage{Src: cm.Dst}, from)
			}
			return err
		})
	})
	s.wg.Go(func() {
		s.echoDatagrams(func(b []byte) error {
			n, cm, from, err := p6.ReadFrom(b)
			if err == nil && cm != nil {
				_, err = p6.WriteTo(s.reply(b[:n], from), &ipv6.ControlMessage{Src: cm.Dst}, from)
			}
			return err
		})
	})
	return nil
}

// echoDatagrams goes on after errors of single datagrams, like an unreachable client.
func (s *Server) echoDatagrams(one func([]byte) error) {
	b := make([]byte, maxDatagram)
	for s.ctx.Err() == nil {
		if err := one(b); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

const maxDatagram = 1500

func (s *Server) reply(payload []byte, from net.Addr) []byte {
	client := ""
	if u, ok := from.(*net.UDPAddr); ok {
		client = unmap(u.AddrPort()).String()
	}
	return fmt.Appendf(append([]byte(nil), payload...), " %s %s", s.name, client)
}

// parseAnswer reads the two words that the TCP and UDP services add.
func parseAnswer(text string) (Answer, error) {
	name, client, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return Answer{}, fmt.Errorf("parse answer %q: want a name and an address", text)
	}
	address, err := netip.ParseAddrPort(client)
	if err != nil {
		return Answer{}, fmt.Errorf("parse answer %q: %w", text, err)
	}
	return Answer{name, address}, nil
}
