package cluster

import (
	"slices"
	"strings"
)

// AffectedPod is a pod whose traffic a gateway may carry.
type AffectedPod struct {
	Namespace, Name string
	// Perhaps means that maxNextHops lets the pod's node choose among more gateways
	// than it takes: only that node knows whether this is one of them.
	Perhaps bool
}

// Affected are the pods, in the order of the Snapshot, that one instance of a
// gateway (InstanceID) may carry traffic of: those to be told of its maintenance.
// A rule that prefers the gateways of the pod's own node leads to others only
// while none is there that does not drain.
func Affected(s Snapshot, instance string, mode Mode, memo *Memo) []AffectedPod {
	key, node, ok := strings.Cut(instance, "@")
	place := slices.IndexFunc(s.Gateways, func(g Gateway) bool { return g.Key() == key })
	if !ok || place < 0 || s.Gateways[place].at(node) == nil {
		return nil
	}
	l := newLookup(&s)
	b, c := newBinder(&s, l, mode, memo), newCandidates(&s, l)
	type question struct{ policy, node string }
	known := map[question]reach{}
	var affected []AffectedPod
	for i := range s.Pods {
		pod := &s.Pods[i]
		of := b.of(pod)
		if of.policy == "" || of.blocked {
			continue
		}
		q := question{of.policy, pod.Node}
		how, asked := known[q]
		if !asked {
			how = c.reaches(b.policy(of.policy), pod.Node, place, node)
			known[q] = how
		}
		if how != reachNever {
			affected = append(affected, AffectedPod{pod.Namespace, pod.Name, how == reachPerhaps})
		}
	}
	return affected
}

// reach says whether a gateway carries traffic of a client.
type reach int

const (
	reachNever reach = iota
	reachPerhaps
	reachCertain
)

// reaches says whether clients of p on a node reach gateway place on node at.
func (c *candidates) reaches(p *policy, from string, place int, at string) reach {
	best := reachNever
	for i := range p.rules {
		rule := &p.rules[i]
		if rule.to == nil || !slices.Contains(c.of(rule.to), place) {
			continue
		}
		total, local := 0, 0
		for _, g := range c.of(rule.to) {
			for j := range c.gateways[g].Instances {
				total++
				if i := &c.gateways[g].Instances[j]; i.Node == from && !c.gateways[g].draining(i) {
					local++
				}
			}
		}
		if rule.preferLocal && local > 0 {
			if at != from {
				continue
			}
			total = local
		}
		if rule.to.maxNextHops == 0 || rule.to.maxNextHops >= total {
			return reachCertain
		}
		best = reachPerhaps
	}
	return best
}
