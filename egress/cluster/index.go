package cluster

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// DefaultLabel is the label of a gateway that has none of its own; its value is
// the gateway's name.
const DefaultLabel = "egret-router.io/egw"

// LabelZone is the label of nodes that gateways are spread over.
const LabelZone = "topology.kubernetes.io/zone"

// Key is namespace/name.
func (g *Gateway) Key() string { return g.Namespace + "/" + g.Name }

// labels are what selectors see.
func (g *Gateway) labels() map[string]string {
	if len(g.Labels) == 0 {
		return map[string]string{DefaultLabel: g.Name}
	}
	return g.Labels
}

// InstanceID is the name of a gateway on a node, in steer.Config and in what the
// gateway's node answers to the question for its health.
func InstanceID(gateway, node string) string { return gateway + "@" + node }

// Ends are a node's ends of the tunnel, at most one of each family.
func (n *Node) Ends() []netip.Addr {
	var ends []netip.Addr
	for _, four := range []bool{true, false} {
		if i := slices.IndexFunc(n.Addresses, func(a netip.Addr) bool { return a.Unmap().Is4() == four && a.Zone() == "" }); i >= 0 {
			ends = append(ends, n.Addresses[i].Unmap())
		}
	}
	return ends
}

// lookup finds objects by name.
type lookup struct {
	nodes      map[string]*Node
	namespaces map[string]*Namespace
	networks   map[string]*Network
	pools      map[string]*Pool
	policies   map[string]*Policy
}

func newLookup(s *Snapshot) *lookup {
	l := &lookup{
		nodes: make(map[string]*Node, len(s.Nodes)), namespaces: make(map[string]*Namespace, len(s.Namespaces)),
		networks: make(map[string]*Network, len(s.Networks)), pools: make(map[string]*Pool, len(s.Pools)),
		policies: make(map[string]*Policy, len(s.Policies)),
	}
	for i := range s.Nodes {
		l.nodes[s.Nodes[i].Name] = &s.Nodes[i]
	}
	for i := range s.Namespaces {
		l.namespaces[s.Namespaces[i].Name] = &s.Namespaces[i]
	}
	for i := range s.Networks {
		l.networks[s.Networks[i].Name] = &s.Networks[i]
	}
	for i := range s.Pools {
		l.pools[s.Pools[i].Name] = &s.Pools[i]
	}
	for i := range s.Policies {
		l.policies[s.Policies[i].Name] = &s.Policies[i]
	}
	return l
}

// namespace is never nil: one whose object is not there (yet) has its name only.
func (l *lookup) namespace(name string) *Namespace {
	if ns := l.namespaces[name]; ns != nil {
		return ns
	}
	ns := &Namespace{Name: name}
	l.namespaces[name] = ns
	return ns
}

// host is what of n holds on a node, and its place in Hosts; -1 if the node cannot
// carry the network. Selectors that are wrong match nothing.
func (n *Network) host(node *Node) int {
	return slices.IndexFunc(n.Hosts, func(h Host) bool {
		s, err := ParseSelector(h.NodeSelector)
		return err == nil && s.Matches(node.Labels)
	})
}

// maxQuoted bounds how much of a user's value a message repeats, in bytes.
const maxQuoted = 80

// quote makes s fit into one line of a message.
func quote(s string) string {
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "..."
	}
	return strconv.Quote(s)
}

// oneLine says whether a description fits into a configuration.
func oneLine(s string) bool {
	return len(s) <= 256 && !strings.ContainsFunc(s, unicode.IsControl)
}

// family names the address family for messages.
func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
