package lab

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Outputs of FRR 8.4.4 and BIRD 2.0.12, shortened.
const (
	frrBFDPeers = `[{"multihop":false,"peer":"fe80::ff:fe00:1","local":"fe80::ff:fe00:2","vrf":"default","interface":"u0","id":1,"remote-id":2,
 "passive-mode":false,"status":"up","uptime":7,"diagnostic":"ok","remote-diagnostic":"ok","receive-interval":80,"transmit-interval":80,
 "detect-multiplier":3,"remote-receive-interval":50,"remote-transmit-interval":50,"remote-detect-multiplier":3},
 {"multihop":true,"peer":"172.16.0.1","local":"10.0.0.5","vrf":"default","status":"down","downtime":1,
 "diagnostic":"neighbor signaled session down","remote-diagnostic":"administratively down"}]`
	birdBFDSessions = `bfd1:
IP address                Interface  State      Since         Interval  Timeout
172.16.0.1                u0         Up         23:35:14.218    0.080    0.240
fd16::1                   ---        Down       2026-11-25 23:35:14  1.000    0.000
`
)

func TestParseBFD(t *testing.T) {
	got, err := parseFRRBFD([]byte(frrBFDPeers))
	want := []BFDSession{
		{Peer: netip.MustParseAddr("fe80::ff:fe00:1"), Device: "u0", State: "Up", Diag: "ok", RemoteDiag: "ok",
			RemoteTx: 50 * time.Millisecond, RemoteRx: 50 * time.Millisecond, Uptime: 7},
		{Peer: netip.MustParseAddr("172.16.0.1"), Multihop: true, State: "Down", Diag: "neighbor signaled session down", RemoteDiag: "administratively down"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("FRR: %+v, %v", got, err)
	}
	got, err = parseBIRDBFD(birdBFDSessions)
	want = []BFDSession{
		{Peer: netip.MustParseAddr("172.16.0.1"), Device: "u0", State: "Up", Since: "23:35:14.218", Interval: 80 * time.Millisecond, Timeout: 240 * time.Millisecond},
		{Peer: netip.MustParseAddr("fd16::1"), Device: "---", Multihop: true, State: "Down", Since: "2026-11-25 23:35:14", Interval: time.Second},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("BIRD: %+v, %v", got, err)
	}
	for _, bad := range []string{"nonsense u0 Up 1 2 3", "10.0.0.1 u0 Up 1 two 3"} {
		if _, err := parseBIRDBFD(bad); err == nil {
			t.Errorf("parsed %q", bad)
		}
	}
	if _, err := parseFRRBFD([]byte(`[{"peer":"10.0.0.1","status":"sideways"}]`)); err == nil {
		t.Error("parsed an unknown status")
	}
}

func TestBFDConfig(t *testing.T) {
	c := RouterConfig{ASN: 65001, RouterID: netip.MustParseAddr("10.0.0.1"), BFD: []RouterBFD{
		{Peer: netip.MustParseAddr("fe80::1%eth1"), Local: netip.MustParseAddr("fe80::2%eth1"), Device: "u0", Interval: 50 * time.Millisecond},
		{Peer: netip.MustParseAddr("10.0.0.1"), Local: netip.MustParseAddr("10.0.0.2"), Multihop: true, MinTTL: 250, Interval: 80 * time.Millisecond, Mult: 5,
			Passive: true, PasswordAlgo: "keyed sha1", Password: "secret"},
	}}
	for name, want := range map[string][]string{
		c.frrBFD(): {" peer fe80::1 local-address fe80::2 interface u0\n  detect-multiplier 3\n  receive-interval 50\n  transmit-interval 50\n exit\n",
			" peer 10.0.0.1 multihop local-address 10.0.0.2\n  detect-multiplier 5\n  receive-interval 80\n  transmit-interval 80\n  minimum-ttl 250\n  passive-mode\n exit\n"},
		c.BIRD(): {"  interface \"u0\" { interval 50 ms; idle tx interval 1 s; multiplier 3; passive no; };\n",
			"  multihop { interval 80 ms; idle tx interval 1 s; multiplier 5; passive yes; authentication keyed sha1; password \"secret\" { id 1; }; };\n",
			"  neighbor fe80::1 dev \"u0\" local fe80::2;\n  neighbor 10.0.0.1 local 10.0.0.2 multihop yes;\n"},
	} {
		for _, text := range want {
			if !strings.Contains(name, text) {
				t.Errorf("%s\nlacks\n%s", name, text)
			}
		}
	}
	c.BFD = nil
	if strings.Contains(c.BIRD(), "bfd") {
		t.Error("BIRD has BFD without sessions")
	}
}
