//go:build bench

package clustertest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// TestClusterFigures measures how long the traffic of pods stops whose gateway's node
// dies, until it goes by another one, by the health checks' defaults and tuned. The
// API server is off meanwhile, since the guest has one machine's worth of processor.
func TestClusterFigures(t *testing.T) {
	k := newKubernetes(t)
	k.objects()
	k.pod(k.Nodes[0], 0, bySelector("egw == 'red'"))
	red := k.ready("red", 3, false)
	k.sees("all gateways", k.Nodes[0].Pods[0], lab.ClusterServer4, "outside", red...)
	k.api.KillAPI()
	k.roles["controller0"].Kill9()
	k.killFigure("a gateway's node dies, UDP 300 ms x 3 (defaults)")
	k.roles["agent1"].Kill9()
	k.agentArgs = []string{"--health-interval=50ms", "--health-fall=3"}
	k.startNode("agent", k.Nodes[0])
	k.must(k.roles["agent1"].WaitFor(t.Context(), 2*patience, "applied"))
	k.killFigure("a gateway's node dies, UDP 50 ms x 3")
}

func (k *kubernetes) killFigure(what string) {
	k.t.Helper()
	const rounds = 5
	var gaps []time.Duration
	lost := 0
	red := []netip.Addr{netip.MustParseAddr("198.51.100.0"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}
	for range rounds {
		lab.Eventually(k.t, 2*patience, "all gateways carry", func() error {
			seen := map[netip.Addr]bool{}
			for range 40 {
				a, err := k.ask(k.Nodes[0].Pods[0], lab.ClusterServer4, askLimit)
				if err != nil {
					return err
				}
				seen[a.Client.Addr()] = true
			}
			if len(seen) != len(red) {
				return fmt.Errorf("%v", seen)
			}
			return nil
		})
		gap, others := k.killGap()
		for gap == 0 { // by chance no stream went through the node
			gap, others = k.killGap()
		}
		gaps = append(gaps, gap)
		lost += others
		k.t.Logf("gap %v; other gateways' flows lost %d", gap, others)
	}
	slices.Sort(gaps)
	k.t.Logf("FIGURE %s: stopped for %v to %v, median %v, of %d; flows through the other gateways lost %d packets", what, gaps[0], gaps[rounds-1], gaps[rounds/2], rounds, lost)
}

// killGap takes the network from node4 and gives it back, under streams; no gap if
// none of them went through it.
func (k *kubernetes) killGap() (gap time.Duration, others int) {
	k.t.Helper()
	streams, stop := streamsOf(k.t, k.Nodes[0].Pods[0], 8, 25*time.Millisecond, false)
	flowing := func(after int) {
		for _, s := range streams {
			lab.Eventually(k.t, patience, "the streams to flow", func() error { return received(s, after) })
		}
	}
	flowing(20)
	dead := netip.MustParseAddr("198.51.100.1")
	if !slices.ContainsFunc(streams, func(s *traffic.Stream) bool { return s.Report().Answers[0].Client.Addr() == dead }) {
		stop()
		return 0, 0
	}
	node := k.Nodes[3]
	k.must(node.SetLink("eth0", false))
	lab.Eventually(k.t, patience, "the lost streams to go on", func() error {
		for i, s := range streams {
			r := s.Report()
			if len(r.Answers) == 1 && r.Answers[0].Client.Addr() == dead {
				return fmt.Errorf("stream %d is where it was", i)
			}
		}
		return nil
	})
	flowing(120)
	reports := stop()
	k.must(k.Reconnect(node))
	for _, r := range reports {
		if len(r.Answers) == 1 {
			others += r.Lost
			continue
		}
		gap = max(gap, time.Duration(r.LongestMS*float64(time.Millisecond)))
	}
	return gap, others
}
