package probes

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/http/httpguts"
)

func (c Config) validateHTTP() error {
	if c.HTTP == nil {
		return nil
	}
	if c.Type != HTTP {
		return fmt.Errorf("http: set in a probe of type %q", c.Type)
	}
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("http.%s: %w", field, fmt.Errorf(format, args...)))
	}
	h := c.http()
	if h.Method == "CONNECT" || strings.ContainsFunc(h.Method, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		wrong("method", "%q is not possible", h.Method)
	}
	if strings.ContainsFunc(h.Host, notHost) || len(h.Host) > 255 {
		wrong("host", "%q is not a Host header", h.Host)
	}
	// Answers below 200 are never the final one.
	if h.StatusMin < 200 || h.StatusMax > 599 || h.StatusMin > h.StatusMax {
		wrong("status", "%d to %d is not a range within 200 and 599", h.StatusMin, h.StatusMax)
	}
	if len(h.Body) > MaxBody {
		wrong("body", "longer than the %d bytes that are searched", MaxBody)
	}
	if h.Body != "" && h.Method == "HEAD" {
		wrong("body", "the answer to HEAD has none")
	}
	if strings.ContainsFunc(h.TLSServerName, notHost) || len(h.TLSServerName) > 255 {
		wrong("tlsServerName", "%q is not a name", h.TLSServerName)
	}
	for i, header := range h.Headers {
		if err := header.Validate(); err != nil {
			wrong(fmt.Sprintf("headers[%d]", i), "%w", err)
		}
	}
	if len(h.Headers) > MaxHeaders {
		wrong("headers", "%d of them, at most %d are possible", len(h.Headers), MaxHeaders)
	}
	if h.CAFile != "" && !filepath.IsAbs(h.CAFile) {
		wrong("caFile", "%q is not an absolute path", h.CAFile)
	}
	if h.CAFile != "" && h.TLSInsecure {
		wrong("caFile", "means nothing beside tlsInsecure")
	}
	if (h.TLSServerName != "" || h.TLSInsecure || h.CAFile != "") && !slices.ContainsFunc(c.Targets, isTLS) {
		wrong("tls", "no target is https")
	}
	return errors.Join(errs...)
}

// notHost are the characters that would end a Host header or a server name.
func notHost(r rune) bool {
	return r > unicode.MaxASCII || r <= ' ' || r == 0x7f || strings.ContainsRune(`/\@?#"<>`, r)
}

// reserved are the headers that the request itself, or another field, decides.
var reserved = []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection"}

// Validate says why h cannot be sent.
func (h Header) Validate() error {
	switch {
	case !httpguts.ValidHeaderFieldName(h.Name) || len(h.Name) > MaxHeader:
		return fmt.Errorf("name %q is not a header's", h.Name)
	case slices.ContainsFunc(reserved, func(r string) bool { return strings.EqualFold(r, h.Name) }):
		return fmt.Errorf("name %q cannot be set", h.Name)
	case !httpguts.ValidHeaderFieldValue(h.Value) || len(h.Value) > MaxHeader:
		return fmt.Errorf("value of %q is not possible", h.Name)
	}
	return nil
}

func isTLS(t Target) bool { return strings.HasPrefix(strings.ToLower(t.URL), "https:") }

func (c Config) validateDNS() error {
	if c.Type != DNS {
		if c.DNS != nil {
			return fmt.Errorf("dns: set in a probe of type %q", c.Type)
		}
		return nil
	}
	if c.DNS == nil {
		return errors.New("dns: missing")
	}
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("dns.%s: %w", field, fmt.Errorf(format, args...)))
	}
	d := c.dns()
	if err := d.CheckName(); err != nil {
		wrong("name", "%w", err)
	}
	if _, ok := recordTypes[d.Type]; !ok {
		wrong("type", "%q is none of A, AAAA, NS and SOA", d.Type)
	}
	if _, ok := responseCodes[d.RCode]; !ok {
		wrong("rcode", "%q is none of NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP and REFUSED", d.RCode)
	}
	if err := d.CheckAnswer(); err != nil {
		wrong("answer", "%w", err)
	}
	return errors.Join(errs...)
}

// CheckName says what is wrong with Name.
func (d DNSConfig) CheckName() error { return checkName(d.Name) }

// CheckAnswer says why Answer cannot be one, when Type and RCode are given.
func (d DNSConfig) CheckAnswer() error {
	if d.Answer == "" {
		return nil
	}
	if d.RCode != "NOERROR" {
		return fmt.Errorf("%q cannot be expected together with %s", d.Answer, d.RCode)
	}
	switch d.Type {
	case "A", "AAAA":
		a, err := netip.ParseAddr(d.Answer)
		if err != nil || a.Is4() != (d.Type == "A") || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("%q is not an address for %s", d.Answer, d.Type)
		}
		return nil
	}
	return checkName(d.Answer)
}

// checkName holds a domain name to RFC 1035, 2.3.4.
func checkName(s string) error {
	if s == "" {
		return errors.New("missing")
	}
	if s == "." {
		return nil
	}
	name := strings.TrimSuffix(s, ".")
	if len(name) > 253 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("%q is not a domain name", s)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return fmt.Errorf("%q is not a domain name", s)
		}
	}
	return nil
}

func (d *Damping) validate() error {
	if d == nil {
		return nil
	}
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("damping.%s: %w", field, fmt.Errorf(format, args...)))
	}
	if d.Penalty < 1 || d.Penalty > MaxPenalty {
		wrong("penalty", "%d is not within 1 and %d", d.Penalty, MaxPenalty)
	}
	if d.Reuse < 1 || d.Reuse > MaxPenalty {
		wrong("reuse", "%d is not within 1 and %d", d.Reuse, MaxPenalty)
	}
	if d.Suppress <= d.Reuse || d.Suppress > MaxPenalty {
		wrong("suppress", "%d is not above reuse (%d) and at most %d", d.Suppress, d.Reuse, MaxPenalty)
	}
	if d.HalfLife < MinHalfLife || d.HalfLife > MaxHoldDown {
		wrong("halfLife", "%v is not within %v and %v", d.HalfLife, MinHalfLife, MaxHoldDown)
	}
	if d.MaxSuppress < MinHalfLife || d.MaxSuppress > MaxHoldDown {
		wrong("maxSuppress", "%v is not within %v and %v", d.MaxSuppress, MinHalfLife, MaxHoldDown)
	}
	if errs == nil && d.Ceiling() < float64(d.Suppress) {
		wrong("maxSuppress", "%v lets the figure of merit rise to %.0f only, so that nothing is ever suppressed", d.MaxSuppress, d.Ceiling())
	}
	return errors.Join(errs...)
}
