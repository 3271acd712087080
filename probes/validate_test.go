package probes

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	web := func(change func(c *Config), urls ...string) Config {
		c := ping("red/web")
		c.Type, c.HTTP = HTTP, &HTTPConfig{}
		for _, u := range urls {
			c.Targets = append(c.Targets, Target{URL: u})
		}
		change(&c)
		return c
	}
	one := func(change func(c *Config)) Config {
		c := ping("red/icmp", 1)
		change(&c)
		return c
	}
	to := func(addresses ...string) Config {
		c := ping("red/icmp")
		for _, a := range addresses {
			c.Targets = append(c.Targets, Target{Address: netip.MustParseAddr(a)})
		}
		return c
	}
	none := func(*Config) {}
	ask := func(d DNSConfig, servers ...string) Config {
		c := ping("red/dns")
		c.Type, c.DNS = DNS, &d
		for _, s := range servers {
			c.Targets = append(c.Targets, Target{Endpoint: netip.MustParseAddrPort(s)})
		}
		return c
	}
	damped := func(change func(d *Damping)) Config {
		d := DefaultDamping()
		change(&d)
		return one(func(c *Config) { c.Damping = &d })
	}
	for _, c := range []struct {
		name   string
		config Config
		want   string // in the error; empty for none
	}{
		{"icmp", ping("red/icmp", 1, 2), ""},
		{"icmp both families", to("10.0.0.1", "fd00::1", "fe80::1%eth1"), ""},
		{"http", web(none, "http://10.0.0.1/", "https://[fd00::1]:8443/x?y=z"), ""},
		{"http zone", web(none, "http://[fe80::1%25eth1]:8080/"), ""},
		{"http without options", one(func(c *Config) { c.Type, c.Targets = HTTP, []Target{{URL: "http://10.0.0.1"}} }), ""},
		{"name", one(func(c *Config) { c.Name = "" }), "name: missing"},
		{"device", one(func(c *Config) { c.Device = "" }), "device: missing"},
		{"device name", one(func(c *Config) { c.Device = "sixteen-bytes-xx" }), `device: "sixteen-bytes-xx" is not an interface name`},
		{"type", one(func(c *Config) { c.Type = "smtp" }), `type: "smtp" is none of ["icmp" "arp-nd" "tcp" "dns" "http"]`},
		{"require", one(func(c *Config) { c.Require = "" }), `require: "" is neither "any" nor "all" nor a number from 1 to 1`},
		{"interval", one(func(c *Config) { c.Interval = time.Millisecond }), "interval: 1ms is not within 10ms and 1h0m0s"},
		{"long interval", one(func(c *Config) { c.Interval = 2 * time.Hour }), "interval: 2h0m0s"},
		{"timeout", one(func(c *Config) { c.AttemptTimeout = 0 }), "attemptTimeout: 0s is not within"},
		{"rise", one(func(c *Config) { c.Rise = 0 }), "rise: 0 is not within 1 and 1000"},
		{"fall", one(func(c *Config) { c.Fall = -1 }), "fall: -1 is not within 1 and 1000"},
		{"no targets", to(), "targets: 0 of them, not 1 to 256"},
		{"twice", to("10.0.0.1", "10.0.0.2", "10.0.0.1"), `targets[2]: "10.0.0.1" occurs twice`},
		{"mapped", to("::ffff:10.0.0.1"), `targets[0]: address "::ffff:10.0.0.1": write it as "10.0.0.1"`},
		{"any", to("0.0.0.0"), `targets[0]: address "0.0.0.0" is not one host's`},
		{"any6", to("::"), `targets[0]: address "::" is not one host's`},
		{"multicast", to("ff02::1"), "is not one host's"},
		{"broadcast", to("255.255.255.255"), "is not one host's"},
		{"link-local", to("fe80::1"), `targets[0]: link-local address "fe80::1" needs its interface: "fe80::1%interface"`},
		{"no address", one(func(c *Config) { c.Targets = []Target{{}} }), "targets[0]: address missing"},
		{"url in icmp", one(func(c *Config) { c.Targets = []Target{{URL: "http://10.0.0.1/"}} }), `targets[0]: url "http://10.0.0.1/" in a probe of type "icmp", which needs an address`},
		{"address in http", web(func(c *Config) { c.Targets[0].Address = netip.MustParseAddr("10.0.0.1") }, ""), "targets[0]: address"},
		{"source family", one(func(c *Config) { c.Source = netip.MustParseAddr("fd00::1") }), `targets[0]: "10.0.0.1" is not of the family of the source "fd00::1"`},
		{"source", one(func(c *Config) { c.Source = netip.MustParseAddr("0.0.0.0") }), "source: address"},
		{"http in icmp", one(func(c *Config) { c.HTTP = &HTTPConfig{} }), `http: set in a probe of type "icmp"`},
		{"name in url", web(none, "http://10.0.0.1/", "http://example.com/"), `targets[1]: url "http://example.com/": host "example.com" is not an IP address; names are not looked up`},
		{"no host", web(none, "http:///x"), "is not an IP address"},
		{"scheme", web(none, "ftp://10.0.0.1/"), `scheme "ftp" is neither http nor https`},
		{"no url", web(none, ""), "targets[0]: url missing"},
		{"port", web(none, "http://10.0.0.1:70000/"), `port "70000"`},
		{"port 0", web(none, "http://10.0.0.1:0/"), `port "0" is not within 1 and 65535`},
		{"password", web(none, "http://a:secret@10.0.0.1/"), "user and password are not supported"},
		{"broken url", web(none, "http://10.0.0.1/%zz"), "targets[0]: url: "},
		{"long url", web(none, "http://10.0.0.1/"+strings.Repeat("x", 2048)), "url longer than 2048 bytes"},
		{"method", web(func(c *Config) { c.HTTP.Method = "GET / HTTP" }, "http://10.0.0.1/"), "http.method:"},
		{"host", web(func(c *Config) { c.HTTP.Host = "a\r\nb" }, "http://10.0.0.1/"), "http.host:"},
		{"status", web(func(c *Config) { c.HTTP.StatusMin = 500 }, "http://10.0.0.1/"), "http.status: 500 to 399 is not a range"},
		{"body", web(func(c *Config) { c.HTTP.Body = strings.Repeat("x", MaxBody+1) }, "http://10.0.0.1/"), "http.body: longer"},
		{"head", web(func(c *Config) { c.HTTP.Method, c.HTTP.Body = "HEAD", "x" }, "http://10.0.0.1/"), "http.body: the answer to HEAD has none"},
		{"server name", web(func(c *Config) { c.HTTP.TLSServerName = "a b" }, "https://10.0.0.1/"), "http.tlsServerName:"},
		{"headers", web(func(c *Config) { c.HTTP.Headers = []Header{{"X-A", "b"}, {"x-a", ""}} }, "http://10.0.0.1/"), ""},
		{"header name", web(func(c *Config) { c.HTTP.Headers = []Header{{"X A", "b"}} }, "http://10.0.0.1/"), `http.headers[0]: name "X A" is not a header's`},
		{"header value", web(func(c *Config) { c.HTTP.Headers = []Header{{"A", "b\r\nc"}} }, "http://10.0.0.1/"), `http.headers[0]: value of "A"`},
		{"host header", web(func(c *Config) { c.HTTP.Headers = []Header{{"hOST", "b"}} }, "http://10.0.0.1/"), `http.headers[0]: name "hOST" cannot be set`},
		{"many headers", web(func(c *Config) { c.HTTP.Headers = slices.Repeat([]Header{{"A", "b"}}, 17) }, "http://10.0.0.1/"), "http.headers: 17 of them"},
		{"ca", web(func(c *Config) { c.HTTP.CAFile = "/etc/ca.pem" }, "https://10.0.0.1/"), ""},
		{"relative ca", web(func(c *Config) { c.HTTP.CAFile = "ca.pem" }, "https://10.0.0.1/"), `http.caFile: "ca.pem" is not an absolute path`},
		{"useless ca", web(func(c *Config) { c.HTTP.CAFile, c.HTTP.TLSInsecure = "/ca.pem", true }, "https://10.0.0.1/"), "http.caFile: means nothing"},
		{"tcp", one(func(c *Config) {
			c.Type, c.Targets = TCP, []Target{{Endpoint: netip.MustParseAddrPort("[fd00::1]:80")}}
		}), ""},
		{"tcp port", one(func(c *Config) { c.Type, c.Targets = TCP, []Target{{Endpoint: netip.MustParseAddrPort("10.0.0.1:0")}} }), `targets[0]: endpoint "10.0.0.1:0" has no port`},
		{"tcp address", one(func(c *Config) { c.Type = TCP }), `targets[0]: address "10.0.0.1" in a probe of type "tcp", which needs an endpoint`},
		{"neighbours", one(func(c *Config) { c.Type = ARPND }), ""},
		{"target source", one(func(c *Config) { c.Targets[0].Source = netip.MustParseAddr("10.0.0.9") }), ""},
		{"target source family", one(func(c *Config) { c.Targets[0].Source = netip.MustParseAddr("fd00::9") }), `targets[0]: "10.0.0.1" is not of the family of the source "fd00::9"`},
		{"target source any", one(func(c *Config) { c.Targets[0].Source = netip.MustParseAddr("0.0.0.0") }), `targets[0]: source: address "0.0.0.0"`},
		{"dns", ask(DNSConfig{Name: "example.com.", Type: "SOA", Answer: "ns.example.com"}, "10.0.0.1:53"), ""},
		{"dns nothing", one(func(c *Config) { c.Type, c.Targets = DNS, []Target{{Endpoint: netip.MustParseAddrPort("10.0.0.1:53")}} }), "dns: missing"},
		{"dns name", ask(DNSConfig{Name: "a..b"}, "10.0.0.1:53"), `dns.name: "a..b" is not a domain name`},
		{"dns no name", ask(DNSConfig{}, "10.0.0.1:53"), `dns.name: missing`},
		{"dns long label", ask(DNSConfig{Name: strings.Repeat("a", 64) + ".b"}, "10.0.0.1:53"), `is not a domain name`},
		{"dns type", ask(DNSConfig{Name: "a", Type: "MX"}, "10.0.0.1:53"), `dns.type: "MX" is none of`},
		{"dns rcode", ask(DNSConfig{Name: "a", RCode: "0"}, "10.0.0.1:53"), `dns.rcode: "0" is none of`},
		{"dns answer", ask(DNSConfig{Name: "a", Answer: "fd00::1"}, "10.0.0.1:53"), `dns.answer: "fd00::1" is not an address for A`},
		{"dns answer of none", ask(DNSConfig{Name: "a", RCode: "NXDOMAIN", Answer: "10.0.0.1"}, "10.0.0.1:53"), `dns.answer: "10.0.0.1" cannot be expected together with NXDOMAIN`},
		{"dns in icmp", one(func(c *Config) { c.DNS = &DNSConfig{Name: "a"} }), `dns: set in a probe of type "icmp"`},
		{"quorum", one(func(c *Config) { c.Require = Quorum(1) }), ""},
		{"large quorum", one(func(c *Config) { c.Require = Quorum(2) }), `require: "2" is neither`},
		{"hold-down", one(func(c *Config) { c.HoldDown = -1 }), "holdDown: -1ns is not within"},
		{"damping", damped(func(*Damping) {}), ""},
		{"penalty", damped(func(d *Damping) { d.Penalty = 0 }), "damping.penalty: 0 is not within 1 and 1000000"},
		{"reuse", damped(func(d *Damping) { d.Reuse = 0 }), "damping.reuse: 0 is not within"},
		{"suppress", damped(func(d *Damping) { d.Suppress = 1000 }), "damping.suppress: 1000 is not above reuse (1000)"},
		{"half-life", damped(func(d *Damping) { d.HalfLife = 1 }), "damping.halfLife: 1ns is not within 1s and 1h0m0s"},
		{"max suppress", damped(func(d *Damping) { d.MaxSuppress = 2 * time.Hour }), "damping.maxSuppress: 2h0m0s is not within"},
		{"useless damping", damped(func(d *Damping) { d.MaxSuppress = 15 * time.Second }), "damping.maxSuppress: 15s lets the figure of merit rise to 2000 only"},
		{"tls", web(func(c *Config) { c.HTTP.TLSInsecure = true }, "http://10.0.0.1/"), "http.tls: no target is https"},
	} {
		err := c.config.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error tells the password: %v", c.name, err)
		}
	}
	all := Config{Type: HTTP, Targets: []Target{{URL: "http://a/"}, {URL: "x"}}, HTTP: &HTTPConfig{Host: " "}}
	if err := all.Validate(); err == nil || strings.Count(err.Error(), "\n") != 9 {
		t.Errorf("everything wrong at once: %v", err)
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"http://10.0.0.1/", "https://[fd00::1%25eth0]:443/a?b#c", "http://[::ffff:1.2.3.4]/", "//x", "http://1.2.3.4:+80/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, at, err := parseURL(s)
		if err != nil {
			return
		}
		if !at.IsValid() || at.Port() == 0 || checkAddress(at.Addr()) != nil {
			t.Errorf("%q leads to %v", s, at)
		}
		if u.User != nil || u.Hostname() == "" {
			t.Errorf("%q accepted as %v", s, u)
		}
	})
}
