package nat

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/golden"
	"github.com/gopacket/gopacket"
)

// flowConfig is overlapConfig with all its devices in a flowtable.
func flowConfig() Config {
	cfg := overlapConfig()
	cfg.FlowDevices = []string{"eth2", "eth0", "eth1"}
	return cfg
}

func TestFlowtableGolden(t *testing.T) {
	golden.Check(t, "flowtable.nft", Render(flowConfig()).String())
	edited := flowConfig()
	edited.FlowDevices = edited.FlowDevices[:2]
	golden.Check(t, "flowtable-edit.plan", Diff(Render(flowConfig()), Render(edited)).String())
	mustApply(t, Render(flowConfig()), Render(edited))
	mustApply(t, Render(overlapConfig()), Render(edited))
	mustApply(t, Render(edited), Render(overlapConfig()))
	rest, err := RemoveAllButGuards(Render(edited)).ApplyTo(Render(edited))
	if err != nil || len(rest.Flowtables) != 0 {
		t.Errorf("beside the guards is left %v, %v", rest.Flowtables, err)
	}
}

// A device's name in a listing is text, or a list when there are several.
func TestParseFlowtable(t *testing.T) {
	for listing, want := range map[string]Flowtable{
		`{"name": "x", "hook": "ingress", "prio": 0, "dev": "eth0"}`:                     {Devices: []string{"eth0"}},
		`{"name": "x", "hook": "ingress", "prio": 0, "dev": ["eth1", "eth0"]}`:           {Devices: []string{"eth0", "eth1"}},
		`{"name": "x", "hook": "ingress", "prio": 0}`:                                    {},
		`{"name": "x", "hook": "ingress", "prio": 5, "dev": "eth0", "flags": "offload"}`: {Devices: []string{"eth0"}, Odd: " hook ingress priority 5"},
		`{"name": "x", "hook": "ingress", "prio": 0, "dev": 5}`:                          {Odd: "5"},
	} {
		r, err := parseRuleset([]byte(`{"nftables": [{"table": {"name": "egret"}}, {"flowtable": ` + listing + `}]}`))
		if err != nil || !r.Flowtables["x"].equal(want) {
			t.Errorf("%s: %+v, %v", listing, r.Flowtables, err)
		}
	}
}

func TestKernelHasFlowtable(t *testing.T) {
	k := newKernelTable(t)
	var has bool
	k.do(func() (err error) { has, err = k.HasFlowtable(t.Context()); return err })
	if want := lab.Check(lab.Flowtable) == nil; has != want {
		t.Errorf("HasFlowtable says %t, the lab %t", has, want)
	}
	if out := k.ns.Must("nft", "list", "tables"); out != "" {
		t.Errorf("the check left %s", out)
	}
}

// The kernel gives a flowtable back as it was put, whatever happened to it in
// between.
func TestKernelFlowtable(t *testing.T) {
	lab.Require(t, lab.Nft, lab.Flowtable)
	k := newKernelTable(t)
	for _, dev := range []string{"eth0", "eth1", "eth2"} {
		k.ns.Must("ip", "link", "add", "name", dev, "type", "veth", "peer", "name", dev+"p")
	}
	cmd := k.ns.Command(t.Context(), "nft", "--check", "-f", "-")
	cmd.Stdin = strings.NewReader(Render(flowConfig()).String())
	if _, err := k.ns.RunCommand(cmd); err != nil {
		t.Error(err)
	}
	want := renderFew(flowConfig())
	k.become(want)
	less := flowConfig()
	less.FlowDevices = less.FlowDevices[:1]
	for _, damage := range []string{
		"flush chain inet egret fast_add; delete flowtable inet egret fast_path",
		"flush chain inet egret fast_add; delete flowtable inet egret fast_path; add flowtable inet egret fast_path { hook ingress priority 5; devices = { eth0, eth1, eth2 }; }",
		"add flowtable inet egret mine { hook ingress priority 0; devices = { eth1p }; }",
		"add rule inet egret fast_add accept",
		"delete table inet egret",
	} {
		if err := k.nft(damage); err != nil {
			t.Errorf("%s: %v", damage, err)
			continue
		}
		if k.become(want).Empty() {
			t.Errorf("not seen: %s", damage)
		}
	}
	k.become(renderFew(less))
	k.become(want)
	// With its device the flowtable loses it, and there is no having it back.
	k.ns.Must("ip", "link", "del", "eth1")
	if got := k.snapshot().Flowtables[flowtableFast].Devices; !slices.Equal(got, []string{"eth0", "eth2"}) {
		t.Errorf("the devices are %v", got)
	}
	k.do(func() error {
		if err := k.Apply(t.Context(), Diff(k.snapshot(), want)); err == nil {
			t.Error("a flowtable has a device that is not there")
		}
		return nil
	})
	k.become(renderFew(overlapConfig()))
}

func TestFlowtableTraffic(t *testing.T) {
	lab.Require(t, lab.Flowtable)
	w := newWorld(t)
	if err := w.gw.Sysctl("net.netfilter.nf_conntrack_acct", "1"); err != nil {
		t.Fatal(err)
	}
	// What the forward hook still sees.
	w.gw.Must("nft", "add table inet probe; add counter inet probe slow; add chain inet probe forward { type filter hook forward priority 20; }; add rule inet probe forward meta l4proto { tcp, udp } counter name slow")
	for _, step := range []struct {
		name string
		run  func(*world)
	}{
		{"Offload", offloadTraffic},
		{"Blackhole", blackholeTraffic},
		{"WrongPort", offloadWrongPortTraffic},
		{"Delete", deletedTraffic},
		{"Edit", offloadEditTraffic},
		{"NextHop", nextHopTraffic},
	} {
		t.Run(step.name, func(t *testing.T) {
			w.t, w.table.t = t, t
			w.become(flowConfig())
			step.run(w)
			w.become(flowConfig())
			w.settle()
		})
	}
}

// slow is the number of packets that passed the forward hook.
func (w *world) slow() int {
	w.t.Helper()
	var list struct {
		Nftables []struct{ Counter struct{ Packets int } }
	}
	if err := json.Unmarshal([]byte(w.gw.Must("nft", "-j", "list", "counter", "inet", "probe", "slow")), &list); err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, o := range list.Nftables {
		n += o.Counter.Packets
	}
	return n
}

// entry is conntrack's line on a flow.
func (w *world) entry(network string, f lab.Family, n int, srcPort uint16) string {
	w.t.Helper()
	return w.gw.Must("conntrack", "-L", "-f", string(f), "-p", network, "-s", client(f, n).String(), "--sport", fmt.Sprint(srcPort))
}

// counted are conntrack's packets of a flow, both ways.
func counted(entry string) (packets []int) {
	for field := range strings.FieldsSeq(entry) {
		if count, ok := strings.CutPrefix(field, "packets="); ok {
			n, _ := strconv.Atoi(count)
			packets = append(packets, n)
		}
	}
	return packets
}

// offloaded gives a flow of a client that has come into the flowtable.
func (w *world) offloaded(network string, f lab.Family, n int, srcPort uint16, server string) net.Conn {
	w.t.Helper()
	conn := w.flow(network, f, n, srcPort)
	w.again(network, conn, f, n, srcPort, server)
	return conn
}

// again waits until a flow is in the flowtable, perhaps once more.
func (w *world) again(network string, conn net.Conn, f lab.Family, n int, srcPort uint16, server string) {
	w.t.Helper()
	lab.Eventually(w.t, deadline, "offload", func() error {
		w.mustAsk(conn, server, pools[f])
		if line := w.entry(network, f, n, srcPort); !strings.Contains(line, "[OFFLOAD]") {
			return errors.New(line)
		}
		return nil
	})
}

// Flows of both networks with the same addresses and ports go by the flowtable,
// both ways, with the pool's addresses, and are counted.
func offloadTraffic(w *world) {
	for _, f := range lab.Families() {
		for _, network := range []string{"tcp", "udp"} {
			red, blue := w.offloaded(network, f, 10, 51000, "red"), w.offloaded(network, f, 11, 51000, "blue")
			before, slow := counted(w.entry(network, f, 10, 51000)), w.slow()
			for range 5 {
				w.mustAsk(red, "red", pools[f])
				w.mustAsk(blue, "blue", pools[f])
			}
			if n := w.slow() - slow; n != 0 {
				w.t.Errorf("%s over %s: %d packets passed the forward hook", network, f, n)
			}
			lab.Eventually(w.t, deadline, "conntrack to count", func() error {
				after := counted(w.entry(network, f, 10, 51000))
				if len(before) != 2 || len(after) != 2 || after[0]-before[0] < 5 || after[1]-before[1] < 5 {
					return fmt.Errorf("from %v to %v", before, after)
				}
				return nil
			})
		}
	}
}

// A rule that blocks the mark stops the flow with the next packet.
func blackholeTraffic(w *world) {
	const block = "rule %s pref 805 fwmark 0x10010000/0x1fff0000 blackhole"
	for _, f := range lab.Families() {
		option := map[lab.Family]string{lab.IPv6: "-6 "}[f]
		udp := w.offloaded("udp", f, 10, 51100, "red")
		tcp := w.offloaded("tcp", f, 10, 51100, "red")
		slow := w.slow()
		w.mustAsk(udp, "red", pools[f])
		w.mustAsk(tcp, "red", pools[f])
		if n := w.slow() - slow; n != 0 {
			w.t.Errorf("%s: %d packets passed the forward hook", f, n)
		}
		w.ip(w.gw, option+fmt.Sprintf(block, "add"))
		if got, err := ask(udp, silence); err == nil {
			w.t.Errorf("%s: udp passed the blackhole: %q", f, got)
		}
		if got, err := ask(tcp, silence); err == nil {
			w.t.Errorf("%s: tcp passed the blackhole: %q", f, got)
		}
		w.ip(w.gw, option+fmt.Sprintf(block, "del"))
		w.mustAsk(udp, "red", pools[f])
		w.offloaded("udp", f, 10, 51101, "red")
	}
}

// A flow whose route leads out of another network's port is stopped, as without
// the flowtable, and does not get into it again by that port.
func offloadWrongPortTraffic(w *world) {
	udp4, udp6 := w.offloaded("udp", lab.IPv4, 10, 51150, "red"), w.offloaded("udp", lab.IPv6, 10, 51150, "red")
	before := w.counter("guard_drops_blue")
	w.ip(w.gw, "route replace 10.0.0.0/24 via 172.16.0.2 dev eth2 table 10001", "-6 route replace fd00:10::/64 via fd00:16::2 dev eth2 table 10001")
	for range 3 {
		for f, conn := range map[lab.Family]net.Conn{lab.IPv4: udp4, lab.IPv6: udp6} {
			if got, err := ask(conn, silence); err == nil {
				w.t.Errorf("%s: %q", f, got)
			}
		}
	}
	if got := w.counter("guard_drops_blue") - before; got != 6 {
		w.t.Errorf("blue's guard dropped %d packets, want 6", got)
	}
	w.ip(w.gw, "route replace 10.0.0.0/24 via 172.16.0.2 dev eth1 table 10001", "-6 route replace fd00:10::/64 via fd00:16::2 dev eth1 table 10001")
	w.again("udp", udp4, lab.IPv4, 10, 51150, "red")
	w.again("udp", udp6, lab.IPv6, 10, 51150, "red")
}

// Without its conntrack entry a flow leaves the flowtable: a datagram begins it
// anew, and a connection is reset.
func deletedTraffic(w *world) {
	for _, f := range lab.Families() {
		udp, tcp := w.offloaded("udp", f, 10, 51200, "red"), w.offloaded("tcp", f, 10, 51200, "red")
		for _, network := range []string{"udp", "tcp"} {
			w.gw.Must("conntrack", "-D", "-f", string(f), "-p", network, "-s", client(f, 10).String(), "--sport", "51200")
		}
		lab.Eventually(w.t, deadline, "a new entry", func() error {
			w.mustAsk(udp, "red", pools[f])
			list, err := w.gw.Run("conntrack", "-L", "-f", string(f), "-p", "udp", "-s", client(f, 10).String(), "--sport", "51200")
			if err != nil || !strings.Contains(list, "51200") {
				return fmt.Errorf("%q, %v", list, err)
			}
			return nil
		})
		lab.Eventually(w.t, deadline, "a reset", func() error {
			if got, err := ask(tcp, deadline); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
	}
}

// Edits of the table do not reach what is offloaded; with the conntrack entry
// gone they do. Taking the flowtable away, or remaking it, loses nothing.
func offloadEditTraffic(w *world) {
	for _, f := range lab.Families() {
		udp, tcp := w.offloaded("udp", f, 10, 51300, "red"), w.offloaded("tcp", f, 10, 51300, "red")
		less := flowConfig()
		less.FlowDevices = less.FlowDevices[1:]
		for _, cfg := range []Config{less, overlapConfig(), flowConfig()} {
			w.become(cfg)
			w.mustAsk(udp, "red", pools[f])
			w.mustAsk(tcp, "red", pools[f])
		}
		drop := decided(Drop)
		drop.FlowDevices = flowConfig().FlowDevices
		w.become(drop)
		w.gw.Must("conntrack", "-D", "-f", string(f), "-p", "udp", "-s", client(f, 10).String(), "--sport", "51300")
		lab.Eventually(w.t, deadline, "the drop", func() error {
			if got, err := ask(udp, silence); err == nil {
				return errors.New(got)
			}
			return nil
		})
		if w.counter(counterDrop) == 0 {
			w.t.Error("nothing was counted as dropped")
		}
		w.become(flowConfig())
	}
}

// A flow moves with the group of next hops that its route has, without losing a
// datagram.
func nextHopTraffic(w *world) {
	second, cfg := w.secondPort()
	w.become(cfg)
	for i, f := range lab.Families() {
		option, first := []string{"", "-6 "}[i], 1+10*i
		prefix := []string{"10.0.0.0/24", "fd00:10::/64"}[i]
		via := []string{"172.16.0.2", "fd00:16::2"}[i]
		w.ip(w.gw, fmt.Sprintf("%snexthop add id %d via %s dev eth1", option, first, via),
			fmt.Sprintf("%snexthop add id %d via %s dev eth4", option, first+1, []string{"172.16.1.2", "fd00:17::2"}[i]),
			fmt.Sprintf("nexthop add id %d group %d", first+2, first),
			fmt.Sprintf("%sroute replace %s nhid %d table 10001", option, prefix, first+2))
		udp, tcp := w.offloaded("udp", f, 10, 51400, "red"), w.offloaded("tcp", f, 10, 51400, "red")
		for move := range 4 {
			seen := len(second.all())
			w.ip(w.gw, fmt.Sprintf("nexthop replace id %d group %d", first+2, first+(move+1)%2))
			for range 3 {
				w.mustAsk(udp, "red", pools[f])
				w.mustAsk(tcp, "red", pools[f])
			}
			came := slices.ContainsFunc(second.all()[seen:], func(p gopacket.Packet) bool {
				l := p.NetworkLayer()
				return l != nil && sourceOf(l).String() == pools[f] && destinationOf(l) == servers[f]
			})
			if came != (move%2 == 0) {
				w.t.Errorf("%s, move %d: it is %t that the flow came by the second port", f, move, came)
			}
			w.again("udp", udp, f, 10, 51400, "red")
		}
		w.ip(w.gw, fmt.Sprintf("%sroute replace %s via %s dev eth1 table 10001", option, prefix, via))
	}
	for _, p := range second.all() {
		if l := p.NetworkLayer(); l != nil && !allowedSource(sourceOf(l)) && sourceOf(l) != netip.MustParseAddr("172.16.1.1") && sourceOf(l) != netip.MustParseAddr("fd00:17::1") {
			w.t.Errorf("law 3: out of the second port came %s", p)
		}
	}
}

// secondPort gives red another link, and the configuration that has it.
func (w *world) secondPort() (*sniffer, Config) {
	w.t.Helper()
	w.lab.MustLink(w.red, "r1", w.gw, "eth4")
	w.ip(w.gw, "link set eth4 master red", "addr add 172.16.1.1/30 dev eth4", "addr add fd00:17::1/64 dev eth4 nodad")
	w.ip(w.red, "addr add 172.16.1.2/30 dev r1", "addr add fd00:17::2/64 dev r1 nodad")
	cfg := flowConfig()
	cfg.Networks[0].Ports = append(cfg.Networks[0].Ports, "eth4")
	cfg.Networks[0].Own = append(cfg.Networks[0].Own, addrs("172.16.1.1", "fd00:17::1")...)
	cfg.FlowDevices = append(cfg.FlowDevices, "eth4")
	return w.sniff(w.red, "r1"), cfg
}
