package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/egret-router/egret/probes"
)

// dnsPort is where a DNS server is asked.
const dnsPort = 53

// targets checks what a probe asks, and from where.
func (p *parser) targets(n *network, at path, raw RawProbe, c *probes.Config) {
	if len(raw.Targets) == 0 && !p.template {
		p.add(at.key("targets"), "is missing: name at least one target")
	}
	if len(raw.Targets) > maxTargets {
		p.add(at.key("targets"), "there are %d targets, at most %d are possible", len(raw.Targets), maxTargets)
	}
	var hosts []netip.Addr // of targets without a source of their own
	for i, t := range raw.Targets {
		at := at.key("targets").index(i)
		target, host, ok := p.target(at, c.Type, t.Target)
		if !ok || !p.otherHost(n, at, host) {
			continue
		}
		if c.Type == probes.ARPND && !n.connected(host) {
			p.dangling(n.at.key("interfaces"), at, "%s is on no connected prefix of %s (%s)", host, n.called(at), n.connectedPrefixes(host))
			continue
		}
		if t.Source != "" {
			target.Source = p.source(n, at.key("source"), t.Source, []netip.Addr{host})
		} else {
			hosts = append(hosts, host)
		}
		if slices.Contains(c.Targets, target) {
			p.add(at, "%s is listed twice", quote(t.Target))
		}
		c.Targets = append(c.Targets, target)
		n.uses = append(n.uses, use{at, host, "its prefix is discarded inside the network, so the probe could not succeed"})
	}
	if raw.Source != "" {
		c.Source = p.source(n, at.key("source"), raw.Source, hosts)
	}
}

// target checks a target by the type of its probe. host is the address in it.
func (p *parser) target(at path, kind probes.Type, s string) (target probes.Target, host netip.Addr, ok bool) {
	switch kind {
	case probes.ICMP, probes.ARPND:
		host, ok = p.addr(at, s)
		return probes.Target{Address: host}, host, ok
	case probes.HTTP:
		host, ok = p.httpURL(at, s)
		return probes.Target{URL: s}, host, ok
	case probes.TCP, probes.DNS:
		endpoint, ok := p.endpoint(at, kind, s)
		return probes.Target{Endpoint: endpoint}, endpoint.Addr(), ok
	}
	return target, host, false // the type is wrong, and reported
}

// endpoint checks an address and a port, which may be left out for DNS.
func (p *parser) endpoint(at path, kind probes.Type, s string) (netip.AddrPort, bool) {
	to, err := netip.ParseAddrPort(s)
	if err != nil && kind == probes.DNS {
		if _, e := netip.ParseAddr(s); e == nil || s == "" {
			a, ok := p.addr(at, s)
			return netip.AddrPortFrom(a, dnsPort), ok
		}
		p.add(at, "%s is not the address of a server, such as 10.0.0.53, 10.0.0.53:5353 or [2001:db8::53]:5353", quote(s))
		return netip.AddrPort{}, false
	}
	if err != nil {
		p.add(at, "%s is not an address and a port, such as 10.0.0.5:443 or [2001:db8::5]:443", quote(s))
		return netip.AddrPort{}, false
	}
	if to.Port() == 0 {
		p.add(at, "%s has a port that is not 1 to 65535", quote(s))
		return netip.AddrPort{}, false
	}
	a, ok := p.addr(at, to.Addr().String())
	return netip.AddrPortFrom(a, to.Port()), ok
}

// probePort binds a probe of neighbours to the port that they are on.
func (p *parser) probePort(n *network, at path, raw RawProbe, c *probes.Config) {
	at = at.key("interface")
	if c.Type != probes.ARPND {
		if raw.Interface != "" && c.Type != "" {
			p.add(at, "is for probes of type arp-nd, this one has type %s", c.Type)
		}
		return
	}
	var names, fitting []string
	for _, port := range n.ports {
		names = append(names, port.Name)
		others := slices.ContainsFunc(c.Targets, func(t probes.Target) bool { return !containsAddr(port.Addresses, t.Address) })
		if len(c.Targets) > 0 && !others {
			fitting = append(fitting, port.Name)
		}
	}
	switch {
	case raw.Interface != "" && !slices.Contains(names, raw.Interface):
		p.dangling(n.at.key("interfaces"), at, "%s is not an interface of this network: use %s", quote(raw.Interface), alternatives(names))
	case raw.Interface != "":
		c.Device = raw.Interface
	case len(names) == 1:
		c.Device = names[0]
	case len(fitting) == 1:
		c.Device = fitting[0]
	case len(names) > 1 && !p.template && len(c.Targets) == len(raw.Targets):
		p.add(at, "is missing: the targets are not all on the addresses of one interface; name the one to ask on")
	}
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
