package probes_test

import (
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
)

// TestRecreatedDevice: a device that was deleted and made again, with another
// index, is found by every kind of wire, also when its name was another's
// meanwhile.
func TestRecreatedDevice(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t)
	gw, far := l.MustNamespace("gw"), l.MustNamespace("far")
	link := func() {
		t.Helper()
		l.MustLink(gw, "g0", far, "f0")
		gw.MustIP("addr add 10.0.0.1/24 dev g0", "addr add fd00::1/64 dev g0")
		far.MustIP("addr add 10.0.0.5/24 dev f0", "addr add fd00::5/64 dev f0")
	}
	link()
	p := startProber(t, gw)
	names := []string{"ping", "ping6", "arp", "nd"}
	p.set(icmpProbe("ping", "g0", "10.0.0.5"), icmpProbe("ping6", "g0", "fd00::5"),
		neighbourProbe("arp", "g0", "10.0.0.5"), neighbourProbe("nd", "g0", "fd00::5"))
	all := func(want probes.Verdict, texts ...string) {
		t.Helper()
		for _, name := range names {
			p.verdict(name, want, texts...)
		}
	}
	all(probes.Up)
	gw.MustIP("link del g0")
	all(probes.Down, `bind to device "g0": no such device`)
	link()
	all(probes.Up)
	// The name moves to a device without a way to the target.
	gw.MustIP("link set g0 down", "link set g0 name gone", "link add g0 type veth peer name g0p", "link set g0 up", "link set g0p up")
	all(probes.Down)
	gw.MustIP("link del g0", "link set gone name g0", "link set g0 up", "addr replace fd00::1/64 dev g0")
	all(probes.Up)
}
