package probes_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

// site is a web server in a namespace that does as it is told.
type site struct {
	mu      sync.Mutex
	handler http.HandlerFunc
	// seen are the remote addresses of the requests, hosts and names their Host
	// headers and TLS server names.
	seen         []netip.AddrPort
	hosts, names map[string]bool
	// connections counts those that carried a request.
	connections int
}

// firstKey is where the context of a connection has a *sync.Once.
type firstKey struct{}

func newSite(t *testing.T, ns *lab.NS, address string, certificate *tls.Certificate) *site {
	t.Helper()
	s := &site{hosts: map[string]bool{}, names: map[string]bool{}}
	s.do(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "all is well") })
	var l net.Listener
	// An IPv6 address is tentative until the kernel has noticed the carrier.
	lab.Eventually(t, time.Minute, "address "+address, func() error {
		return ns.Do(func() (err error) {
			l, err = net.Listen("tcp", address)
			return err
		})
	})
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*certificate}})
	}
	server := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0), ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, firstKey{}, new(sync.Once))
	}}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return s
}

func (s *site) do(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	r.Context().Value(firstKey{}).(*sync.Once).Do(func() { s.connections++ })
	s.seen = append(s.seen, netip.MustParseAddrPort(r.RemoteAddr))
	s.hosts[r.Host] = true
	if r.TLS != nil {
		s.names[r.TLS.ServerName] = true
	}
	h := s.handler
	s.mu.Unlock()
	h(w, r)
}

func TestHTTPAnswers(t *testing.T) {
	n := newPair(t)
	four, six := newSite(t, n.far, "10.0.0.5:80", nil), newSite(t, n.far, "[fd00::5]:8080", nil)
	// A proxy of the environment must not be used.
	p := startProber(t, n.gw, "http_proxy=http://10.0.0.99:3128", "HTTP_PROXY=http://10.0.0.99:3128")
	c := httpProbe("web", "g0", probes.HTTPConfig{Body: "is well", Host: "health.example"}, "http://10.0.0.5/healthz", "http://[fd00::5]:8080/")
	p.set(c)
	p.verdict("web", probes.Up)
	well := four.handler
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for i, bad := range []struct {
		name    string
		handler http.HandlerFunc
		text    string
	}{
		{"status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "is well", 500) }, "status 500, not 200 to 399"},
		{"body", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is bad") }, `"is well" is not in the answer of 10 bytes`},
		{"late body", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Repeat("x", probes.MaxBody-1)+"is well")
		}, "not in the first 65536 bytes"},
		{"slow", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}, "no answer within 1s"},
		{"slow body", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "all ")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}, "no answer within 1s: read answer"},
		{"hangs up", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		s := []*site{four, six}[i%2] // either one alone, since all must be up
		s.do(bad.handler)
		p.verdict("web", probes.Down, bad.text)
		s.do(well)
		p.verdict("web", probes.Up)
	}
	// A redirect is an answer, and not followed.
	four.do(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://10.0.0.99/", http.StatusFound)
		fmt.Fprint(w, "is well")
	})
	p.attempts("web", 5)
	p.verdict("web", probes.Up)
	strict := c
	strict.HTTP = &probes.HTTPConfig{StatusMin: 200, StatusMax: 299}
	p.set(strict)
	p.verdict("web", probes.Down, "status 302, not 200 to 299")

	four.mu.Lock()
	defer four.mu.Unlock()
	if !four.hosts["health.example"] || !four.hosts["10.0.0.5"] || len(four.hosts) != 2 {
		t.Errorf("Host headers %v", four.hosts)
	}
	for _, a := range four.seen {
		if a.Addr() != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("request from %v", a)
		}
	}
	if four.connections != len(four.seen) {
		t.Errorf("%d connections for %d requests", four.connections, len(four.seen))
	}
}

func TestHTTPConnections(t *testing.T) {
	n := newPair(t)
	s := newSite(t, n.far, "10.0.0.5:80", nil)
	p := startProber(t, n.gw)
	source := httpProbe("source", "g0", probes.HTTPConfig{Method: "HEAD"}, "http://10.0.0.5/")
	source.Source = netip.MustParseAddr("10.0.0.2")
	p.set(source, httpProbe("port", "g0", probes.HTTPConfig{}, "http://10.0.0.5:81/"),
		httpProbe("device", "g7", probes.HTTPConfig{}, "http://10.0.0.5/"),
		// lo leads there as well, but not when the socket is bound to g0.
		httpProbe("own address", "g0", probes.HTTPConfig{}, "http://10.0.0.99/"))
	p.verdict("source", probes.Up)
	p.verdict("port", probes.Down, "connection refused")
	p.verdict("device", probes.Down, `bind to device "g7": no such device`)
	p.verdict("own address", probes.Down)
	s.mu.Lock()
	for _, a := range s.seen {
		if a.Addr() != netip.MustParseAddr("10.0.0.2") {
			t.Errorf("request from %v", a)
		}
	}
	s.mu.Unlock()
	cut := time.Now()
	if err := n.far.SetLink("f0", false); err != nil {
		t.Fatal(err)
	}
	p.verdict("source", probes.Down)
	t.Logf("down %v after the cut", p.state("source").Since.Sub(cut).Round(time.Millisecond))
	if err := n.far.SetLink("f0", true); err != nil {
		t.Fatal(err)
	}
	p.verdict("source", probes.Up)
}

func TestHTTPS(t *testing.T) {
	n := newPair(t)
	certificate, roots := selfSigned(t, "health.example", net.ParseIP("10.0.0.5"))
	s := newSite(t, n.far, "10.0.0.5:443", certificate)
	trusted, doubting := startProber(t, n.gw, "SSL_CERT_FILE="+roots, "SSL_CERT_DIR=/nonexistent"), startProber(t, n.gw)
	probe := func(name string, h probes.HTTPConfig) probes.Config {
		c := httpProbe(name, "g0", h, "https://10.0.0.5/")
		c.Interval, c.AttemptTimeout = time.Second, 20*time.Second // an emulated machine needs long for TLS
		return c
	}
	trusted.set(probe("address", probes.HTTPConfig{}), probe("name", probes.HTTPConfig{TLSServerName: "health.example"}),
		probe("other", probes.HTTPConfig{TLSServerName: "other.example"}))
	doubting.set(probe("secure", probes.HTTPConfig{}), probe("insecure", probes.HTTPConfig{TLSInsecure: true, TLSServerName: "any.example"}))
	trusted.verdict("address", probes.Up)
	trusted.verdict("name", probes.Up)
	trusted.verdict("other", probes.Down, "certificate is valid for health.example, not other.example")
	doubting.verdict("secure", probes.Down, "certificate signed by unknown authority")
	doubting.verdict("insecure", probes.Up)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{"", "health.example", "any.example"} {
		if !s.names[name] {
			t.Errorf("no request with the server name %q: %v", name, s.names)
		}
	}
}

// selfSigned is a certificate and the file that has it as a root.
func selfSigned(t *testing.T, name string, address net.IP) (*tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{name}, IPAddresses: []net.IP{address}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
