package config

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/egret-router/egret/probes"
)

// Probe defaults: 2 attempts of 300 ms make a verdict of down in under 1 s.
const (
	DefaultProbeInterval = 300 * time.Millisecond
	DefaultFall          = 2
	DefaultRise          = 3
	DefaultStatusMin     = 200
	DefaultStatusMax     = 399
)

// What the probes package can run.
const (
	minProbeInterval  = 10 * time.Millisecond
	maxProbeInterval  = time.Hour
	maxAttemptTimeout = time.Minute
	maxAttempts       = 1000
	maxTargets        = 256
	maxURL            = 2048 // bytes
	maxBody           = 1024 // bytes
	maxHost           = 255  // bytes
)

func (p *parser) probes(n *network, raws []RawProbe) []probes.Config {
	var configs []probes.Config
	names := map[string]path{}
	for i, raw := range raws {
		at := n.at.key("probes").index(i)
		name := raw.Name
		if name == "" {
			name = raw.Type + strconv.Itoa(i)
		} else {
			p.name(at.key("name"), name, maxName)
		}
		if first, taken := names[name]; taken {
			p.add(at.key("name"), "%s is the name of %s already", quote(name), first)
		}
		names[name] = at
		configs = append(configs, p.probe(n, at, name, raw))
	}
	return configs
}

func (p *parser) probe(n *network, at path, name string, raw RawProbe) probes.Config {
	c := probes.Config{
		Name:     n.name + "/" + name,
		Network:  n.name,
		Device:   n.name, // the VRF device
		Require:  probes.Require(p.oneOf(at.key("require"), raw.Require, string(probes.Any), string(probes.Any), string(probes.All))),
		Interval: p.duration(at.key("interval"), raw.Interval, DefaultProbeInterval, minProbeInterval, maxProbeInterval),
		Rise:     int(p.integer(at.key("rise"), raw.Rise, DefaultRise, 1, maxAttempts)),
		Fall:     int(p.integer(at.key("fall"), raw.Fall, DefaultFall, 1, maxAttempts)),
	}
	longest := min(c.Interval, maxAttemptTimeout)
	c.AttemptTimeout = p.duration(at.key("attemptTimeout"), raw.AttemptTimeout, longest, time.Millisecond, maxAttemptTimeout)
	if c.AttemptTimeout > c.Interval {
		p.add(at.key("attemptTimeout"), "%s is longer than the interval (%s): attempts do not overlap", c.AttemptTimeout, c.Interval)
	}
	if p.required(at.key("type"), raw.Type, "icmp or http") {
		c.Type = probes.Type(p.oneOf(at.key("type"), raw.Type, "", string(probes.ICMP), string(probes.HTTP)))
	}
	if len(raw.Targets) == 0 && !p.template {
		p.add(at.key("targets"), "is missing: name at least one target")
	}
	if len(raw.Targets) > maxTargets {
		p.add(at.key("targets"), "there are %d targets, at most %d are possible", len(raw.Targets), maxTargets)
	}
	var hosts []netip.Addr
	for i, s := range raw.Targets {
		at := at.key("targets").index(i)
		target, host, ok := p.target(at, c.Type, s)
		if !ok || !p.otherHost(n, at, host) {
			continue
		}
		if slices.Contains(c.Targets, target) {
			p.add(at, "%s is listed twice", quote(s))
		}
		c.Targets, hosts = append(c.Targets, target), append(hosts, host)
		n.uses = append(n.uses, use{at, host, "its prefix is discarded inside the network, so the probe could not succeed"})
	}
	if raw.Source != "" {
		c.Source = p.source(n, at.key("source"), raw.Source, hosts)
	}
	c.HTTP = p.http(at.key("http"), raw.HTTP, c)
	return c
}

// target checks a target by the type of its probe. host is the address in it.
func (p *parser) target(at path, kind probes.Type, s string) (target probes.Target, host netip.Addr, ok bool) {
	switch kind {
	case probes.ICMP:
		host, ok = p.addr(at, s)
		return probes.Target{Address: host}, host, ok
	case probes.HTTP:
		host, ok = p.httpURL(at, s)
		return probes.Target{URL: s}, host, ok
	}
	return target, host, false // the type is wrong, and reported
}

// httpURL checks a URL whose host is an address: a network has no resolver.
func (p *parser) httpURL(at path, s string) (netip.Addr, bool) {
	u, err := url.Parse(s)
	switch {
	case len(s) > maxURL:
		p.add(at, "is %d bytes long, at most %d are allowed", len(s), maxURL)
		return netip.Addr{}, false
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "":
		p.add(at, "%s is not a URL such as http://10.0.0.5/ or https://[2001:db8::5]:8443/health", quote(s))
		return netip.Addr{}, false
	case u.User != nil:
		p.add(at, "%s has a user name in it, which is not supported", quote(u.Redacted()))
		return netip.Addr{}, false
	case u.Fragment != "":
		p.add(at, "%s has a fragment (#), which is never sent", quote(s))
		return netip.Addr{}, false
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		p.add(at, "%s names its host: write the address, and the name as http.host", quote(s))
		return netip.Addr{}, false
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			p.add(at, "%s has a port that is not 1 to 65535", quote(s))
			return netip.Addr{}, false
		}
	}
	return p.addr(at, u.Hostname())
}

// source checks the local address of a probe.
func (p *parser) source(n *network, at path, s string, hosts []netip.Addr) netip.Addr {
	a, ok := p.addr(at, s)
	if !ok {
		return a
	}
	for _, host := range hosts {
		if host.Is4() != a.Is4() {
			p.add(at, "%s is %s, but the target %s is %s: use a probe for each family", a, family(a), host, family(host))
			break
		}
	}
	if n.hasAddresses(a) && !n.isOwn(a) {
		n.sources = append(n.sources, use{at: at, addr: a})
	}
	n.uses = append(n.uses, use{at, a, "it is advertised only after the probe succeeds, and the probe only succeeds once it is advertised"})
	return a
}

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
	https := slices.ContainsFunc(probe.Targets, func(t probes.Target) bool { return strings.HasPrefix(strings.ToLower(t.URL), "https:") })
	for _, tls := range []struct {
		key   string
		given bool
	}{{"tlsServerName", c.TLSServerName != ""}, {"tlsInsecure", c.TLSInsecure}} {
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
