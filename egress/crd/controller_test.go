package crd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
	"github.com/egret-router/egret/lab/kube"
)

// TestRejectedByCondition holds the rejections that a schema cannot make. The
// letters are those of the documented ones.
func TestRejectedByCondition(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	w.apply(redNetwork, redPool)
	w.controller("one")
	red := "gateway: {selector: egw == 'red', namespaceSelector: all()}"
	cases := []struct{ name, kind, spec, status, reason, message string }{
		{"a-host", "EgressGatewayPolicy", "{rules: [{destination: {cidr: 8.8.8.8/32}, " + red + "}, {destination: {cidr: 8.8.8.8}}]}", "False", "Invalid",
			"spec.rules[1].destination: 8.8.8.8/32 is the destination of rules[0] already"},
		{"a-default", "EgressGatewayPolicy", "{rules: [{" + red + "}, {destination: {cidr: 0.0.0.0/0}}]}", "False", "Invalid",
			"spec.rules[1].destination: 0.0.0.0/0 is the destination of rules[0] already"},
		{"a-many", "EgressGatewayPolicy", "{rules: [" + manyRules(260) + ", {destination: {cidr: 10.0.0.0/8}}, {destination: {cidr: 10.0.0.0/8}}]}", "False", "Invalid",
			"spec.rules[261].destination: 10.0.0.0/8 is the destination of rules[260] already"},
		{"selector", "EgressGatewayPolicy", "{rules: [{gateway: {selector: egw = 'red', namespaceSelector: all()}}]}", "False", "Invalid",
			`spec.rules[0].gateway.selector: "egw = 'red'" is no selector: at character 5: ==, !=, in, not in, contains, starts with or ends with is expected, not "= 'red'"`},
		{"fine", "EgressGatewayPolicy", "{rules: [{" + red + "}]}", "True", "Ready", ""},
		{"f-unknown", "EgressGateway", "{ipPools: [{name: blue}]}", "False", "NotFound", `spec.ipPools[0].name: there is no pool "blue"`},
		{"f-mismatch", "EgressGateway", "{ipPools: [{name: red, cidr: 192.0.2.0/28}]}", "False", "Invalid", `spec.ipPools[0].cidr: 192.0.2.0/28 is no prefix of pool "red", which has 198.51.100.0/28, 2001:db8:100::/120`},
		{"f-prefix", "EgressGateway", "{ipPools: [{cidr: 192.0.2.128/28}]}", "False", "NotFound", "spec.ipPools[0].cidr: no pool has the prefix 192.0.2.128/28"},
		{"f-agree", "EgressGateway", "{ipPools: [{name: red, cidr: 198.51.100.0/28}]}", "True", "Ready", ""},
		{"f-by-prefix", "EgressGateway", "{ipPools: [{cidr: '2001:db8:100::/120'}]}", "True", "Ready", ""},
		{"h-equal", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {icmpProbe: {ips: [10.0.0.1], intervalSeconds: 5, timeoutSeconds: 5}}}", "True", "Ready", ""},
		{"j", "EgressGateway", "{ipPools: [{name: red}], externalNetworks: [yellow]}", "False", "NotFound",
			`spec.externalNetworks: there is no network "yellow"; spec.ipPools[0].name: "red" is a pool of network "red", not of "yellow"`},
		{"pool-special", "EgressPool", "{network: red, prefixes: [169.254.0.0/24]}", "False", "Invalid",
			"spec.prefixes[0]: 169.254.0.0/24 has link-local addresses in it: egress addresses are unicast addresses of the network"},
		{"pool-special6", "EgressPool", "{network: red, prefixes: ['fe80::/64']}", "False", "Invalid",
			"spec.prefixes[0]: fe80::/64 has link-local addresses in it: egress addresses are unicast addresses of the network"},
		{"pool-blocks", "EgressPool", "{network: red, prefixes: [203.0.113.0/28], blockSizeIPv4: 24}", "False", "Invalid",
			"spec.blockSizeIPv4: 203.0.113.0/28 has no block of /24 in it"},
		{"host-bits", "EgressGatewayPolicy", "{rules: [{destination: {cidr: 10.1.0.0/8}}]}", "False", "Invalid",
			"spec.rules[0].destination.cidr: 10.1.0.0/8 has host bits set: write 10.0.0.0/8, or 10.1.0.0 for the one address"},
		{"client", "EgressGatewayPolicy", "{rules: [{destination: {cidr: 10.0.0.0/8}}], clients: [{selector: app}]}", "False", "Invalid",
			`spec.clients[0].selector: "app" is no selector: at character 4: ==, !=, in, not in, contains, starts with or ends with is expected, not the end`},
		{"node", "EgressGateway", "{ipPools: [{name: red}], nodeSelector: '('}", "False", "Invalid",
			`spec.nodeSelector: "(" is no selector: at character 2: a label, all(), global(), has(), ! or ( is expected, not the end`},
		{"nowhere", "EgressGateway", "{ipPools: [{name: red}], nodeSelector: rack == 'x'}", "False", "Unplaced",
			`spec.nodeSelector: no node can carry it: none is ready and schedulable, matches, and has a configuration of network "red"`},
		{"h-url", "EgressGateway", "{ipPools: [{name: red}], egressGatewayFailureDetection: {httpProbe: {urls: ['http://example.com/']}}}", "False", "Invalid",
			`spec.egressGatewayFailureDetection.httpProbe.urls[0]: "http://example.com/" names its host: write the address; an entry of spec.probes can have the name, too (http.host)`},
		{"table", "ExternalNetwork", "{table: 254, hosts: [{interfaces: [{name: eth7}]}]}", "False", "Invalid",
			"spec.table: 254 is one of the kernel's own tables (253 default, 254 main, 255 local)"},
		{"table-a", "ExternalNetwork", "{table: 500, hosts: [{interfaces: [{name: eth8}]}]}", "True", "Ready", ""},
		{"table-b", "ExternalNetwork", "{table: 500, hosts: [{interfaces: [{name: eth9}]}]}", "False", "Conflict",
			`spec.table: 500 is the table of network "table-a" already`},
		{"uplink", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth8}]}]}", "False", "Conflict",
			`spec.hosts[0].interfaces: "eth8" is an interface of network "table-a" already, on node n1 for one`},
		{"pool-network", "EgressPool", "{network: yellow, prefixes: [192.0.2.0/28]}", "False", "NotFound", `spec.network: there is no network "yellow"`},
		{"two", "EgressPool", "{network: red, prefixes: [198.51.100.8/29]}", "False", "Conflict",
			`spec.prefixes: 198.51.100.8/29 overlaps 198.51.100.0/28 of pool "red" in the same network "red"`},
		{"blue", "ExternalNetwork", "{hosts: [{interfaces: [{name: eth1}]}, {nodeSelector: 'rack ==', interfaces: [{name: eth2}]}], probes: [{type: morse, targets: [{target: 10.0.0.1}]}]}", "False", "Invalid",
			`spec.probes[0].type: "morse" is not allowed: use icmp, arp-nd, tcp, dns or http; spec.hosts[1].nodeSelector: "rack ==" is no selector: at character 8: a string in quotes is expected, not the end`},
	}
	for _, c := range cases {
		w.apply(object(c.kind, c.name, c.spec))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			kube.Eventually(t, time.Minute, "the condition", func() error {
				got, err := w.Kubectl("get", c.kind, c.name, `--output=jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status}|{.reason}|{.message}{end}`)
				if err != nil {
					return err
				}
				if want := c.status + "|" + c.reason + "|"; got != want+c.message {
					return fmt.Errorf("got  %s\nwant %s%s", got, want, c.message)
				}
				return nil
			})
		})
	}
	// A fault that is mended, elsewhere.
	w.apply(strings.ReplaceAll(redPool, "name: red", "name: blue"))
	w.apply(object("EgressPool", "blue", "{network: red, prefixes: [203.0.113.0/28]}"))
	w.eventually("True", "get", "EgressGateway", "f-unknown", `--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
}

// TestGatewayLife follows a gateway from its making to its end: where it is placed,
// what it holds, whom its leaving is told, what is left of it.
func TestGatewayLife(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.node(i + 1)
	}
	w.apply(redNetwork, redPool, redGateway, redPolicy)
	w.pod("default", "client", "n3", "10.244.3.2", map[string]string{cluster.AnnotationPolicy: "red"})
	w.pod("default", "other", "n3", "10.244.3.3", nil)
	stop := w.controller("one")

	w.eventually("2", "get", "egw", "red", "--output=jsonpath={.status.replicas}")
	w.eventually("4", "get", "epool", "red", "--output=jsonpath={.status.allocated}") // two nodes, two families
	w.eventually("True", "get", "egw", "red", `--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	w.eventually(finalizer, "get", "egw", "red", "--output=jsonpath={.metadata.finalizers}")
	if table := w.kubectl("get", "egw,epool,extnet,egp"); !strings.Contains(table, "PLACED") || !strings.Contains(table, "n") {
		t.Errorf("kubectl get prints %s", table)
	} else {
		t.Logf("\n%s", table)
	}

	// A controller that ends, and another one that comes, change nothing.
	before := w.kubectl("get", "egw,epool", "red", "--output=jsonpath={range .items[*]}{.metadata.resourceVersion} {end}")
	stop()
	w.controller("two")
	w.eventually("two", "get", "lease", leaseName, "--namespace="+ownNamespace, "--output=jsonpath={.spec.holderIdentity}")
	w.eventually("False", "get", "egw", "red", `--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}False`) // a moment
	if after := w.kubectl("get", "egw,epool", "red", "--output=jsonpath={range .items[*]}{.metadata.resourceVersion} {end}"); after != before {
		t.Errorf("a new controller wrote: versions %s, before %s", after, before)
	}

	w.kubectl("delete", "egw", "red", "--wait=false")
	annotation := `--output=jsonpath={.metadata.annotations['egress\.egret-router\.io/gatewayMaintenanceGatewayIP']}`
	w.eventually("198.51.100.", "get", "pod", "client", annotation)
	got := w.kubectl("get", "pod", "client", `--output=jsonpath={.metadata.annotations['egress\.egret-router\.io/gatewayMaintenanceStartedTimestamp']} {.metadata.annotations['egress\.egret-router\.io/gatewayMaintenanceFinishedTimestamp']}`)
	started, finished, _ := strings.Cut(got, " ")
	from, err := time.Parse(time.RFC3339, started)
	to, err2 := time.Parse(time.RFC3339, finished)
	if err != nil || err2 != nil || to.Sub(from) != 3*time.Second {
		t.Errorf("maintenance from %q to %q, want 3 s", started, finished)
	}
	kube.Eventually(t, time.Minute, "the end of the gateway", func() error {
		if out, err := w.Kubectl("get", "egw", "red"); err == nil || !strings.Contains(err.Error(), "not found") {
			return fmt.Errorf("still there: %s %v", out, err)
		}
		return nil
	})
	if held := w.kubectl("get", "epool", "red", "--output=jsonpath={.status.allocations}"); held != "" {
		t.Errorf("blocks are still held: %s", held)
	}
	kube.Eventually(t, time.Minute, "the end of the annotations", func() error {
		if left := w.kubectl("get", "pod", "client", "--output=jsonpath={.metadata.annotations}"); strings.Contains(left, "Maintenance") {
			return errors.New(left)
		}
		return nil
	})
	if told := w.kubectl("get", "pod", "other", "--output=jsonpath={.metadata.annotations}"); told != "" {
		t.Errorf("a pod that uses no gateway was told: %s", told)
	}
}

// TestOneHolder lets ten controllers, each of which believes that it leads, hand
// out the same pool. Every version of the pool that ever was is looked at.
func TestOneHolder(t *testing.T) {
	const writers, gateways = 10, 12
	w := newWorld(t)
	for i := range 2 {
		w.node(i + 1)
	}
	w.apply(redNetwork, object("EgressPool", "red", "{network: red, prefixes: [198.51.100.0/27]}"))
	holders := map[string]string{}
	var mu sync.Mutex
	var versions int
	history := NewSource(w.connect(), SourceOptions{Role: RoleController, Log: slog.New(slog.DiscardHandler), Deliver: func(v View) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range v.Snapshot.Pools {
			versions++
			for _, a := range p.Allocations {
				is := a.Gateway + "@" + a.Node + " " + a.UID
				if was, ok := holders[a.Block.String()]; ok && was != is {
					t.Errorf("block %s went from %s to %s", a.Block, was, is)
				}
				holders[a.Block.String()] = is
			}
		}
	}})
	w.background(history.Run)

	var wins, losses atomic.Int32
	for i := range writers {
		c := NewController(w.connect(), ControllerOptions{Identity: fmt.Sprint(i), Log: slog.New(slog.DiscardHandler)})
		_, _ = w.source(SourceOptions{Role: RoleController, Deliver: func(v View) {
			placements, _ := cluster.Place(v.Snapshot, time.Now())
			allocations, _ := cluster.Allocate(v.Snapshot, placements)
			for j := range placements {
				_ = c.client.setInstances(t.Context(), &v.Snapshot.Gateways[j], placements[j].Instances) // another was faster, or it is retried with the next View
			}
			for j := range allocations {
				err := c.client.setAllocations(t.Context(), &v.Snapshot, placements, &v.Snapshot.Pools[j], allocations[j].Allocations)
				switch {
				case err == nil:
					wins.Add(1)
				case errors.Is(err, ErrStale):
					losses.Add(1)
				case t.Context().Err() == nil:
					t.Error(err)
				}
			}
		}})
	}
	for i := range gateways {
		w.apply(object("EgressGateway", fmt.Sprintf("g%d", i), "{replicas: 2, ipPools: [{name: red}]}"))
	}
	w.eventually(fmt.Sprint(2*gateways), "get", "epool", "red", "--output=jsonpath={.status.allocated}")
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d writes won, %d came too late; %d versions seen", wins.Load(), losses.Load(), versions)
	if losses.Load() == 0 {
		t.Error("no writer ever came too late: the test tests nothing")
	}
	if len(holders) < gateways {
		t.Errorf("only %d blocks were seen", len(holders))
	}
}

// TestElection holds that there is one leader at a time, that a leader which is
// cut off stops before another begins, and that one which ends hands over at once.
func TestElection(t *testing.T) {
	w := newWorld(t)
	var leading, most atomic.Int32
	var mu sync.Mutex
	var order []string
	candidate := func(identity string, client *Client) context.CancelFunc {
		o := ControllerOptions{Identity: identity, Namespace: ownNamespace, Log: slog.New(slog.DiscardHandler),
			Election: ElectionOptions{Lease: 3 * time.Second, Renew: 2 * time.Second, Retry: 200 * time.Millisecond}}
		return w.background(func(ctx context.Context) error {
			return elect(ctx, client, o, func(ctx context.Context) {
				most.Store(max(most.Load(), leading.Add(1)))
				mu.Lock()
				order = append(order, identity)
				mu.Unlock()
				<-ctx.Done()
				leading.Add(-1)
			})
		})
	}
	leader := func(want string) {
		t.Helper()
		kube.Eventually(t, time.Minute, want+" to lead", func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(order) == 0 || order[len(order)-1] != want {
				return fmt.Errorf("led so far: %q", order)
			}
			return nil
		})
	}
	cut := &cutter{}
	candidate("a", w.through(cut))
	leader("a")
	stopB := candidate("b", w.client)
	cut.cut()
	leader("b")
	cut.mend()
	stopB()
	leader("a")
	if most.Load() != 1 {
		t.Errorf("%d led at a time", most.Load())
	}
	if got := w.kubectl("get", "lease", leaseName, "--namespace="+ownNamespace, "--output=jsonpath={.spec.leaseTransitions}"); got != "2" {
		t.Errorf("the lease counts %s transitions, want 2", got)
	}
}

// cutter is a network that can be cut.
type cutter struct {
	mu    sync.Mutex
	off   bool
	conns []net.Conn
}

func (c *cutter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return nil, errors.New("cut off")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
	for _, conn := range c.conns {
		_ = conn.Close() // those that ended already
	}
	c.conns = nil
}

func (c *cutter) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = false
}

// through is a client whose connections can be cut.
func (w *world) through(c *cutter) *Client {
	w.t.Helper()
	settings, err := clientcmd.BuildConfigFromFlags("", w.Kubeconfig("admin"))
	if err != nil {
		w.t.Fatal(err)
	}
	settings.Dial = c.dial
	client, err := newClient(settings)
	if err != nil {
		w.t.Fatal(err)
	}
	return client
}

// TestNodeStates holds that each node owns its entry, and nothing else.
func TestNodeStates(t *testing.T) {
	w := newWorld(t)
	w.apply(redGateway)
	now := metav1.Now()
	set := func(node string, state *v1alpha1.NodeState) {
		t.Helper()
		if err := w.client.SetNodeState(t.Context(), "default", "red", node, state); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		if got := w.kubectl("get", "egw", "red", "--output=jsonpath={range .status.nodes[*]}{.node}={.state} {end}"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	set("n1", &v1alpha1.NodeState{Node: "n1", State: "Ready", Addresses: []string{"198.51.100.1"}, Since: &now})
	set("n2", &v1alpha1.NodeState{Node: "n2", State: "Ready", Since: &now})
	check("n1=Ready n2=Ready ")
	set("n1", &v1alpha1.NodeState{Node: "n1", State: "Failed", Message: "the network is down", Since: &now})
	check("n1=Failed n2=Ready ")
	set("n1", nil)
	check("n2=Ready ")
	if err := w.client.SetNodeState(t.Context(), "default", "none", "n1", nil); err != nil {
		t.Errorf("a gateway that is gone: %v", err)
	}
}
