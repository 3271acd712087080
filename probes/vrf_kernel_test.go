package probes_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

// TestTwoNetworksWithEqualAddresses: two VRFs with the same transfer subnet and
// the same targets, both families, ping and web. What happens to one network
// is the verdict of that network only.
func TestTwoNetworksWithEqualAddresses(t *testing.T) {
	lab.Require(t, lab.VRF)
	l := lab.New(t)
	gw := l.MustNamespace("gw")
	// As on every gateway. A host (forwarding off) would take the unreachable
	// default instead of a route whose neighbour once failed, and ask that
	// neighbour again only every router_probe_interval, which is a minute.
	if err := gw.Sysctl("net.ipv6.conf.all.forwarding", "1"); err != nil {
		t.Fatal(err)
	}
	nets := []string{"red", "blue"}
	far, sites := map[string]*lab.NS{}, map[string]*site{}
	for i, name := range nets {
		ns, port := l.MustNamespace(name), fmt.Sprintf("eth%d", i+1)
		far[name] = ns
		l.MustLink(gw, port, ns, "up")
		gw.MustIP(fmt.Sprintf("link add %s type vrf table %d", name, 10001+i), "link set "+name+" up",
			"link set "+port+" master "+name, "addr add 172.16.0.1/24 dev "+port, "addr add fd16::1/64 dev "+port,
			fmt.Sprintf("route add 10.0.0.0/24 via 172.16.0.2 dev %s table %d", port, 10001+i),
			fmt.Sprintf("route add fd00::/64 via fd16::2 dev %s table %d", port, 10001+i),
			fmt.Sprintf("route add unreachable default metric 4278198272 table %d", 10001+i),
			fmt.Sprintf("route add unreachable ::/0 metric 4278198272 table %d", 10001+i))
		if err := ns.Sysctl("net.ipv6.conf.up.keep_addr_on_down", "1"); err != nil {
			t.Fatal(err)
		}
		ns.MustIP("addr add 172.16.0.2/24 dev up", "addr add fd16::2/64 dev up", "addr add 10.0.0.5/32 dev lo", "addr add fd00::5/128 dev lo")
		sites[name] = newSite(t, ns, "[::]:80", nil)
		sites[name].do(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "served by "+name) })
	}
	p := startProber(t, gw)
	var want []probes.Config
	for _, name := range nets {
		source := icmpProbe(name+"/source", name, "10.0.0.5")
		source.Source = netip.MustParseAddr("172.16.0.1")
		want = append(want, source, icmpProbe(name+"/ping", name, "10.0.0.5", "fd00::5"),
			// The body proves that the answer came from this network's server.
			httpProbe(name+"/web", name, probes.HTTPConfig{Body: "served by " + name}, "http://10.0.0.5/", "http://[fd00::5]/"))
	}
	// Slow enough for an emulated machine on a busy one: what is up must stay up.
	for i := range want {
		want[i].Interval, want[i].AttemptTimeout = 300*time.Millisecond, time.Second
	}
	p.set(want...)
	all := []string{"/source", "/ping", "/web"}
	for _, name := range nets {
		for _, probe := range all {
			p.verdict(name+probe, probes.Up)
		}
	}

	for i, name := range nets {
		other := nets[1-i]
		before := map[string]probes.State{}
		for _, probe := range all {
			before[probe] = p.state(other + probe)
		}
		if err := far[name].SetLink("up", false); err != nil {
			t.Fatal(err)
		}
		for _, probe := range all {
			p.verdict(name+probe, probes.Down)
		}
		p.attempts(name+"/ping", 5)
		for _, probe := range all {
			if s := p.state(other + probe); s.Verdict != probes.Up || !s.Since.Equal(before[probe].Since) {
				t.Errorf("%s was cut, and %s%s was disturbed: %+v", name, other, probe, s)
			}
		}
		if err := far[name].SetLink("up", true); err != nil {
			t.Fatal(err)
		}
		// Carrier loss took the routes through it away.
		port := fmt.Sprintf("eth%d", i+1)
		gw.MustIP(fmt.Sprintf("route replace 10.0.0.0/24 via 172.16.0.2 dev %s table %d", port, 10001+i),
			fmt.Sprintf("route replace fd00::/64 via fd16::2 dev %s table %d", port, 10001+i))
		for _, probe := range all {
			p.verdict(name+probe, probes.Up)
		}
	}

	// A VRF without a route says so at once; the other goes on.
	gw.MustIP("route del 10.0.0.0/24 table 10001")
	p.verdict("red/source", probes.Down, "no route to host")
	p.verdict("red/web", probes.Down, "no route to host")
	// A VRF that is deleted and made again is found again.
	gw.MustIP("link del blue")
	p.verdict("blue/ping", probes.Down, `bind to device "blue": no such device`)
	gw.MustIP("link add blue type vrf table 10002", "link set blue up", "link set eth2 master blue",
		"addr replace fd16::1/64 dev eth2",
		"route replace 10.0.0.0/24 via 172.16.0.2 dev eth2 table 10002", "route replace fd00::/64 via fd16::2 dev eth2 table 10002")
	p.verdict("blue/ping", probes.Up)
	p.verdict("blue/web", probes.Up)
}

// TestDetectionInAVRF measures how soon a silent far side is noticed, the link
// staying up.
func TestDetectionInAVRF(t *testing.T) {
	lab.Require(t, lab.VRF)
	l := lab.New(t)
	gw, far := l.MustNamespace("gw"), l.MustNamespace("far")
	l.MustLink(gw, "eth1", far, "up")
	gw.MustIP("link add red type vrf table 10001", "link set red up", "link set eth1 master red", "addr add 172.16.0.1/24 dev eth1")
	far.MustIP("addr add 172.16.0.2/24 dev up")
	c := icmpProbe("red/ping", "red", "172.16.0.2")
	c.Interval, c.AttemptTimeout, c.Rise, c.Fall = 300*time.Millisecond, 300*time.Millisecond, 3, 2
	p := startProber(t, gw)
	p.set(c)
	for range 5 {
		p.verdict("red/ping", probes.Up)
		cut := time.Now()
		if err := far.Sysctl("net.ipv4.icmp_echo_ignore_all", "1"); err != nil {
			t.Fatal(err)
		}
		p.verdict("red/ping", probes.Down)
		t.Logf("down %v after the far side fell silent", p.state("red/ping").Since.Sub(cut).Round(time.Millisecond))
		if err := far.Sysctl("net.ipv4.icmp_echo_ignore_all", "0"); err != nil {
			t.Fatal(err)
		}
	}
}
