package probes

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
)

var types = []Type{ICMP, ARPND, TCP, DNS, HTTP}

func (c Config) validateTargets() error {
	if !slices.Contains(types, c.Type) {
		return fmt.Errorf("type: %q is none of %q", c.Type, types)
	}
	if len(c.Targets) == 0 || len(c.Targets) > MaxTargets {
		return fmt.Errorf("targets: %d of them, not 1 to %d", len(c.Targets), MaxTargets)
	}
	var errs []error
	seen := make(map[Target]bool, len(c.Targets))
	for i, t := range c.Targets {
		address, err := c.address(t)
		source := c.source(t)
		if err == nil && t.Source.IsValid() {
			if err = checkAddress(t.Source); err != nil {
				err = fmt.Errorf("source: %w", err)
			}
		}
		switch {
		case err != nil:
		case seen[t]:
			err = fmt.Errorf("%q occurs twice", t)
		case source.IsValid() && source.Is4() != address.Is4():
			err = fmt.Errorf("%q is not of the family of the source %q", address, source)
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
	none := netip.Addr{}
	if given, needed := t.kind(), c.kind(); given != "" && given != needed {
		return none, fmt.Errorf("%s %q in a probe of type %q, which needs an %s", given, t.value(), c.Type, needed)
	}
	switch c.kind() {
	case "url":
		_, at, err := parseURL(t.URL)
		return at.Addr(), err
	case "endpoint":
		if t.Endpoint.Port() == 0 && t.Endpoint.Addr().IsValid() {
			return none, fmt.Errorf("endpoint %q has no port", t.Endpoint)
		}
		return t.Endpoint.Addr(), checkAddress(t.Endpoint.Addr())
	}
	return t.Address, checkAddress(t.Address)
}

// kind names the field that targets of c need.
func (c Config) kind() string {
	switch c.Type {
	case HTTP:
		return "url"
	case TCP, DNS:
		return "endpoint"
	}
	return "address"
}

// kind names the first of the three fields that is set.
func (t Target) kind() string {
	switch {
	case t.URL != "":
		return "url"
	case t.Endpoint != netip.AddrPort{}:
		return "endpoint"
	case t.Address.IsValid():
		return "address"
	}
	return ""
}

// value is t without its source.
func (t Target) value() string {
	t.Source = netip.Addr{}
	return t.String()
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
