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

// neighbour is a real router one hop away, and one more address of it that is
// two hops away, behind a middle.
type neighbour struct {
	t      *testing.T
	l      *lab.Lab
	gw     *lab.NS
	far    *lab.NS
	device string // the VRF
	port   string
	router *lab.Router
	s      *speaker
}

var daemons = map[string]func(*lab.NS, lab.RouterConfig) (*lab.Router, error){"frr": lab.StartFRR, "bird": lab.StartBIRD}

var requirements = map[string]lab.Feature{"frr": lab.FRR, "bird": lab.BIRD}

// newGateway is a namespace with a server of sessions.
func newGateway(t *testing.T, daemons ...string) (*lab.Lab, *lab.NS, *speaker) {
	t.Helper()
	features := []lab.Feature{lab.VRF}
	for _, d := range daemons {
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

// connect puts a namespace behind a port of the gateway, in a VRF of this name.
// All have the same addresses.
func connect(l *lab.Lab, gw *lab.NS, vrf string, number int) *lab.NS {
	far, port := l.MustNamespace(vrf), fmt.Sprintf("eth%d", number)
	l.MustLink(gw, port, far, "u0")
	gw.MustIP(fmt.Sprintf("link add %s type vrf table %d", vrf, 100+number), "link set "+vrf+" up", "link set "+port+" master "+vrf)
	for _, end := range []struct {
		ns                           *lab.NS
		device, mac, linkLocal, last string
	}{{gw, port, ourMAC, ourLinkLocal, "1"}, {far, "u0", farMAC, farLinkLocal, "2"}} {
		end.ns.MustIP("link set "+end.device+" down", "link set "+end.device+" address "+end.mac, "link set "+end.device+" up")
		end.ns.MustIP("addr add 172.16.0."+end.last+"/24 dev "+end.device, "addr add fd16::"+end.last+"/64 dev "+end.device+" nodad")
	}
	return far
}

func address(s string) netip.Addr { return netip.MustParseAddr(s) }

// session is a Config with 50 ms x 3.
func session(name, device, local, peer string) bfd.Config {
	return bfd.Config{Name: name, Device: device, Local: address(local), Peer: address(peer),
		DesiredMinTx: 50 * time.Millisecond, RequiredMinRx: 50 * time.Millisecond, DetectMult: 3}
}

// routerBFD is the other end of a Config.
func routerBFD(c bfd.Config, d time.Duration) lab.RouterBFD {
	return lab.RouterBFD{Peer: c.Local, Local: c.Peer, Device: "u0", Multihop: c.Multihop, Interval: d}
}

func startRouter(t *testing.T, kind string, ns *lab.NS, sessions ...lab.RouterBFD) *lab.Router {
	t.Helper()
	r, err := daemons[kind](ns, lab.RouterConfig{ASN: 65001, RouterID: address("172.16.0.2"), BFD: sessions})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// theirs waits until the router sees a session in a state.
func theirs(t *testing.T, r *lab.Router, peer netip.Addr, what string, ok func(lab.BFDSession) bool) lab.BFDSession {
	t.Helper()
	var s lab.BFDSession
	lab.Eventually(t, 2*time.Minute, fmt.Sprintf("%s sees %s %s", r.Kind, peer, what), func() (err error) {
		if s, err = r.BFDSession(peer); err == nil && !ok(s) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	return s
}

func theyAreUp(t *testing.T, r *lab.Router, sessions ...bfd.Config) {
	t.Helper()
	for _, c := range sessions {
		theirs(t, r, c.Local, "up", func(s lab.BFDSession) bool { return s.State == "Up" })
	}
}
