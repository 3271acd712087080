//go:build bench

package clusterbench

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/echo"
)

const podEvents, otherEvents = 200, 50

// apart is the least time between events that are looked at by themselves; a random one up to as much comes on top.
const apart = 150 * time.Millisecond

// TestClusterFigures measures from events to the kernel, requests, and memory.
func TestClusterFigures(t *testing.T) {
	f := &figures{world: newWorld(t)}
	f.fill()
	f.rest("at rest")
	f.podEvents()
	f.rush = true
	f.podEvents()
	f.rush = false
	f.policyEdits()
	f.healthFlips()
	f.storm()
	f.rest("after the storm")
}

type figures struct {
	*world
	controller, agent *lab.Proc
	echo              *echo.Server
	states            map[string]echo.State
	watch             *watch
	rush              bool // events follow each other at once
}

// fill makes the cluster with the roles running: 5,000 pods in one burst.
func (f *figures) fill() {
	f.answerHealth()
	f.each(nodes, f.createNodes)
	f.each(namespaces, f.createNamespaces)
	f.controller, f.agent = f.startController(), f.startAgent()
	f.each(networks, f.createNetworks)
	f.each(gateways, f.createGateways)
	f.each(policies, f.createPolicies)
	f.watch = newWatch(f.t, f.node)
	before := f.requests()
	roundsBefore := uint64(0)
	if s, err := f.status(); err == nil {
		roundsBefore = s.Round.Rounds
	}
	usedA, usedC, begin := processor(f.agent.PID()), processor(f.controller.PID()), time.Now()
	f.each(pods, func(ctx context.Context, i int) error { return f.createPod(ctx, podOf(i)) })
	written := time.Since(begin)
	perNode := 2 * pods / nodes // in both families
	lab.Eventually(f.t, patience, "the agent to have its pods and gateways", func() error {
		s, err := f.status()
		if err != nil {
			return err
		}
		usable := 0
		for _, g := range s.Gateways {
			if g.Usable {
				usable++
			}
		}
		if s.Clients+s.Unsteered != perNode || s.Blocked > 0 || usable != gateways*replicas || s.Round.LastError != "" || len(s.Problems) > 0 {
			return fmt.Errorf("%d clients, %d unsteered, %d blocked, %d of %d gateways usable, %s %s", s.Clients, s.Unsteered, s.Blocked, usable, len(s.Gateways), s.Round.LastError, s.Problems)
		}
		return nil
	})
	s := f.mustStatus()
	f.t.Logf("FIGURE burst: %d pods written in %.1f s, the agent had its %d addresses %.2f s after, in %d rounds; processor time: agent %v, controller %v",
		pods, written.Seconds(), perNode, (time.Since(begin) - written).Seconds(), s.Round.Rounds-roundsBefore, processor(f.agent.PID())-usedA, processor(f.controller.PID())-usedC)
	f.t.Logf("FIGURE burst: requests to the API server: %s", more(before, f.requests()))
	f.t.Logf("FIGURE the node: %d addresses with a policy, %d without, %d gateways, %d sets of gateways", s.Clients, s.Unsteered, len(s.Gateways), len(s.Sets))
}

// answerHealth answers for all gateways on all gateway nodes.
func (f *figures) answerHealth() {
	var at []netip.AddrPort
	for i := range gatewayNodes {
		at = append(at, netip.MustParseAddrPort(fmt.Sprintf("192.168.0.%d:%d", i+1, echo.DefaultPort)), netip.MustParseAddrPort(fmt.Sprintf("[fd00:168::%x]:%d", i+1, echo.DefaultPort)))
	}
	f.states = map[string]echo.State{}
	for g := range gateways {
		for n := range gatewayNodes {
			f.states[cluster.InstanceID("default/"+codeOf(g), nodeName(n+1))] = echo.Ready
		}
	}
	if err := f.cluster.Do(func() (err error) { f.echo, err = echo.NewServer(slog.New(slog.DiscardHandler), at, nil); return err }); err != nil {
		f.t.Fatal(err)
	}
	f.lab.Defer(f.echo.Close)
	f.echo.Set(f.states)
}

// rest waits until nothing has happened for a while, and tells what the roles need.
func (f *figures) rest(when string) {
	quiet := time.Now()
	last := f.mustStatus().Round.Rounds
	lab.Eventually(f.t, patience, "the agent to rest", func() error {
		if now := f.mustStatus().Round.Rounds; now != last {
			last, quiet = now, time.Now()
		}
		if since := time.Since(quiet); since < 5*time.Second {
			return fmt.Errorf("a round %v ago", since)
		}
		return nil
	})
	for _, p := range []*lab.Proc{f.controller, f.agent} {
		f.t.Logf("FIGURE memory %s: %-10s %s", when, p.Name, memory(p.PID(), p.Log()))
	}
}

// timed does something and waits for its change.
func (f *figures) timed(l *latency, do func(ctx context.Context) error, wanted func(change) bool) {
	f.t.Helper()
	if !f.rush {
		<-time.After(apart + rand.N(apart))
	}
	f.watch.forget()
	began := time.Now()
	err := do(f.t.Context())
	answered := time.Now()
	if err != nil {
		f.t.Fatal(l.name, err)
	}
	programmed, err := f.watch.await(l.name, wanted)
	if err != nil {
		f.t.Fatal(err)
	}
	l.add(began, answered, programmed)
}

// podEvents adds, annotates and deletes a pod of the node, over and over.
func (f *figures) podEvents() {
	how := "pod events, each by itself"
	if f.rush {
		how = "pod events, one upon the other"
	}
	add, annotate, first, remove := &latency{name: "pod gets its address"}, &latency{name: "pod gets another policy"},
		&latency{name: "pod gets a policy new to the node"}, &latency{name: "pod is deleted"}
	before, ops, used, usedC, idle := f.requests(), f.mustStatus().Round, processor(f.agent.PID()), processor(f.controller.PID()), waited(f.agent.PID())
	four, six := addressesOf(here, 250)
	address := netip.MustParseAddr(four)
	led := func(to string) func(change) bool {
		return func(c change) bool {
			return c.set == "clients4" && !c.gone && c.key == address && strings.HasSuffix(c.chain, "_"+to)
		}
	}
	known, fresh := policiesHere()
	for i := range podEvents {
		p := newPod("ns001", fmt.Sprintf("event%d", i), here, four, six)
		p.Annotations = map[string]string{cluster.AnnotationPolicy: known[0]}
		status := p.Status
		if err := create(f.t.Context(), f.core, "pods", p.Namespace, p); err != nil {
			f.t.Fatal(err)
		}
		p.Status = status
		f.timed(add, func(ctx context.Context) error { return putStatus(ctx, f.core, "pods", p) }, led(known[0]))
		for l, to := range map[*latency]string{annotate: known[1], first: fresh} {
			patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, cluster.AnnotationPolicy, to)
			f.timed(l, func(ctx context.Context) error {
				return f.core.Patch(types.MergePatchType).Namespace(p.Namespace).Resource("pods").Name(p.Name).Body([]byte(patch)).Do(ctx).Error()
			}, led(to))
		}
		now := int64(0)
		f.timed(remove, func(ctx context.Context) error {
			return f.core.Delete().Namespace(p.Namespace).Resource("pods").Name(p.Name).Body(&metav1.DeleteOptions{GracePeriodSeconds: &now}).Do(ctx).Error()
		}, func(c change) bool { return c.set == "clients4" && c.gone && c.key == address })
	}
	n := time.Duration(4 * podEvents)
	f.t.Logf("FIGURE %s; others want the processors, too: %s", how, pressure())
	f.say(add, annotate, first, remove)
	s := f.mustStatus().Round
	f.t.Logf("FIGURE %d %s: %d rounds of the agent with %d operations; for each the agent had a processor for %v and waited for one for %v, the controller had one for %v", n, how,
		s.Rounds-ops.Rounds, s.Operations-ops.Operations, (processor(f.agent.PID())-used)/n, ((waited(f.agent.PID()) - idle) / n).Round(10*time.Microsecond), (processor(f.controller.PID())-usedC)/n)
	f.t.Logf("FIGURE %d %s: requests to the API server, ours among them: %s", 4*podEvents, how, more(before, f.requests()))
}

func (f *figures) say(list ...*latency) {
	for _, l := range list {
		f.t.Logf("FIGURE %s", l)
	}
}

// policyEdits changes a destination of a policy that pods of the node have.
func (f *figures) policyEdits() {
	edit := &latency{name: "destination of a policy"}
	p := &v1alpha1.EgressGatewayPolicy{}
	known, _ := policiesHere()
	if err := f.objects.Get().Resource("egressgatewaypolicies").Name(known[0]).Do(f.t.Context()).Into(p); err != nil {
		f.t.Fatal(err)
	}
	for i := range otherEvents {
		to := netip.PrefixFrom(netip.AddrFrom4([4]byte{12, 0, byte(i), 0}), 24)
		patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/rules/1/destination/cidr","value":%q}]`, to)
		f.timed(edit, func(ctx context.Context) error {
			return f.objects.Patch(types.JSONPatchType).Resource("egressgatewaypolicies").Name(p.Name).Body([]byte(patch)).Do(ctx).Error()
		}, func(c change) bool {
			return strings.HasPrefix(c.set, "dst4_") && !c.gone && c.key == to.Addr() && c.chain != ""
		})
	}
	f.say(edit)
}

// healthFlips let one gateway fail and come back. It is asked every 300 ms, which is in
// the figures.
func (f *figures) healthFlips() {
	down, up := &latency{name: "gateway fails (asked each 300 ms)"}, &latency{name: "gateway is back"}
	var id string
	for _, g := range f.mustStatus().Gateways {
		id = g.ID
	}
	flip := func(to echo.State) func(context.Context) error {
		return func(context.Context) error { f.states[id] = to; f.echo.Set(f.states); return nil }
	}
	for range otherEvents {
		f.timed(down, flip(echo.Failed), func(c change) bool { return c.set == "group" })
		f.settle(id, false)
		f.timed(up, flip(echo.Ready), func(c change) bool { return strings.HasPrefix(c.set, "dst4_") && !c.gone })
		f.settle(id, true)
	}
	f.say(down, up)
}

// settle waits for a gateway's state in the agent's own words.
func (f *figures) settle(id string, usable bool) {
	lab.Eventually(f.t, patience, "the gateway", func() error {
		for _, g := range f.mustStatus().Gateways {
			if g.ID == id && g.Usable == usable {
				return nil
			}
		}
		return fmt.Errorf("not %t yet", usable)
	})
}

// storm annotates every pod at once.
func (f *figures) storm() {
	s, used, usedC := f.mustStatus().Round, processor(f.agent.PID()), processor(f.controller.PID())
	f.watch.forget()
	begin := time.Now()
	f.each(pods, f.annotate)
	took := time.Since(begin)
	last := podOf(pods - 1) // of the node, and among the last that were written
	address, to := netip.MustParseAddr(last.Status.PodIP), stormPolicy(pods-1)
	if _, err := f.watch.await("the last pod", func(c change) bool {
		return c.set == "clients4" && !c.gone && c.key == address && strings.HasSuffix(c.chain, "_"+to)
	}); err != nil {
		f.t.Fatal(err)
	}
	f.t.Logf("FIGURE storm: %d pods annotated in %.1f s: %d rounds of the agent; processor time: agent %v, controller %v", pods, took.Seconds(),
		f.mustStatus().Round.Rounds-s.Rounds, processor(f.agent.PID())-used, processor(f.controller.PID())-usedC)
}
