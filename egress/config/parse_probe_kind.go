package config

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/egret-router/egret/probes"
)

// http checks what an HTTP probe sends and expects, and fills in defaults.
func (p *parser) http(at path, raw *RawHTTP, probe probes.Config) *probes.HTTPConfig {
	if probe.Type != probes.HTTP {
		if raw != nil && probe.Type != "" {
			p.add(at, "is for probes of type http, this one has type %s", probe.Type)
		}
		return nil
	}
	if raw == nil {
		raw = &RawHTTP{}
	}
	c := &probes.HTTPConfig{
		Method:        p.oneOf(at.key("method"), raw.Method, http.MethodGet, http.MethodGet, http.MethodHead, http.MethodOptions),
		Host:          p.hostHeader(at.key("host"), raw.Host),
		StatusMin:     int(p.integer(at.key("statusMin"), raw.StatusMin, DefaultStatusMin, 200, 599)),
		StatusMax:     int(p.integer(at.key("statusMax"), raw.StatusMax, DefaultStatusMax, 200, 599)),
		Body:          raw.Body,
		TLSServerName: p.hostHeader(at.key("tlsServerName"), raw.TLSServerName),
		TLSInsecure:   raw.TLSInsecure,
		CAFile:        raw.CAFile,
	}
	if c.StatusMin > c.StatusMax {
		p.add(at.key("statusMin"), "%d is above statusMax (%d): no answer would be accepted", c.StatusMin, c.StatusMax)
	}
	if c.Body != "" && c.Method == http.MethodHead {
		p.add(at.key("body"), "cannot be found: the answer to HEAD has no body; use GET")
	}
	if len(c.Body) > maxBody {
		p.add(at.key("body"), "is %d bytes long, at most %d are allowed", len(c.Body), maxBody)
	}
	p.headers(at.key("headers"), raw.Headers, c)
	if c.CAFile != "" && !filepath.IsAbs(c.CAFile) {
		p.add(at.key("caFile"), "%s is not an absolute path", quote(c.CAFile))
	}
	if c.CAFile != "" && c.TLSInsecure {
		p.add(at.key("caFile"), "means nothing beside tlsInsecure: true, which accepts any certificate")
	}
	https := slices.ContainsFunc(probe.Targets, func(t probes.Target) bool { return strings.HasPrefix(strings.ToLower(t.URL), "https:") })
	for _, tls := range []struct {
		key   string
		given bool
	}{{"tlsServerName", c.TLSServerName != ""}, {"tlsInsecure", c.TLSInsecure}, {"caFile", c.CAFile != ""}} {
		if tls.given && !https && len(probe.Targets) > 0 {
			p.add(at.key(tls.key), "is for https, but no target is an https:// URL")
		}
	}
	return c
}

// hostHeader checks a host name that goes into a header or a TLS hello.
func (p *parser) hostHeader(at path, s string) string {
	ok := len(s) <= maxHost && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`/\@?#"<>`, c)
	})
	if !ok {
		p.add(at, "%s is not a host name", quote(s))
	}
	return s
}

// headers checks what is sent beside the request's own.
func (p *parser) headers(at path, raws []RawHeader, c *probes.HTTPConfig) {
	if len(raws) > probes.MaxHeaders {
		p.add(at, "there are %d headers, at most %d are possible", len(raws), probes.MaxHeaders)
	}
	for i, raw := range raws {
		h := probes.Header{Name: raw.Name, Value: raw.Value}
		if err := h.Validate(); err != nil {
			p.add(at.index(i), "%s", err)
			continue
		}
		c.Headers = append(c.Headers, h)
	}
}

// dns checks what a DNS probe asks and expects, and fills in defaults.
func (p *parser) dns(at path, raw *RawDNS, probe probes.Config) *probes.DNSConfig {
	if probe.Type != probes.DNS {
		if raw != nil && probe.Type != "" {
			p.add(at, "is for probes of type dns, this one has type %s", probe.Type)
		}
		return nil
	}
	if raw == nil {
		p.add(at, "is missing: what to ask for, as in dns: {name: example.com}")
		return nil
	}
	c := &probes.DNSConfig{
		Name:   raw.Name,
		Type:   p.oneOf(at.key("type"), raw.Type, "A", "A", "AAAA", "NS", "SOA"),
		RCode:  p.oneOf(at.key("rcode"), raw.RCode, "NOERROR", "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"),
		Answer: raw.Answer,
	}
	if p.required(at.key("name"), raw.Name, "the domain name to ask for") {
		if err := c.CheckName(); err != nil {
			p.add(at.key("name"), "%s", err)
		}
	}
	if err := c.CheckAnswer(); err != nil {
		p.add(at.key("answer"), "%s", err)
	}
	return c
}
