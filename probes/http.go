package probes

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxHeader bounds the headers of an answer, in bytes.
const maxHeader = 64 << 10

// httpAttempt asks one URL. Each try is a new connection, also for TLS, so that
// it proves the whole path; nothing of the environment (proxies, resolver) and
// no redirect leads it elsewhere.
type httpAttempt struct {
	config    HTTPConfig
	url       string
	transport *http.Transport
	ca        authorities
}

// newHTTPAttempt is for a valid Config.
func newHTTPAttempt(c Config, t Target) *httpAttempt {
	h := c.http()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &httpAttempt{config: h, url: t.URL, transport: &http.Transport{
		DialContext:            dialerFor(c.Device, c.source(t)).DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true, // else the body is not searched as the server has it
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              protocols,
		TLSClientConfig:        &tls.Config{ServerName: h.TLSServerName, InsecureSkipVerify: h.TLSInsecure},
	}}
}

// try is an attempt.
func (a *httpAttempt) try(ctx context.Context) (time.Duration, error) {
	if err := a.trust(); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := a.ask(ctx); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func (a *httpAttempt) ask(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, a.config.Method, a.url, nil)
	if err != nil {
		return err
	}
	req.Host = a.config.Host // the URL's when empty
	req.Header.Set("User-Agent", "egret-probe")
	first := map[string]bool{}
	for _, h := range a.config.Headers {
		if name := http.CanonicalHeaderKey(h.Name); !first[name] { // replaces ours, then adds
			first[name] = true
			req.Header.Del(name)
		}
		req.Header.Add(h.Name, h.Value)
	}
	// Not a Client: that would follow redirects and keep cookies.
	resp, err := a.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if s := resp.StatusCode; s < a.config.StatusMin || s > a.config.StatusMax {
		return fmt.Errorf("status %d, not %d to %d", s, a.config.StatusMin, a.config.StatusMax)
	}
	if a.config.Body == "" {
		return nil
	}
	return search(resp.Body, []byte(a.config.Body))
}

// search reads until want was seen, at most MaxBody bytes. Its work is linear
// in them, however small the pieces in which they come.
func search(r io.Reader, want []byte) error {
	buf := make([]byte, 0, 4<<10)
	for len(buf) < MaxBody {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		seen := max(0, len(buf)-len(want)+1)
		n, err := r.Read(buf[len(buf):min(cap(buf), MaxBody)])
		buf = buf[:len(buf)+n]
		if bytes.Contains(buf[seen:], want) {
			return nil
		}
		if err == io.EOF {
			return fmt.Errorf("%q is not in the answer of %d bytes", want, len(buf))
		}
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
	}
	return fmt.Errorf("%q is not in the first %d bytes of the answer", want, len(buf))
}
