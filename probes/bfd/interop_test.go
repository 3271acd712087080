package bfd_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

const (
	ourMAC, farMAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
	ourLinkLocal   = "fe80::ff:fe00:1"
	farLinkLocal   = "fe80::ff:fe00:2"
)

var daemons = map[string]func(*lab.NS, lab.RouterConfig) (*lab.Router, error){"frr": lab.StartFRR, "bird": lab.StartBIRD}

var requirements = map[string]lab.Feature{"frr": lab.FRR, "bird": lab.BIRD}

// network is a neighbour behind a port of the gateway, in a VRF of its own
// where the kernel has VRFs. All networks have the same addresses.
type network struct {
	t      testing.TB
	far    *lab.NS
	device string // that sockets are bound to: the VRF, or the port
	port   string
	router *lab.Router
}

// newGateway is a namespace with a server of sessions.
func newGateway(t testing.TB, neighbours ...string) (*lab.Lab, *lab.NS, *speaker) {
	t.Helper()
	features := []lab.Feature{lab.Root}
	for _, d := range neighbours {
		features = append(features, requirements[d])
	}
	lab.Require(t, features...)
	l := lab.New(t)
	gw := l.MustNamespace("gw")
	if err := gw.Sysctl("net.ipv6.conf.all.forwarding", "1"); err != nil {
		t.Fatal(err)
	}
	return l, gw, startSpeaker(t, l, gw)
}

func connect(t testing.TB, l *lab.Lab, gw *lab.NS, name string, number int) *network {
	t.Helper()
	n := &network{t: t, far: l.MustNamespace(name), port: fmt.Sprintf("eth%d", number)}
	n.device = n.port
	table := ""
	l.MustLink(gw, n.port, n.far, "u0")
	if lab.Check(lab.VRF) == nil {
		n.device, table = name, fmt.Sprintf(" table %d", 100+number)
		gw.MustIP("link add "+name+" type vrf"+table, "link set "+name+" up", "link set "+n.port+" master "+name)
	}
	if err := n.far.Sysctl("net.ipv6.conf.u0.keep_addr_on_down", "1"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		ns                *lab.NS
		device, mac, last string
	}{{gw, n.port, ourMAC, "1"}, {n.far, "u0", farMAC, "2"}} {
		end.ns.MustIP("link set "+end.device+" down", "link set "+end.device+" address "+end.mac, "link set "+end.device+" up",
			"addr add 172.16.0."+end.last+"/24 dev "+end.device, "addr add fd16::"+end.last+"/64 dev "+end.device+" nodad")
	}
	// What lies beyond: an address of the router itself.
	n.far.MustIP("addr add 10.0.0.5/32 dev lo", "addr add fd00::5/128 dev lo nodad")
	gw.MustIP("route append 10.0.0.0/24 via 172.16.0.2 dev "+n.port+table, "route append fd00::/64 via fd16::2 dev "+n.port+table)
	return n
}

// sessions are all kinds of them: one hop and several, both families, and
// link-local addresses.
func (n *network) sessions() []bfd.Config {
	list := []bfd.Config{
		session("four", n.device, "172.16.0.1", "172.16.0.2"),
		session("six", n.device, "fd16::1", "fd16::2"),
		session("local", n.device, ourLinkLocal+"%"+n.port, farLinkLocal+"%"+n.port),
		session("far4", n.device, "172.16.0.1", "10.0.0.5"),
		session("far6", n.device, "fd16::1", "fd00::5"),
	}
	list[3].Multihop, list[4].Multihop = true, true
	for i := range list {
		list[i].Name = n.far.Name + "/" + list[i].Name
	}
	return list
}

func names(sessions []bfd.Config) []string {
	var list []string
	for _, c := range sessions {
		list = append(list, c.Name)
	}
	return list
}

func address(s string) netip.Addr { return netip.MustParseAddr(s) }

// patience is the multiplier on both sides: above a second at 80 ms, since
// machines that run tests are kept waiting, and so are FRR and BIRD on them.
const patience = 15

// session is a Config with 50 ms.
func session(name, device, local, peer string) bfd.Config {
	return bfd.Config{Name: name, Device: device, Local: address(local), Peer: address(peer),
		DesiredMinTx: 50 * time.Millisecond, RequiredMinRx: 50 * time.Millisecond, DetectMult: patience}
}

// start runs the router, with the other ends of these sessions at 80 ms.
func (n *network) start(kind string, passive bool, sessions []bfd.Config) {
	n.t.Helper()
	var ends []lab.RouterBFD
	for _, s := range sessions {
		ends = append(ends, theirEnd(s, passive))
	}
	n.run(kind, ends...)
}

func (n *network) run(kind string, ends ...lab.RouterBFD) {
	n.t.Helper()
	c := lab.RouterConfig{ASN: 65001, RouterID: address("172.16.0.2"), BFD: ends}
	var err error
	if n.router, err = daemons[kind](n.far, c); err != nil {
		n.t.Fatal(err)
	}
}

// theirInterval is what FRR and BIRD want.
const theirInterval = 80 * time.Millisecond

func theirEnd(c bfd.Config, passive bool) lab.RouterBFD {
	return lab.RouterBFD{Peer: c.Local, Local: c.Peer, Device: "u0", Multihop: c.Multihop, Interval: theirInterval, Mult: patience, Passive: passive}
}

// theirs waits until the router sees a session so.
func (n *network) theirs(c bfd.Config, what string, ok func(lab.BFDSession) bool) lab.BFDSession {
	n.t.Helper()
	var s lab.BFDSession
	lab.Eventually(n.t, 2*time.Minute, fmt.Sprintf("%s sees %s %s", n.router.Kind, c.Name, what), func() (err error) {
		if s, err = n.router.BFDSession(c.Local, c.Multihop); err == nil && !ok(s) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	return s
}

func (n *network) theyAre(state string, sessions ...bfd.Config) {
	n.t.Helper()
	for _, c := range sessions {
		n.theirs(c, state, func(s lab.BFDSession) bool { return s.State == state })
	}
}
