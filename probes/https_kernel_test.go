package probes_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/probes"
)

// TestHTTPHeaders: headers go out as configured; ours give way to theirs.
func TestHTTPHeaders(t *testing.T) {
	n := newPair(t)
	s := newSite(t, n.far, "10.0.0.5:80", nil)
	var mu sync.Mutex
	var seen http.Header
	s.do(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = r.Header.Clone()
		fmt.Fprint(w, "well")
	})
	p := startProber(t, n.gw)
	p.set(httpProbe("web", "g0", probes.HTTPConfig{Headers: []probes.Header{{Name: "X-Probe", Value: "one"}, {Name: "x-probe", Value: "two"},
		{Name: "user-agent", Value: "mine"}}}, "http://10.0.0.5/"))
	p.verdict("web", probes.Up)
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(seen.Values("X-Probe"), ","); got != "one,two" || strings.Join(seen.Values("User-Agent"), ",") != "mine" {
		t.Errorf("headers %v", seen)
	}
}

// TestHTTPSAuthorities: the file of certificates replaces the system's, and is
// read again when it changes.
func TestHTTPSAuthorities(t *testing.T) {
	n := newPair(t)
	certificate, root := selfSigned(t, "health.example", net.ParseIP("10.0.0.5"))
	_, other := selfSigned(t, "other.example", net.ParseIP("10.0.0.5"))
	newSite(t, n.far, "10.0.0.5:443", certificate)
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	install := func(from string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(file+".new", append(b, '\n'), 0o644)
		}
		if err == nil {
			err = os.Rename(file+".new", file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p := startProber(t, n.gw)
	c := httpProbe("tls", "g0", probes.HTTPConfig{CAFile: file}, "https://10.0.0.5/")
	c.Interval, c.AttemptTimeout = time.Second, 20*time.Second // an emulated machine needs long for TLS
	c.Rise, c.Fall = 1, 1
	p.set(c)
	p.verdict("tls", probes.Down, "read CA file", "no such file or directory")
	install(root)
	p.verdict("tls", probes.Up)
	install(other)
	p.verdict("tls", probes.Down, "certificate")
	if err := os.WriteFile(file, []byte("nothing"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.verdict("tls", probes.Down, "no certificate in it")
	install(root)
	p.verdict("tls", probes.Up)
}
