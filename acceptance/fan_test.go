package acceptance

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
)

// fan is an Egret with four routers to choose from.
type fan struct {
	*lab.Fan
	running
	routers *carriers
	ports   uint16 // the last one given to a flow
}

// newFan builds the topology. Flows live longer than any step of a test takes
// on an emulated machine.
func newFan(t *testing.T, clients int) *fan {
	t.Helper()
	lab.Require(t, lab.Root, lab.VRF, lab.Nft, lab.Conntrack, lab.BIRD, lab.Flowtable)
	f := &fan{Fan: lab.MustFan(lab.New(t), lab.FanOptions{Clients: clients}), ports: 10000}
	f.running = running{t: t, host: &f.EgretHost}
	// A flow that leaves the flowtable lives on for the difference of the timeouts.
	for _, setting := range []string{"nf_conntrack_udp_timeout=3000", "nf_conntrack_udp_timeout_stream=3000", "nf_flowtable_udp_timeout=600", "nf_flowtable_tcp_timeout=600"} {
		f.Gateway.Must("sysctl", "-qw", "net.netfilter."+setting)
	}
	var err error
	if f.routers, err = watchRouters(f.Fan); err != nil {
		t.Fatal(err)
	}
	return f
}

// fanOptions are what tests vary of the standing configuration.
type fanOptions struct {
	noFlowtable bool
	onNoNextHop string
	// pools and policies replace the standing ones.
	pools, policies, bindings string
	// nextHopProbes replaces the standing one of red.
	nextHopProbes string
}

const (
	fanPool4 = "198.51.100.0/26"
	fanPool6 = "2001:db8:51::/122"
	fanPools = `
  - {name: red-pool, network: red, prefixes: [` + fanPool4 + `, "` + fanPool6 + `"]}
  - {name: blue-pool, network: blue, prefixes: [203.0.113.0/28, "2001:db8:113::/124"]}`
)

// everybody are all clients.
const everybody = `[10.244.0.0/16, "fd00:244::/32"]`

// config has probes that are slow to judge a next hop down; see options.config.
func (o fanOptions) config() string {
	policies := o.policies
	if policies == "" {
		policies = fmt.Sprintf(`
  - {name: all, clients: %s, rules: [%s]}`, everybody, fanRules("0.0.0.0/0", "::/0", "network: red, pool: red-pool, maxNextHops: 2", 0, 1, 2, 3))
	}
	pools, onNoNextHop := o.pools, o.onNoNextHop
	if pools == "" {
		pools = fanPools
	}
	if onNoNextHop == "" {
		onNoNextHop = "drop"
	}
	probes := o.nextHopProbes
	if probes == "" {
		probes = "{type: icmp, interval: 1s, fall: 6, rise: 1}"
	}
	bindings := ""
	if o.bindings != "" {
		bindings = "bindings:" + o.bindings
	}
	return fmt.Sprintf(`clients: {interfaces: [eth0], prefixes: [10.244.0.0/16, "fd00:244::/32"]}
networks:
  - name: red
    interfaces: [eth1]
    addresses: [172.16.0.1/24, "fd00:16::1/64"]
    onNoNextHop: %s
    bgp: {asn: 64512, peers: [{address: 172.16.0.11, asn: 65001}, {address: "fd00:16::11", asn: 65001}]}
    nextHopProbes: [%s]
  - name: blue
    interfaces: [eth2]
    addresses: [172.16.0.1/24, "fd00:16::1/64"]
    staticRoutes: [{prefix: 0.0.0.0/0, nextHops: [172.16.0.2]}, {prefix: "::/0", nextHops: ["fd00:16::2"]}]
pools:%s
policies:%s
%s
flowtable: %t
`, onNoNextHop, probes, pools, policies, bindings, !o.noFlowtable)
}

// fanRules are two rules, one for each family, by routers.
func fanRules(dest4, dest6, target string, routers ...int) string {
	return fmt.Sprintf(`{destination: %s, %s, nextHops: %s}, {destination: "%s", %s, nextHops: %s}`,
		dest4, target, lab.FanNextHops(lab.IPv4, routers...), dest6, target, lab.FanNextHops(lab.IPv6, routers...))
}

// boot starts the daemon and waits until all is up and told.
func (f *fan) boot(o fanOptions) {
	f.t.Helper()
	f.start(o.config())
	f.up()
}

// up waits until red forwards by all next hops, and is advertised.
func (f *fan) up() {
	f.t.Helper()
	f.wait(map[string]string{"red": "Up", "blue": "Up"})
	f.advertised(true)
}

// advertised waits until the first router has red's pools, or has none.
func (f *fan) advertised(want bool) {
	f.t.Helper()
	for _, p := range []string{fanPool4, fanPool6} {
		if err := f.BGP.WaitRoute(f.t.Context(), patience, netip.MustParsePrefix(p), want); err != nil {
			f.t.Fatal(err)
		}
	}
}

// usable waits until these routers, and no others, are usable next hops in both
// families, and nothing is left to change.
func (f *fan) usable(routers ...int) {
	f.t.Helper()
	want := map[netip.Addr]bool{}
	for _, family := range lab.Families() {
		for i := range f.Routers {
			want[lab.FanRouter(family, i)] = false
		}
		for _, i := range routers {
			want[lab.FanRouter(family, i)] = true
		}
	}
	lab.Eventually(f.t, patience, fmt.Sprintf("routers %v and no others usable", routers), func() error {
		n, err := f.network("red")
		if err != nil {
			return err
		}
		for _, h := range n.NextHops {
			if usable, known := want[h.Address]; known && usable != h.Usable {
				return fmt.Errorf("%s: usable %t: %s", h.Address, h.Usable, h.Reason)
			}
		}
		return nil
	})
	f.empty(fmt.Sprintf("with routers %v", routers))
}

// flow opens a flow with a source port that no other has.
func (f *fan) flow(family lab.Family, client int, tcp bool, dest string) *flow {
	f.t.Helper()
	f.ports++
	x, err := open(f.Client, lab.FanClient(family, client), netip.MustParseAddr(dest), tcp, f.ports)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Defer(func() error { x.close(); return nil })
	return x
}

// serverOf is the usual destination of a family.
func serverOf(f lab.Family) string {
	if f == lab.IPv4 {
		return lab.Server4
	}
	return lab.Server6
}

// entry is one conntrack entry.
type entry struct {
	id        string
	key       flowKey
	client    netip.Addr
	dest      netip.Addr
	replyTo   netip.Addr // the translated source
	offloaded bool
}

var entryFields = regexp.MustCompile(`^(?:ipv[46]\s+\d+\s+)?(tcp|udp)\s+.*?src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+).*?src=(\S+) dst=(\S+) sport=`)
var entryID = regexp.MustCompile(`\bid=(\d+)`)

// entries are the conntrack entries of flows from clients to servers' echo
// service.
func (f *fan) entries() map[flowKey]entry {
	f.t.Helper()
	out := map[flowKey]entry{}
	for _, family := range lab.Families() {
		text := f.Gateway.Must("conntrack", "-L", "-f", string(family), "-o", "id,extended")
		for line := range strings.SplitSeq(text, "\n") {
			m, id := entryFields.FindStringSubmatch(line), entryID.FindStringSubmatch(line)
			if m == nil || id == nil || m[5] != strconv.Itoa(lab.UDPPort) {
				continue
			}
			port, err := strconv.ParseUint(m[4], 10, 16)
			if err != nil {
				f.t.Fatal(err)
			}
			e := entry{id: id[1], client: netip.MustParseAddr(m[2]), dest: netip.MustParseAddr(m[3]), replyTo: netip.MustParseAddr(m[7]),
				key: flowKey{family == lab.IPv6, m[1] == "tcp", uint16(port)}, offloaded: strings.Contains(line, "[OFFLOAD]")}
			out[e.key] = e
		}
	}
	return out
}

// offloaded counts those of the flows that the flowtable carries.
func (f *fan) offloaded(flows []*flow) int {
	f.t.Helper()
	n := 0
	entries := f.entries()
	for _, x := range flows {
		if entries[x.key].offloaded {
			n++
		}
	}
	return n
}

// group is a next-hop group as ip(8) tells it.
type group struct {
	ID      uint32
	Members []uint32
}

// groups are the gateway's next-hop groups, and which next hops are blackholes.
func (f *fan) groups() (groups []group, blackholes map[uint32]bool) {
	f.t.Helper()
	var list []struct {
		ID    uint32                `json:"id"`
		Group []struct{ ID uint32 } `json:"group"`
	}
	text := f.Gateway.Must("ip", "-j", "nexthop", "show")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		f.t.Fatalf("%v in %s", err, text)
	}
	blackholes = map[uint32]bool{}
	lines := f.Gateway.Must("ip", "nexthop", "show")
	for line := range strings.SplitSeq(lines, "\n") {
		words := strings.Fields(line)
		if len(words) < 3 || words[2] != "blackhole" {
			continue
		}
		id, err := strconv.ParseUint(words[1], 10, 32)
		if err != nil {
			f.t.Fatal(err)
		}
		blackholes[uint32(id)] = true
	}
	for _, o := range list {
		if len(o.Group) == 0 {
			continue
		}
		g := group{ID: o.ID}
		for _, m := range o.Group {
			g.Members = append(g.Members, m.ID)
		}
		groups = append(groups, g)
	}
	return groups, blackholes
}
