package probes_test

import (
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

func neighbourProbe(name, device string, targets ...string) probes.Config {
	c := icmpProbe(name, device, targets...)
	c.Type = probes.ARPND
	return c
}

// TestNeighbours: presence on the link is asked for, whatever the target does
// above it, and the kernel's neighbour cache plays no part.
func TestNeighbours(t *testing.T) {
	n := newPair(t)
	testNeighbours(t, n.gw, n.far, "g0", "g0", "f0")
}

// TestNeighboursInAVRF asks on a port of a VRF.
func TestNeighboursInAVRF(t *testing.T) {
	lab.Require(t, lab.VRF)
	l := lab.New(t)
	gw, far := l.MustNamespace("gw"), l.MustNamespace("far")
	l.MustLink(gw, "eth1", far, "up")
	gw.MustIP("link add red type vrf table 10001", "link set red up", "link set eth1 master red",
		"addr add 10.0.0.1/24 dev eth1", "addr add fd00::1/64 dev eth1")
	far.MustIP("addr add 10.0.0.5/24 dev up", "addr add fd00::5/64 dev up")
	if err := far.Sysctl("net.ipv6.conf.up.keep_addr_on_down", "1"); err != nil {
		t.Fatal(err)
	}
	testNeighbours(t, gw, far, "eth1", "red", "up")
}

// testNeighbours asks for 10.0.0.5 and fd00::5.
func testNeighbours(t *testing.T, gw, far *lab.NS, port, vrf, uplink string) {
	t.Helper()
	for _, key := range []string{"net.ipv4.icmp_echo_ignore_all", "net.ipv6.icmp.echo_ignore_all"} {
		if err := far.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	p := startProber(t, gw)
	p.set(neighbourProbe("four", port, "10.0.0.5"), neighbourProbe("six", port, "fd00::5"), icmpProbe("ping", vrf, "10.0.0.5"),
		neighbourProbe("absent", port, "10.0.0.99", "fd00::99"), neighbourProbe("lo", "lo", "127.0.0.5"), neighbourProbe("device", "g7", "10.0.0.5"))
	up := func() {
		t.Helper()
		p.verdict("four", probes.Up)
		p.verdict("six", probes.Up)
	}
	up()
	p.verdict("ping", probes.Down)
	p.verdict("absent", probes.Down, "no answer within 300ms: no ARP reply", "no answer within 300ms: no neighbour advertisement")
	p.verdict("device", probes.Down, `bind to device "g7": no such device`)
	p.verdict("lo", probes.Down)

	// A wrong entry in the cache does not matter, and asking does not change it.
	gw.MustIP("neigh replace 10.0.0.5 lladdr 02:00:00:00:00:99 nud permanent dev "+port,
		"neigh replace fd00::5 lladdr 02:00:00:00:00:99 nud permanent dev "+port)
	p.attempts("four", 5)
	p.attempts("six", 5)
	up()

	// The neighbour moves to another link-layer address: no failure.
	before := p.state("four").Targets[0].Since
	far.MustIP("link set dev " + uplink + " address 02:00:00:00:00:55")
	p.attempts("four", 5)
	if s := p.state("four"); s.Verdict != probes.Up || !s.Targets[0].Since.Equal(before) {
		t.Errorf("after a new link-layer address: %+v", s)
	}

	if err := far.SetLink(uplink, false); err != nil {
		t.Fatal(err)
	}
	p.verdict("four", probes.Down)
	p.verdict("six", probes.Down)
	if err := far.SetLink(uplink, true); err != nil {
		t.Fatal(err)
	}
	up()
}
