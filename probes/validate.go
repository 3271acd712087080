package probes

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The bounds of a Config.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Hour
	// MaxAttemptTimeout also bounds how long a removed probe's sockets can live.
	MaxAttemptTimeout = time.Minute
	MaxThreshold      = 1000
	MaxTargets        = 256
	// MaxBody is how much of an HTTP answer is searched, in bytes.
	MaxBody = 64 << 10

	maxURL    = 2048
	maxDevice = 15 // IFNAMSIZ less the NUL
)

// Validate reports everything that is wrong with c, each with the field's name,
// joined. It looks at c alone, not at the machine.
func (c Config) Validate() error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	}
	if c.Name == "" {
		wrong("name", "missing")
	}
	if c.Device == "" {
		wrong("device", "missing")
	} else if len(c.Device) > maxDevice || strings.ContainsFunc(c.Device, func(r rune) bool { return r == '/' || r <= ' ' }) {
		wrong("device", "%q is not an interface name", c.Device)
	}
	if c.Require != Any && c.Require != All {
		wrong("require", "%q is neither %q nor %q", c.Require, Any, All)
	}
	if c.Interval < MinInterval || c.Interval > MaxInterval {
		wrong("interval", "%v is not within %v and %v", c.Interval, MinInterval, MaxInterval)
	}
	if c.AttemptTimeout < time.Millisecond || c.AttemptTimeout > MaxAttemptTimeout {
		wrong("attemptTimeout", "%v is not within %v and %v", c.AttemptTimeout, time.Millisecond, MaxAttemptTimeout)
	}
	if c.Rise < 1 || c.Rise > MaxThreshold {
		wrong("rise", "%d is not within 1 and %d", c.Rise, MaxThreshold)
	}
	if c.Fall < 1 || c.Fall > MaxThreshold {
		wrong("fall", "%d is not within 1 and %d", c.Fall, MaxThreshold)
	}
	if c.Source.IsValid() {
		if err := checkAddress(c.Source); err != nil {
			wrong("source", "%w", err)
		}
	}
	errs = append(errs, c.validateTargets(), c.validateHTTP())
	return errors.Join(errs...)
}

func (c Config) validateTargets() error {
	if c.Type != ICMP && c.Type != HTTP {
		return fmt.Errorf("type: %q is neither %q nor %q", c.Type, ICMP, HTTP)
	}
	if len(c.Targets) == 0 || len(c.Targets) > MaxTargets {
		return fmt.Errorf("targets: %d of them, not 1 to %d", len(c.Targets), MaxTargets)
	}
	var errs []error
	seen := make(map[Target]bool, len(c.Targets))
	for i, t := range c.Targets {
		address, err := c.address(t)
		switch {
		case err != nil:
		case seen[t]:
			err = fmt.Errorf("%q occurs twice", t)
		case c.Source.IsValid() && c.Source.Is4() != address.Is4():
			err = fmt.Errorf("%q is not of the family of the source %q", t, c.Source)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("targets[%d]: %w", i, err))
		}
		seen[t] = true
	}
	return errors.Join(errs...)
}

// address is where t's packets go.
func (c Config) address(t Target) (netip.Addr, error) {
	switch {
	case c.Type == ICMP && t.URL != "":
		return netip.Addr{}, fmt.Errorf("url %q in an icmp probe", t.URL)
	case c.Type == HTTP && t.Address.IsValid():
		return netip.Addr{}, fmt.Errorf("address %q in an http probe, which needs a url", t.Address)
	case c.Type == HTTP:
		_, at, err := parseURL(t.URL)
		return at.Addr(), err
	}
	return t.Address, checkAddress(t.Address)
}

// checkAddress refuses what a probe cannot talk to.
func checkAddress(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("address missing")
	case a.Is4In6():
		return fmt.Errorf("address %q: write it as %q", a, a.Unmap())
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %q is not one host's", a)
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		return fmt.Errorf("link-local address %q needs its interface: %q", a, a.String()+"%interface")
	}
	return nil
}

// parseURL reads the URL of a target and where it leads to.
func parseURL(s string) (*url.URL, netip.AddrPort, error) {
	none := netip.AddrPort{}
	if s == "" {
		return nil, none, errors.New("url missing")
	}
	if len(s) > maxURL {
		return nil, none, fmt.Errorf("url longer than %d bytes", maxURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, none, fmt.Errorf("url: %w", err)
	}
	port := uint64(80)
	switch u.Scheme {
	case "http":
	case "https":
		port = 443
	default:
		return nil, none, fmt.Errorf("url %q: scheme %q is neither http nor https", s, u.Scheme)
	}
	if u.User != nil {
		return nil, none, errors.New("url: user and password are not supported")
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil, none, fmt.Errorf("url %q: host %q is not an IP address; names are not looked up", s, u.Hostname())
	}
	if err := checkAddress(a); err != nil {
		return nil, none, fmt.Errorf("url %q: %w", s, err)
	}
	if p := u.Port(); p != "" {
		port, err = strconv.ParseUint(p, 10, 16)
		if err != nil || port == 0 {
			return nil, none, fmt.Errorf("url %q: port %q is not within 1 and 65535", s, p)
		}
	}
	return u, netip.AddrPortFrom(a, uint16(port)), nil
}

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
	if (h.TLSServerName != "" || h.TLSInsecure) && !c.anyTLS() {
		wrong("tls", "no target is https")
	}
	return errors.Join(errs...)
}

// notHost are the characters that would end a Host header or a server name.
func notHost(r rune) bool {
	return r > unicode.MaxASCII || r <= ' ' || r == 0x7f || strings.ContainsRune(`/\@?#"<>`, r)
}

func (c Config) anyTLS() bool {
	for _, t := range c.Targets {
		if strings.HasPrefix(strings.ToLower(t.URL), "https:") {
			return true
		}
	}
	return false
}
