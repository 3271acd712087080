package clustertest

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/egret-router/egret/lab"
)

// Many pods that may have one next hop each are spread evenly.
func case13(k *kubernetes) {
	node, pod := k.Nodes[0], k.Nodes[0].Pods[0]
	one := bySelector("egw == 'blue'") + ", " + annotation + `maxNextHops: "1"`
	k.pod(node, 0, one)
	const pods = 30
	for i := range pods - 1 {
		k.podObject(node, fmt.Sprintf("many-%d", i), "app", one, netip.AddrFrom4([4]byte{10, 244, byte(node.Number), byte(100 + i)}))
	}
	// The elements of the map that chooses a set for each pod.
	element := regexp.MustCompile(`10\.244\.1\.\d+ : goto (set_\d+)`)
	lab.Eventually(k.t, 2*patience, "the choice of 30 pods", func() error {
		sets := map[string]int{}
		out, err := node.Run("nft", "list", "table", "inet", "egret_agent")
		if err != nil {
			return err
		}
		for _, m := range element.FindAllStringSubmatch(out, -1) {
			sets[m[1]]++
		}
		total := 0
		for _, n := range sets {
			total += n
			if n < pods/3-1 || n > pods/3+1 {
				return fmt.Errorf("not even: %v", sets)
			}
		}
		if total != pods || len(sets) != 3 {
			return fmt.Errorf("%v", sets)
		}
		return nil
	})
	a, err := k.ask(pod, lab.ClusterServer4, askLimit)
	k.must(err)
	k.sees("one address of one pod", pod, lab.ClusterServer4, "outside", a.Client.Addr())
	for i := range pods - 1 {
		k.delete("Pod", "app", fmt.Sprintf("many-%d", i))
	}
}

// A pod that prefers the gateway on its own node has it alone while that works.
func case15(k *kubernetes) {
	here, there := k.Nodes[2], k.Nodes[0]
	k.apply(fmt.Sprintf(`{kind: EgressGatewayPolicy, metadata: {name: local}, spec: {rules: [{gateway: {selector: "egw == 'red'", namespaceSelector: "%s"}, gatewayPreference: PreferNodeLocal}]}}`, ns4))
	k.pod(here, 0, byPolicy("local"))
	k.pod(there, 0, byPolicy("local"))
	red := k.ready("red", 3, false)
	k.sees("on a gateway's node", here.Pods[0], lab.ClusterServer4, "outside", red[0])
	k.sees("on another node", there.Pods[0], lab.ClusterServer4, "outside", red...)
	k.deafen(here)
	k.sees("without the local gateway", here.Pods[0], lab.ClusterServer4, "outside", red[1], red[2])
	here.Must("nft", "delete", "table", "inet", "deaf")
	k.sees("with the local gateway", here.Pods[0], lab.ClusterServer4, "outside", red[0])
	k.pod(here, 0, bySelector("egw == 'red'"))
	k.sees("without preference", here.Pods[0], lab.ClusterServer4, "outside", red...)
}

// Where pods may not choose by themselves, their annotations mean nothing, and those of
// their namespaces count.
func case16(k *kubernetes) {
	args := k.agentArgs
	restart := func(more ...string) {
		k.roles["agent1"].Kill9()
		k.agentArgs = append(slices.Clone(args), more...)
		k.startNode("agent", k.Nodes[0])
	}
	k.pod(k.Nodes[0], 0, bySelector("egw == 'red'"))
	red := k.ready("red", 3, false)
	k.sees("a pod's annotation", k.Nodes[0].Pods[0], lab.ClusterServer4, "outside", red...)
	restart("--egress-ip-support=EnabledPerNamespace")
	k.sees("without it", k.Nodes[0].Pods[0], lab.ClusterServer4, "outside", k.Nodes[0].IP4())
	k.sees("the namespace's annotation", k.Nodes[0].Pods[1], lab.ClusterServer4, "yellow", k.ready("yellow", 1, false)...)
	restart()
	k.sees("a pod's annotation again", k.Nodes[0].Pods[0], lab.ClusterServer4, "outside", red...)
}

// Two networks with the same addresses, of servers, routers and pools; one of them
// fails alone.
func case17(k *kubernetes) {
	mine, other := k.Nodes[0].Pods[0], k.Nodes[1].Pods[1]
	k.pod(k.Nodes[0], 0, bySelector("egw == 'red'"))
	red, yellow := k.ready("red", 3, false), k.ready("yellow", 1, false)
	k.sees("red", mine, lab.ClusterServer4, "outside", red...)
	k.sees("yellow", other, lab.ClusterServer4, "yellow", yellow...)
	if out := k.Nodes[3].Must("ip", "route", "show", "table", "main"); strings.Contains(out, "198.51.100") || strings.Contains(out, "10.0.0") || strings.Contains(out, "172.16.0") {
		k.t.Errorf("the main table has routes of networks:\n%s", out)
	}
	k.must(k.yellow.Stop())
	k.refused("yellow has no router", other, lab.ClusterServer4)
	k.sees("red without yellow", mine, lab.ClusterServer4, "outside", red...)
	k.must(k.yellow.Start())
	k.sees("yellow again", other, lab.ClusterServer4, "yellow", yellow...)
}

// maintenance are the three annotations of a pod.
func maintenance(o *unstructured.Unstructured) (address, started, finished string) {
	a := o.GetAnnotations()
	return a[annotation+"gatewayMaintenanceGatewayIP"], a[annotation+"gatewayMaintenanceStartedTimestamp"], a[annotation+"gatewayMaintenanceFinishedTimestamp"]
}

// A gateway that leaves a node keeps what it has until the grace period ends; only
// the pods that use it are told.
func case14(k *kubernetes) {
	pod := k.Nodes[0].Pods[0]
	k.pod(k.Nodes[0], 0, bySelector("egw == 'blue'"))
	k.pod(k.Nodes[1], 0, bySelector("egw == 'red'"))
	blue := k.ready("blue", 3, false)
	k.sees("all", pod, lab.ClusterServer4, "outside", blue...)
	reports := k.stream(pod, 6, func() {
		k.apply(`{kind: EgressGateway, metadata: {name: blue, namespace: egress}, spec: {labels: {egw: blue}, replicas: 2, nodeSelector: "has(number)", ipPools: [{name: blue}], terminationGracePeriodSeconds: 60}}`)
		var gone netip.Addr
		lab.Eventually(k.t, patience, "the annotations", func() error {
			address, started, finished := maintenance(k.get("Pod", "app", "pod1-0"))
			first, _, _ := strings.Cut(address, ",")
			from, err1 := time.Parse(time.RFC3339, started)
			to, err2 := time.Parse(time.RFC3339, finished)
			if err1 != nil || err2 != nil || to.Sub(from) != time.Minute {
				return fmt.Errorf("%q %q %q", address, started, finished)
			}
			var err error
			gone, err = netip.ParseAddr(first)
			return err
		})
		if address, _, _ := maintenance(k.get("Pod", "app", "pod2-0")); address != "" {
			k.t.Errorf("a pod that does not use it was told of %s", address)
		}
		var left []netip.Addr
		for _, a := range blue {
			if a != gone {
				left = append(left, a)
			}
		}
		if len(left) != 2 {
			k.t.Fatalf("%s is none of %v", gone, blue)
		}
		k.sees("new flows while one leaves", pod, lab.ClusterServer4, "outside", left...)
	})
	for i, s := range reports {
		if s.Lost > 0 || len(s.Answers) != 1 {
			k.t.Errorf("stream %d lost %d of %d inside the grace period, seen as %v, gaps %v", i, s.Lost, s.Sent, s.Answers, s.Gaps)
		}
	}
	k.ready("blue", 2, false) // the third one has left
	lab.Eventually(k.t, patience, "the annotations to go", func() error {
		if address, started, finished := maintenance(k.get("Pod", "app", "pod1-0")); address+started+finished != "" {
			return fmt.Errorf("%q %q %q", address, started, finished)
		}
		return nil
	})
}

// All roles of a gateway's node and of a client's node are killed and start again:
// no flow loses a packet, and no route leaves the router.
func case21(k *kubernetes) {
	pod := k.Nodes[0].Pods[0]
	k.pod(k.Nodes[0], 0, bySelector("egw == 'red'"))
	red := k.ready("red", 3, false)
	k.sees("before", pod, lab.ClusterServer4, "outside", red...)
	ctx, cancel := context.WithCancel(k.t.Context())
	watched := make(chan error, 1)
	go func() { watched <- k.watchRoutes(ctx, red) }()
	reports := k.stream(pod, 6, func() {
		// First those of the gateway's node, while the client's agent looks at it.
		for _, node := range []int{2, 0} {
			n := k.Nodes[node]
			roles := []string{"agent"}
			if n.Gateway {
				roles = []string{"agent", "gateway"}
			}
			for _, role := range roles {
				k.roles[fmt.Sprint(role, n.Number)].Kill9()
			}
			for _, role := range roles {
				k.startNode(role, n)
			}
			for _, role := range roles {
				k.must(k.roles[fmt.Sprint(role, n.Number)].WaitFor(k.t.Context(), 2*patience, "the cluster is known"))
			}
			k.sees("between", pod, lab.ClusterServer4, "outside", red...)
		}
		k.sees("after", pod, lab.ClusterServer4, "outside", red...)
	})
	cancel()
	if err := <-watched; err != nil {
		k.t.Error(err)
	}
	for i, s := range reports {
		if s.Lost > 0 || len(s.Answers) != 1 {
			k.t.Errorf("stream %d lost %d of %d, seen as %v, gaps %v", i, s.Lost, s.Sent, s.Answers, s.Gaps)
		}
	}
}

// watchRoutes looks whether the router has the routes, all the time.
func (k *kubernetes) watchRoutes(ctx context.Context, want []netip.Addr) error {
	for ctx.Err() == nil {
		routes, err := k.red.Routes(lab.IPv4)
		if err != nil {
			return err
		}
		for _, a := range want {
			if _, ok := routes[netip.PrefixFrom(a, 32)]; !ok {
				return fmt.Errorf("%s left the router: %v", a, routes)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// A gateway's node dies: flows through the others notice nothing, and new ones go
// there.
func caseKilled(k *kubernetes) {
	pod := k.Nodes[0].Pods[0]
	red, red6 := k.ready("red", 3, false), k.ready("red", 3, true)
	reports := k.stream(pod, 9, func() {
		for _, role := range []string{"agent4", "gateway4"} {
			k.roles[role].Kill9()
		}
		k.must(k.Nodes[3].SetLink("eth0", false))
		k.must(k.Nodes[3].SetLink("eth1", false))
		k.sees("by the others", pod, lab.ClusterServer4, "outside", red[0], red[2])
	})
	dead4, dead6 := red[1], red6[1]
	for i, s := range reports {
		first := s.Answers[0].Client.Addr()
		switch {
		case first == dead4 || first == dead6:
			if len(s.Answers) != 2 {
				k.t.Errorf("stream %d through the dead node was seen as %v", i, s.Answers)
			}
		case s.Lost > 0 || len(s.Answers) != 1:
			k.t.Errorf("stream %d through another node lost %d of %d, seen as %v, gaps %v", i, s.Lost, s.Sent, s.Answers, s.Gaps)
		}
	}
}

// Without an API server everything goes on: also failover, and the agent's and the
// gateway's restart.
func caseNoAPI(k *kubernetes) {
	pod := k.Nodes[0].Pods[0]
	red := k.ready("red", 3, false) // node4 is dead, and its last word was ready
	k.api.KillAPI()
	k.roles["controller0"].Kill9()
	k.roles["agent1"].Kill9()
	k.roles["gateway3"].Kill9()
	k.startNode("gateway", k.Nodes[2])
	k.startNode("agent", k.Nodes[0])
	k.must(k.roles["gateway3"].WaitFor(k.t.Context(), 2*patience, "network is up"))
	k.sees("after restarts", pod, lab.ClusterServer4, "outside", red[0], red[2])
	k.roles["gateway5"].Kill9()
	k.roles["agent5"].Kill9()
	k.must(k.Nodes[4].SetLink("eth0", false))
	k.sees("after one more node has died", pod, lab.ClusterServer4, "outside", red[0])
}
