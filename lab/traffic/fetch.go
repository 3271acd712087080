package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxBody bounds what Fetch keeps of a body.
const maxBody = 1 << 20

// A Response is what Fetch got.
type Response struct {
	Status int
	Body   string
}

// Fetch gets a URL with plain HTTP over a new connection, from the source
// address and port; a zero source or port leaves the choice to the kernel.
// The host of the URL is an address. The connection is read to its end, so
// that a server which closes first leaves the source port free for the next.
func Fetch(ctx context.Context, source netip.AddrPort, address string) (Response, error) {
	u, err := url.Parse(address)
	if err != nil {
		return Response{}, err
	}
	if u.Scheme != "http" {
		return Response{}, fmt.Errorf("fetch %q: only http", address)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	to, err := netip.ParseAddrPort(host)
	if err != nil {
		return Response{}, fmt.Errorf("fetch %q: %w", address, err)
	}
	response, err := fetch(ctx, source, to, u)
	if err != nil {
		return response, fmt.Errorf("fetch %q from %s: %w", address, source, err)
	}
	return response, nil
}

func fetch(ctx context.Context, source, to netip.AddrPort, u *url.URL) (Response, error) {
	c, err := dialTCP(ctx, source, to)
	if err != nil {
		return Response{}, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return Response{}, err
	}
	r := bufio.NewReader(c)
	h, err := http.ReadResponse(r, nil)
	if err != nil {
		return Response{}, err
	}
	defer h.Body.Close()
	body, err := io.ReadAll(io.LimitReader(h.Body, maxBody))
	if err != nil {
		return Response{}, err
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(r, maxBody)); err != nil {
		return Response{}, err
	}
	return Response{h.StatusCode, string(body)}, nil
}

// FetchAnswer asks a Server at address who it is and whom it sees.
func FetchAnswer(ctx context.Context, source, server netip.AddrPort) (Answer, error) {
	r, err := Fetch(ctx, source, "http://"+server.String()+"/json")
	if err != nil {
		return Answer{}, err
	}
	if r.Status != http.StatusOK {
		return Answer{}, fmt.Errorf("fetch from %s: status %d: %s", server, r.Status, strings.TrimSpace(r.Body))
	}
	var a Answer
	if err := json.Unmarshal([]byte(r.Body), &a); err != nil {
		return Answer{}, fmt.Errorf("fetch from %s: %w", server, err)
	}
	return a, nil
}

// dialTCP connects on the calling goroutine: with a literal address the
// standard library's dialer does not start others.
func dialTCP(ctx context.Context, source, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: reuseAddress}
	if source.Addr().IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(source)
	} else if source.Port() != 0 {
		d.LocalAddr = &net.TCPAddr{Port: int(source.Port())}
	}
	return d.DialContext(ctx, "tcp", to.String())
}

func reuseAddress(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	if ctlErr != nil {
		return ctlErr
	}
	return err
}

// ParseSource reads "10.0.0.1", "10.0.0.1:4444", "fd00::1", "[fd00::1]:4444",
// ":4444" or "", as the source of Fetch and others.
func ParseSource(text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	if strings.HasPrefix(text, ":") {
		a, err := netip.ParseAddrPort("0.0.0.0" + text)
		return netip.AddrPortFrom(netip.Addr{}, a.Port()), err
	}
	return netip.ParseAddrPort(text)
}
