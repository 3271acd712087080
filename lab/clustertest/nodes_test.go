package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
	"github.com/egret-router/egret/vrf"
)

const (
	patience = 2 * time.Minute
	// short is how long one try of something that must not work is given.
	short = 2 * time.Second

	device, loop = "egret-vx", "egret-out"
	vni          = 4097
	returnTable  = 7000
)

// nodes is a cluster whose nodes run agents, and gateways where they are gateways.
type nodes struct {
	*lab.Cluster
	t      *testing.T
	binary string
	dirs   []string
	agents []*lab.Proc
	// What the agents are told.
	serial int
	health map[string]steer.Health
	drain  map[string]bool
}

func newNodes(t *testing.T) *nodes {
	lab.Require(t, lab.VRF, lab.Nft, lab.Conntrack)
	n := &nodes{t: t, health: map[string]steer.Health{"gw3": steer.Ready, "gw4": steer.Ready}, drain: map[string]bool{}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n.binary = self
	for range 4 { // before the lab, which is closed before they go
		n.dirs, n.agents = append(n.dirs, t.TempDir()), append(n.agents, nil)
	}
	n.Cluster = lab.MustCluster(lab.New(t), 2, 2, 2)
	n.tell()
	for i, node := range n.Nodes {
		n.startAgent(i)
		if node.Gateway {
			n.startGateway(i)
		}
	}
	n.settled()
	for i, node := range n.Nodes {
		if !node.Gateway {
			continue
		}
		lab.Eventually(t, patience, node.Name+" to be up", func() error {
			s, err := read[egress.Status](filepath.Join(n.dirs[i], "gateway.json"))
			if err == nil && (len(s.Networks) != 1 || s.Networks[0].Phase != egress.PhaseUp) {
				err = fmt.Errorf("networks are %+v, round %+v", s.Networks, s.Round)
			}
			return err
		})
	}
	return n
}

func (n *nodes) process(i int, role string) *lab.Proc {
	return n.Nodes[i].MustStart(role, "env", roleEnv+"="+role, dirEnv+"="+n.dirs[i], n.binary)
}

func (n *nodes) startAgent(i int) { n.agents[i] = n.process(i, "agent") }

// startGateway runs a gateway whose clients come by the tunnel.
func (n *nodes) startGateway(i int) {
	node := n.Nodes[i]
	own4, router4 := node.Uplink4()
	own6, router6 := node.Uplink6()
	text := fmt.Sprintf(`clients: {interfaces: [%s, %s], prefixes: [%s, "%s"], unmatched: drop, returnTable: %d}
networks:
  - name: red
    interfaces: [%s]
    addresses: [%s, "%s"]
    staticRoutes: [{prefix: 0.0.0.0/0, nextHops: [%s]}, {prefix: "::/0", nextHops: ["%s"]}]
pools: [{name: pool, network: red, prefixes: [%s, "%s"]}]
policies: [{name: all, clients: [%s, "%s"], rules: [{network: red, pool: pool}]}]
runDir: %s
`, device, steer.PeerOf(loop), lab.ClusterPods4, lab.ClusterPods6, returnTable, lab.ClusterUpstream, own4, own6, router4, router6,
		node.Pool4(), node.Pool6(), lab.ClusterPods4, lab.ClusterPods6, n.dirs[i])
	if err := os.WriteFile(filepath.Join(n.dirs[i], "egret.yaml"), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	var back []egress.Return
	for _, other := range n.Nodes {
		for _, p := range []netip.Prefix{other.Pods4(), other.Pods6()} {
			r := egress.Return{Prefix: p, Device: device, Tunnel: vrf.Tunnel{Endpoint: other.IP4(), VNI: vni}}
			if p.Addr().Is6() { // through an outer header of the other family as well
				r.Tunnel.Endpoint = other.IP6()
			}
			if other == node {
				r = egress.Return{Prefix: p, Device: steer.PeerOf(loop)}
			}
			back = append(back, r)
		}
	}
	if err := write(filepath.Join(n.dirs[i], "returns.json"), back); err != nil {
		n.t.Fatal(err)
	}
	n.process(i, "gateway")
}

// config is what one node's agent is told: its first pod has the policy both, of the
// others each node has something of its own.
func (n *nodes) config(i int) steer.Config {
	node := n.Nodes[i]
	c := steer.Config{
		Tunnel: steer.Tunnel{Device: device, Loop: loop, Local: []netip.Addr{node.IP4(), node.IP6()}, VNI: vni},
		Inside: []netip.Prefix{netip.MustParsePrefix(lab.ClusterPods4), netip.MustParsePrefix(lab.ClusterPods6),
			netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:2::/64")},
		Local: []netip.Prefix{node.Pods4(), node.Pods6()},
	}
	add := func(pod int, policy string, blocked bool) {
		for _, v6 := range []bool{false, true} {
			c.Clients = append(c.Clients, steer.Client{Address: node.PodAddress(pod, v6), Policy: policy, Blocked: blocked})
		}
	}
	add(0, "both", i == 3)
	switch i {
	case 0:
		add(1, "one", false)
	case 1: // its second pod is not known
	case 2:
		add(1, "", false)
	case 3:
		add(1, "local", false)
	}
	for _, p := range []steer.Policy{{Name: "both"}, {Name: "one"}, {Name: "local"}} {
		for _, d := range []string{"0.0.0.0/0", "::/0"} {
			p.Rules = append(p.Rules, steer.Rule{Destination: netip.MustParsePrefix(d), Gateways: []string{"gw3", "gw4"},
				PreferLocal: p.Name == "local", MaxNextHops: map[string]int{"one": 1}[p.Name]})
		}
		for _, d := range []string{lab.ClusterOther4 + "/32", lab.ClusterOther6 + "/128"} {
			p.Rules = append(p.Rules, steer.Rule{Destination: netip.MustParsePrefix(d), Skip: true})
		}
		c.Policies = append(c.Policies, p)
	}
	for j, g := range n.Nodes {
		if g.Gateway {
			id := fmt.Sprintf("gw%d", g.Number)
			c.Gateways = append(c.Gateways, steer.Gateway{ID: id, Endpoints: []netip.Addr{g.IP4(), g.IP6()}, Here: j == i, Draining: n.drain[id]})
		}
	}
	return c
}

// tell gives all agents new orders.
func (n *nodes) tell() {
	n.t.Helper()
	n.serial++
	for i := range n.Nodes {
		if err := write(filepath.Join(n.dirs[i], "orders.json"), orders{n.serial, n.config(i), n.health}); err != nil {
			n.t.Fatal(err)
		}
	}
}

// settled waits until all agents have carried out the latest orders.
func (n *nodes) settled() {
	n.t.Helper()
	for i := range n.Nodes {
		lab.Eventually(n.t, patience, "the agent of "+n.Nodes[i].Name, func() error {
			r, err := read[report](filepath.Join(n.dirs[i], "report.json"))
			switch {
			case err != nil:
				return err
			case r.Serial != n.serial || r.Status.Round.LastError != "":
				return fmt.Errorf("it has orders %d of %d: %s", r.Serial, n.serial, r.Status.Round.LastError)
			}
			for _, g := range r.Status.Gateways {
				if g.Health != n.health[g.ID].String() {
					return fmt.Errorf("%+v", g)
				}
			}
			return nil
		})
	}
}

func (n *nodes) order() {
	n.t.Helper()
	n.tell()
	n.settled()
}

func server(v6, other bool) netip.AddrPort {
	address := map[[2]bool]string{{false, false}: lab.ClusterServer4, {true, false}: lab.ClusterServer6,
		{false, true}: lab.ClusterOther4, {true, true}: lab.ClusterOther6}[[2]bool{v6, other}]
	return netip.AddrPortFrom(netip.MustParseAddr(address), lab.HTTPPort)
}

// ask lets a pod ask the server who it is.
func (n *nodes) ask(node, pod int, to netip.AddrPort, limit time.Duration) (from netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), limit)
	defer cancel()
	err = n.Nodes[node].Pods[pod].Do(func() error {
		a, err := traffic.FetchAnswer(ctx, netip.AddrPort{}, to)
		from = a.Client.Addr()
		return err
	})
	return from, err
}

// seen are the addresses by which the server knows a pod, of many questions.
func (n *nodes) seen(node, pod int, v6, other bool, times int) map[netip.Addr]int {
	n.t.Helper()
	out := map[netip.Addr]int{}
	for range times {
		from, err := n.ask(node, pod, server(v6, other), patience)
		if err != nil {
			n.t.Fatalf("pod %d of node%d, IPv6 %t: %v", pod, node+1, v6, err)
		}
		out[from]++
	}
	return out
}

func (n *nodes) pools(v6 bool, gateways ...int) []netip.Addr {
	var out []netip.Addr
	for _, g := range gateways {
		a := n.Nodes[g].Pool4()
		if v6 {
			a = n.Nodes[g].Pool6()
		}
		out = append(out, a)
	}
	return out
}

func keys(m map[netip.Addr]int) []netip.Addr {
	var out []netip.Addr
	for a := range m {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func (n *nodes) expect(node, pod int, v6, other bool, times int, want ...netip.Addr) {
	n.t.Helper()
	if got := keys(n.seen(node, pod, v6, other, times)); !slices.Equal(got, want) {
		n.t.Errorf("the server knows pod %d of node%d as %v, want %v", pod, node+1, got, want)
	}
}

// refused says that a pod reaches nothing outside, which a counter has to confirm.
func (n *nodes) refused(node, pod int, reason string) {
	n.t.Helper()
	for _, v6 := range []bool{false, true} {
		if from, err := n.ask(node, pod, server(v6, false), short); err == nil {
			n.t.Errorf("pod %d of node%d got out as %s", pod, node+1, from)
		} else if !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
			n.t.Logf("pod %d of node%d: %v", pod, node+1, err)
		}
	}
	if out, err := n.Nodes[node].Run("nft", "list", "counter", "inet", steer.TableName, reason); err != nil || !packets.MatchString(out) {
		n.t.Errorf("counter %s of node%d: %v %s", reason, node+1, err, out)
	}
}
