package clustertest

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// packets matches a counter that has counted something.
var packets = regexp.MustCompile(`packets [1-9]`)

// TestCluster has agents on four nodes steer pods to the gateways of two of them.
func TestCluster(t *testing.T) {
	n := newNodes(t)
	for _, step := range []struct {
		name string
		run  func(*nodes)
	}{
		{"Pools", testPools}, {"OneNextHop", testOneNextHop}, {"Skip", testSkip}, {"Blocked", testBlocked},
		{"OnGatewayNode", testOnGatewayNode}, {"Inbound", testInbound}, {"Large", testLarge}, {"Restart", testRestart}, {"Drain", testDrain},
		{"Killed", testKilled}, {"Repair", testRepair},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			n.t = t
			step.run(n)
			// Who deletes the agent's table opens the normal way, until it is back.
			if out, err := n.Leaks(); err != nil || step.name != "Repair" && !strings.Contains(out, "packets 0 ") {
				t.Errorf("something left with the address of a pod: %v %s", err, out)
			}
		}) {
			break
		}
	}
}

// Flows of a pod are spread over both gateways, each with its own address.
func testPools(n *nodes) {
	for _, v6 := range []bool{false, true} {
		n.expect(0, 0, v6, false, 24, n.pools(v6, 2, 3)...)
		n.expect(1, 0, v6, false, 24, n.pools(v6, 2, 3)...)
	}
}

// With maxNextHops 1 a pod has one address.
func testOneNextHop(n *nodes) {
	for _, v6 := range []bool{false, true} {
		seen := n.seen(0, 1, v6, false, 16)
		if got := keys(seen); len(got) != 1 || !slices.Contains(n.pools(v6, 2, 3), got[0]) {
			n.t.Errorf("one next hop, but the server saw %v", seen)
		}
	}
}

// What a rule skips, and a pod without a policy, leaves as it always did.
func testSkip(n *nodes) {
	n.expect(0, 0, false, true, 3, n.Nodes[0].IP4())
	n.expect(0, 0, true, true, 3, n.Nodes[0].IP6())
	n.expect(2, 1, false, false, 3, n.Nodes[2].IP4())
	n.expect(2, 1, true, false, 3, n.Nodes[2].IP6())
}

// A pod that the agent does not know, and one that is blocked, reach other pods only.
func testBlocked(n *nodes) {
	n.refused(1, 1, "drop_unknown")
	n.refused(3, 0, "drop_blocked")
	for _, from := range [][2]int{{1, 1}, {3, 0}} {
		for _, v6 := range []bool{false, true} {
			if out, err := n.Nodes[from[0]].Pods[from[1]].Run("ping", "-c", "2", "-W", "5", n.Nodes[0].PodAddress(0, v6).String()); err != nil {
				n.t.Errorf("pod %v to another pod: %v\n%s", from, err, out)
			}
		}
	}
}

// Pods on a gateway's node use it through the loop, and the other one as others do.
func testOnGatewayNode(n *nodes) {
	for _, v6 := range []bool{false, true} {
		n.expect(2, 0, v6, false, 24, n.pools(v6, 2, 3)...)
		n.expect(3, 1, v6, false, 8, n.pools(v6, 3)...) // prefers the local one
	}
}

// Who asks from outside gets answers from where he asked, also of pods with a policy.
func testInbound(n *nodes) {
	pod := n.Nodes[0].Pods[0]
	var s *traffic.Server
	if err := pod.Do(func() (err error) {
		s, err = traffic.Listen(traffic.ServerConfig{Name: "pod", HTTP: lab.HTTPPort})
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	defer s.Close()
	// The outside may ask this pod: it has a route there for the time of this test.
	via := n.Nodes[0].IP4().String()
	n.Outside.MustIP("route add " + n.Nodes[0].Pods4().String() + " via " + via)
	n.Outside.Must("nft", "insert rule inet watch in iifname wan0 ip saddr "+n.Nodes[0].Pods4().String()+" accept")
	defer n.Outside.Must("nft", "delete rule inet watch in handle "+handleOf(n))
	defer n.Outside.MustIP("route del " + n.Nodes[0].Pods4().String() + " via " + via)
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	err := n.Outside.Do(func() error {
		_, err := traffic.FetchAnswer(ctx, netip.AddrPort{}, netip.AddrPortFrom(n.Nodes[0].PodAddress(0, false), lab.HTTPPort))
		return err
	})
	if err != nil {
		n.t.Errorf("from outside: %v", err)
	}
}

func handleOf(n *nodes) string {
	m := regexp.MustCompile(`iifname "wan0".*# handle (\d+)`).FindStringSubmatch(n.Outside.Must("nft", "-a", "list", "chain", "inet", "watch", "in"))
	if m == nil {
		n.t.Fatal("no rule for the test")
	}
	return m[1]
}

// dial opens connections of a pod until there is one through each of these gateways.
func (n *nodes) dial(node, pod int, v6 bool, gateways ...int) map[int]*traffic.Connection {
	n.t.Helper()
	out := map[int]*traffic.Connection{}
	to := netip.AddrPortFrom(server(v6, false).Addr(), lab.TCPPort)
	lab.Eventually(n.t, patience, "connections through each gateway", func() error {
		ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
		defer cancel()
		var c *traffic.Connection
		err := n.Nodes[node].Pods[pod].Do(func() (err error) {
			c, err = traffic.DialExchange(ctx, netip.AddrPort{}, to)
			return err
		})
		if err != nil {
			return err
		}
		for _, g := range gateways {
			if c.Server.Client.Addr() == n.pools(v6, g)[0] && out[g] == nil {
				kept := c
				out[g], c = kept, nil
				n.t.Cleanup(func() { kept.Close() })
				break
			}
		}
		if c != nil {
			c.Close()
		}
		if len(out) < len(gateways) {
			return fmt.Errorf("%d of %d", len(out), len(gateways))
		}
		return nil
	})
	return out
}

// Large packets fit, in both directions, through both gateways, the local one as well.
func testLarge(n *nodes) {
	line := strings.Repeat("0123456789abcdef", 3000) // the server takes lines below 64 kB
	for _, v6 := range []bool{false, true} {
		for _, node := range []int{0, 2} {
			for g, c := range n.dial(node, 0, v6, 2, 3) {
				for range 8 {
					if err := c.Exchange(line, patience); err != nil {
						n.t.Errorf("node%d through node%d, IPv6 %t: %v", node+1, g+1, v6, err)
						break
					}
				}
			}
		}
	}
}

// streams sends datagrams from a pod of a node, by both families, until stop: as many
// as an emulated processor can carry over ten hops each, beside everything else.
func (n *nodes) streams(node int) (stop func() []traffic.StreamReport) {
	n.t.Helper()
	_, stop = streamsOf(n.t, n.Nodes[node].Pods[0], 6, 60*time.Millisecond, false, true)
	return stop
}

// streamsOf sends datagrams from a pod to the server outside, until stop. The streams
// take turns with the families, where true is IPv6, and have begun to flow.
func streamsOf(t *testing.T, pod *lab.NS, count int, interval time.Duration, families ...bool) (streams []*traffic.Stream, stop func() []traffic.StreamReport) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	reports := make([]traffic.StreamReport, count)
	for i := range reports {
		var s *traffic.Stream
		err := pod.Do(func() (err error) {
			s, err = traffic.OpenStream(traffic.StreamOptions{Protocol: traffic.UDP, Interval: interval, Linger: 20 * time.Second,
				Dest: netip.AddrPortFrom(server(families[i%len(families)], false).Addr(), lab.UDPPort)})
			return err
		})
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		streams = append(streams, s)
		run.Go(func() { reports[i] = s.Run(ctx) })
		lab.Eventually(t, patience, "the stream to flow", func() error { return received(s, 1) })
	}
	return streams, func() []traffic.StreamReport {
		cancel()
		run.Wait()
		return reports
	}
}

// received says whether a stream has had so many answers.
func received(s *traffic.Stream, atLeast int) error {
	if n := s.Report().Received; n < atLeast {
		return fmt.Errorf("received %d of %d", n, atLeast)
	}
	return nil
}

// An agent that is killed leaves everything in place, and the next one changes nothing.
func testRestart(n *nodes) {
	stop := n.streams(0)
	n.agents[0].Kill9()
	n.expect(0, 0, false, false, 12, n.pools(false, 2, 3)...) // while nobody is there
	n.tell()                                                  // so that the report is the new agent's
	n.startAgent(0)
	n.settled()
	r, err := read[report](filepath.Join(n.dirs[0], "report.json"))
	if err != nil || r.Status.Round.Operations != 0 {
		n.t.Errorf("the new agent changed something: %v %+v", err, r.Status.Round)
	}
	for i, s := range stop() {
		if s.Lost > 0 || len(s.Answers) != 1 {
			n.t.Errorf("stream %d lost %d of %d, seen as %v, gaps %v", i, s.Lost, s.Sent, s.Answers, s.Gaps)
		}
	}
}

// A draining gateway keeps its connections and gets no new ones.
func testDrain(n *nodes) {
	stop := n.streams(0)
	old := n.dial(0, 0, false, 2, 3)
	n.drain["gw3"] = true
	n.order()
	n.expect(0, 0, false, false, 12, n.pools(false, 3)...)
	n.expect(0, 0, true, false, 12, n.pools(true, 3)...)
	for g, c := range old {
		if err := c.Exchange("still there", patience); err != nil {
			n.t.Errorf("the connection through node%d: %v", g+1, err)
		}
	}
	n.drain["gw3"] = false
	n.order()
	n.expect(0, 0, false, false, 24, n.pools(false, 2, 3)...)
	for i, s := range stop() {
		if s.Lost > 0 || len(s.Answers) != 1 {
			n.t.Errorf("stream %d lost %d of %d, seen as %v, gaps %v", i, s.Lost, s.Sent, s.Answers, s.Gaps)
		}
	}
}

// A gateway's node dies: what went through it goes through the other one, what went
// through the other one notices nothing, neither when it comes back.
func testKilled(n *nodes) {
	stop := n.streams(0)
	old := n.dial(0, 0, false, 2, 3)
	if err := n.Nodes[2].SetLink("eth0", false); err != nil {
		n.t.Fatal(err)
	}
	n.health["gw3"] = steer.Down
	n.tell()
	lab.Eventually(n.t, patience, "the agent of node1", func() error {
		r, err := read[report](filepath.Join(n.dirs[0], "report.json"))
		if err == nil && (r.Serial != n.serial || r.Status.Gateways[0].Usable) {
			err = fmt.Errorf("%+v", r.Status.Gateways)
		}
		return err
	})
	n.expect(0, 0, false, false, 12, n.pools(false, 3)...)
	n.expect(0, 1, true, false, 4, n.pools(true, 3)...)
	if err := old[3].Exchange("untouched", patience); err != nil {
		n.t.Errorf("the connection through the other gateway: %v", err)
	}
	if err := n.Reconnect(n.Nodes[2]); err != nil {
		n.t.Fatal(err)
	}
	n.health["gw3"] = steer.Ready
	n.order()
	n.expect(0, 0, false, false, 24, n.pools(false, 2, 3)...)
	if err := old[3].Exchange("still untouched", patience); err != nil {
		n.t.Errorf("the connection through the other gateway: %v", err)
	}
	for i, s := range stop() {
		v6 := i%2 == 1
		first, last := s.Answers[0].Client.Addr(), s.Answers[len(s.Answers)-1].Client.Addr()
		if last != n.pools(v6, 3)[0] {
			n.t.Errorf("stream %d ended as %s", i, last)
		}
		if first == n.pools(v6, 3)[0] && (s.Lost > 0 || len(s.Answers) != 1) {
			n.t.Errorf("stream %d through the other gateway lost %d of %d, seen as %v", i, s.Lost, s.Sent, s.Answers)
		}
	}
}

// What somebody takes away comes back.
func testRepair(n *nodes) {
	node := n.Nodes[0]
	for _, damage := range [][]string{
		{"nft", "delete", "table", "inet", steer.TableName}, {"ip", "link", "del", device}, {"ip", "rule", "del", "pref", "790"}, {"ip", "nexthop", "flush"},
	} {
		node.Must(damage...)
		lab.Eventually(n.t, patience, "the repair of "+strings.Join(damage, " "), func() error {
			out, err := node.Run("sh", "-c", "ip -br link show "+device+" && ip rule && ip nexthop && nft list tables")
			for _, word := range []string{device, "790:", "encap", "inet " + steer.TableName} {
				if err == nil && !strings.Contains(out, word) {
					err = fmt.Errorf("no %q in\n%s", word, out)
				}
			}
			return err
		})
		n.expect(0, 0, false, false, 12, n.pools(false, 2, 3)...)
	}
}
