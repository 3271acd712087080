package lab

import (
	"bufio"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab/golden"
)

// Outputs of FRR 8.4.4 and BIRD 2.0.12, shortened.
const (
	frrRoutes = `{
 "vrfId": 0, "routerId": "192.0.2.1", "localAS": 65001,
 "routes": { "fd00:1::/64": [{"valid":true,"bestpath":true,"peerId":"(unspec)","nexthops":[{"ip":"::","hostname":"vm","afi":"ipv6","scope":"global","used":true}]}]
,"fd00:2::/64": [{"valid":true,"bestpath":true,"peerId":"fd00:16::2","nexthops":[{"ip":"fd00:16::2","afi":"ipv6","scope":"global"},{"ip":"fe80::485:fcff:fef7:f0aa","afi":"ipv6","scope":"link-local","used":true}]}]
,"10.2.0.0/24": [{"valid":true,"multipath":true,"nexthops":[{"ip":"172.16.0.2","afi":"ipv4","used":true}]},{"valid":true,"bestpath":true,"nexthops":[{"ip":"172.16.0.6","afi":"ipv4","used":true}]}]
,"10.3.0.0/24": [{"nexthops":[{"ip":"172.16.0.2","afi":"ipv4"}]}]
 }  }`
	frrFiltered = `{
  "bgpTableVersion":2,
  "receivedRoutes":{
    "10.3.0.0/24":{ "addrPrefix":"10.3.0.0", "prefixLen":24, "network":"10.3.0.0/24", "nextHop":"172.16.0.2" }
  },
  "totalPrefixCounter":1,
  "filteredPrefixCounter":0
}`
	frrNeighbor = `{ "172.16.0.2":{ "remoteAs":65002, "bgpState":"Established", "hostname":"x" } }`

	birdRoutes = `BIRD 2.0.12 ready.
Table master4:
10.1.0.0/24          unicast [peer4_0 22:48:27.274] * (100) [AS65001i]
	via 172.16.0.1 on eth0
                     unicast [peer4_1 22:48:27.274] (100s) [AS65001i]
	via 172.16.0.5 on eth1
10.2.0.0/24          unreachable [peer4_0 22:48:27.274] * (100) [AS65001i]
`
	birdProtocols = `BIRD 2.0.12 ready.
Name       Proto      Table      State  Since         Info
kernel4    Kernel     master4    up     22:48:25.199  
  Channel ipv4
    State:          UP

peer4_0    BGP        ---        up     22:48:26.123  Established   
  BGP state:          Established
    Neighbor address: 172.16.0.1
    Neighbor AS:      65001
    Neighbor capabilities
      Hostname: vm

peer6_0    BGP        ---        start  22:48:26.119  Connect       
  BGP state:          Connect
    Neighbor address: fd00:16::1
    Last error:       Socket: Connection refused
peer6_1    BGP        ---        down   22:48:26.119
  BGP state:          Down
    Neighbor address: fd00:16::9
`
)

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func TestParseFRR(t *testing.T) {
	routes, err := parseFRRRoutes([]byte(frrRoutes))
	want := map[netip.Prefix][]netip.Addr{
		netip.MustParsePrefix("fd00:2::/64"): addrs("fd00:16::2"),
		netip.MustParsePrefix("10.2.0.0/24"): addrs("172.16.0.2", "172.16.0.6"),
	}
	if err != nil || !reflect.DeepEqual(routes, want) {
		t.Errorf("routes %v, %v, want %v", routes, err, want)
	}
	filtered, err := parseFRRFiltered([]byte(frrFiltered))
	if err != nil || !slices.Equal(filtered, []netip.Prefix{netip.MustParsePrefix("10.3.0.0/24")}) {
		t.Errorf("filtered %v, %v", filtered, err)
	}
	if state, err := parseFRRState([]byte(frrNeighbor), addrs("172.16.0.2")[0]); err != nil || state != "Established" {
		t.Errorf("state %q, %v", state, err)
	}
	if _, err := parseFRRState([]byte(frrNeighbor), addrs("172.16.0.3")[0]); err == nil {
		t.Error("an unknown neighbor has a state")
	}
	if _, err := parseFRRRoutes([]byte("% BGP instance not found")); err == nil {
		t.Error("a message is taken for routes")
	}
}

func TestParseBIRD(t *testing.T) {
	routes, err := parseBIRDRoutes(birdRoutes)
	want := map[netip.Prefix][]netip.Addr{
		netip.MustParsePrefix("10.1.0.0/24"): addrs("172.16.0.1", "172.16.0.5"),
		netip.MustParsePrefix("10.2.0.0/24"): nil,
	}
	if err != nil || !reflect.DeepEqual(routes, want) {
		t.Errorf("routes %v, %v, want %v", routes, err, want)
	}
	for peer, state := range map[string]string{"172.16.0.1": "Established", "fd00:16::1": "Connect", "fd00:16::9": "Idle"} {
		if got, err := parseBIRDState(birdProtocols, netip.MustParseAddr(peer)); err != nil || got != state {
			t.Errorf("state of %s = %q, %v, want %q", peer, got, err, state)
		}
	}
	if _, err := parseBIRDState(birdProtocols, addrs("172.16.0.3")[0]); err == nil {
		t.Error("an unknown neighbor has a state")
	}
	for _, text := range []string{"no such table", "\tvia 172.16.0.1 on eth0\n", "10.0.0.0/24 unicast\n\tvia nobody\n"} {
		if routes, err := parseBIRDRoutes(text); err == nil {
			t.Errorf("%q gives %v", text, routes)
		}
	}
}

func FuzzParseRouters(f *testing.F) {
	for _, text := range []string{frrRoutes, frrFiltered, frrNeighbor, birdRoutes, birdProtocols} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		peer := netip.MustParseAddr("172.16.0.2")
		_, _, _ = readVTYReply(bufio.NewReader(strings.NewReader(text)))
		_, _ = readBIRDReply(bufio.NewReader(strings.NewReader(text)))
		_, _ = parseFRRState([]byte(text), peer)
		_, _ = parseFRRFiltered([]byte(text))
		_, _ = parseBIRDState(text, peer)
		fromFRR, _ := parseFRRRoutes([]byte(text))
		fromBIRD, _ := parseBIRDRoutes(text)
		for _, routes := range []map[netip.Prefix][]netip.Addr{fromFRR, fromBIRD} {
			for _, hops := range routes {
				if slices.Contains(hops, netip.Addr{}) {
					t.Errorf("%q: a next hop without an address", text)
				}
			}
		}
	})
}

func TestRouterConfigs(t *testing.T) {
	c := RouterConfig{
		ASN: 65001, RouterID: addrs("192.0.2.1")[0],
		Peers:    []RouterPeer{{Address: addrs("172.16.0.1")[0], ASN: 64512, Password: "secret"}, {Address: addrs("fd00:16::1")[0], ASN: 64512}},
		Announce: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		Accept:   []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28"), netip.MustParsePrefix("2001:db8:51::1/128")},
		HoldTime: 9 * time.Second, NoGracefulRestart: true,
	}
	for name, got := range map[string]string{"frr.conf": c.FRR(), "bird.conf": c.BIRD()} {
		golden.Check(t, name, got)
	}
}

// TestDaemonsAcceptConfigs lets the real parsers judge the golden files.
func TestDaemonsAcceptConfigs(t *testing.T) {
	Require(t, FRR, BIRD)
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	ns := New(t).MustNamespace("a")
	ns.Must("bird", "-p", "-c", filepath.Join(dir, "bird.conf"))
	// FRR reads the file as a user who may not enter every directory.
	text, err := os.ReadFile(filepath.Join(dir, "frr.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(ns.Path("/run/frr.conf"), string(text)); err != nil {
		t.Fatal(err)
	}
	// It says what it does not understand, and exits with 0 all the same.
	dryRun := frrDir + "/bgpd --dryrun -f /run/frr.conf 2>&1"
	if out := ns.Must("sh", "-c", dryRun); strings.Contains(out, "on config line") {
		t.Errorf("bgpd says: %s", out)
	}
	ns.Must("sh", "-c", "echo nonsense >> /run/frr.conf")
	if out := ns.Must("sh", "-c", dryRun); !strings.Contains(out, "No such command on config line") {
		t.Errorf("bgpd says about nonsense: %q", out)
	}
}

func TestDialogs(t *testing.T) {
	text, result, err := readVTYReply(bufio.NewReader(strings.NewReader("line 1\nline 2\n\x00\x00\x00\x02more")))
	if err != nil || text != "line 1\nline 2\n" || result != 2 {
		t.Errorf("reply of FRR: %q, %d, %v", text, result, err)
	}
	if text, _, err := readVTYReply(bufio.NewReader(strings.NewReader("cut off\x00\x00"))); err == nil {
		t.Errorf("half a reply of FRR: %q", text)
	}
	for reply, want := range map[string]string{
		"0001 BIRD 2.0.12 ready.\n":                              "BIRD 2.0.12 ready.\n",
		"1007-Table master4:\n 10.0.0.0/24 x\n \tvia y\n0000 \n": "Table master4:\n10.0.0.0/24 x\n\tvia y\n",
	} {
		if text, err := readBIRDReply(bufio.NewReader(strings.NewReader(reply))); err != nil || text != want {
			t.Errorf("reply of BIRD %q: %q, %v, want %q", reply, text, err, want)
		}
	}
	for _, reply := range []string{"9001 syntax error\n", "8003 No protocols match\n", "garbage\n", "1007-cut off\n", "10x7 a\n"} {
		if text, err := readBIRDReply(bufio.NewReader(strings.NewReader(reply))); err == nil {
			t.Errorf("reply of BIRD %q: %q", reply, text)
		}
	}
}
