package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Annotations that bind clients, on namespaces and pods.
const (
	AnnotationPolicy            = "egress.egret-router.io/egressGatewayPolicy"
	AnnotationSelector          = "egress.egret-router.io/selector"
	AnnotationNamespaceSelector = "egress.egret-router.io/namespaceSelector"
	AnnotationMaxNextHops       = "egress.egret-router.io/maxNextHops"
)

// Mode says whose annotations count.
type Mode string

// The modes. The zero value means PerNamespaceOrPerPod.
const (
	// PerNamespace ignores the annotations of pods.
	PerNamespace Mode = "EnabledPerNamespace"
	// PerNamespaceOrPerPod lets a pod's annotations replace its namespace's.
	PerNamespaceOrPerPod Mode = "EnabledPerNamespaceOrPerPod"
)

// bound is what a pod's traffic is subject to.
type bound struct {
	// policy is the key of a policy: a name, or one that begins with
	// implicitPrefix. "" is a pod without a policy, routed normally.
	policy string
	// blocked pods reach the inside of the cluster only. policy is then the name of
	// the missing policy, if that is why.
	blocked bool
}

// implicitPrefix begins the names of policies that annotations stand for. No
// object has such a name.
const implicitPrefix = "selector:"

// binder binds pods to policies.
type binder struct {
	lookup *lookup
	mode   Mode
	memo   *Memo
	// selecting are the policies with selectors, the first that matches counts.
	selecting []selecting
	// compiled are policies by key; nil for what is missing or wrong.
	compiled map[string]*policy
	// namespaces are those that were looked at.
	namespaces map[string]*boundNamespace
	problems   []Problem
}

// boundNamespace is what a namespace says of its pods.
type boundNamespace struct {
	bound
	// selected is the policy of the namespace's pods by their labels.
	selected map[string]string
	// selecting are the policies that may select them, once they were asked for.
	asked     bool
	selecting []selectingPods
}

// selectingPods is a policy that selects some of a namespace's pods.
type selectingPods struct {
	name string
	of   []*Selector
}

// selecting is a policy that selects its clients.
type selecting struct {
	name string
	of   []clientSelector
}

type clientSelector struct{ pods, namespaces *Selector }

func newBinder(s *Snapshot, l *lookup, mode Mode, memo *Memo) *binder {
	if memo == nil {
		memo = &Memo{} // for this call: pods of one workload have equal labels
	}
	b := &binder{lookup: l, mode: mode, memo: memo, compiled: map[string]*policy{},
		namespaces: map[string]*boundNamespace{}}
	var policies []*Policy
	for i := range s.Policies {
		if len(s.Policies[i].Selectors) > 0 {
			policies = append(policies, &s.Policies[i])
		}
	}
	slices.SortStableFunc(policies, func(p, q *Policy) int {
		if c := p.Created.Compare(q.Created); c != 0 {
			return c
		}
		return strings.Compare(p.Name, q.Name)
	})
	for _, p := range policies {
		if of := compileClients(p, nil); len(of) > 0 {
			b.selecting = append(b.selecting, selecting{p.Name, of})
		}
	}
	b.memo.forPolicies(policies)
	return b
}

// compileClients compiles the client selectors of a policy. One that is wrong
// selects nobody: whom it was meant for is unknown, and to block everybody
// instead would make one typing error everybody's.
func compileClients(p *Policy, r *reporter) []clientSelector {
	var of []clientSelector
	for i, c := range p.Selectors {
		pods, err := ParseSelector(c.Selector)
		if err != nil && r != nil {
			r.selector(fmt.Sprintf("spec.clients[%d].selector", i), c.Selector)
		}
		namespaces, nsErr := ParseSelector(c.NamespaceSelector)
		if nsErr != nil && r != nil {
			r.selector(fmt.Sprintf("spec.clients[%d].namespaceSelector", i), c.NamespaceSelector)
		}
		if err == nil && nsErr == nil {
			of = append(of, clientSelector{pods, namespaces})
		}
	}
	return of
}

// of says what binds a pod: its own annotations, else those of its namespace,
// else the first policy that selects it.
func (b *binder) of(pod *Pod) bound {
	if b.mode != PerNamespace && pod.Binding != (Binding{}) {
		r := &reporter{kind: KindPod, namespace: pod.Namespace, name: pod.Name}
		result := b.binding(&pod.Binding, pod.Namespace, r)
		b.problems = append(b.problems, r.problems...)
		if result != (bound{}) {
			return result
		}
	}
	ns := b.ofNamespace(pod.Namespace)
	if ns.bound != (bound{}) || len(b.selecting) == 0 {
		return ns.bound
	}
	return b.named(b.selects(pod, ns))
}

func (b *binder) ofNamespace(name string) *boundNamespace {
	if known := b.namespaces[name]; known != nil {
		return known
	}
	ns := b.lookup.namespace(name)
	result := &boundNamespace{}
	if ns.Binding != (Binding{}) {
		r := &reporter{kind: KindNamespace, name: name}
		result.bound = b.binding(&ns.Binding, name, r)
		b.problems = append(b.problems, r.problems...)
	}
	if len(b.selecting) > 0 {
		result.selected = b.memo.namespace(labelKey(ns.Labels) + "\x00" + name)
	}
	b.namespaces[name] = result
	return result
}

// selects is the name of the first policy whose selectors match, or "".
func (b *binder) selects(pod *Pod, ns *boundNamespace) string {
	key := labelKey(pod.Labels)
	if name, known := ns.selected[key]; known {
		return name
	}
	if !ns.asked {
		ns.asked = true
		ns.selecting = b.selectingIn(b.lookup.namespace(pod.Namespace))
	}
	name := ""
	for _, p := range ns.selecting {
		if slices.ContainsFunc(p.of, func(s *Selector) bool { return s.Matches(pod.Labels) }) {
			name = p.name
			break
		}
	}
	b.memo.put(ns.selected, key, name)
	return name
}

// selectingIn are the policies whose selectors match a namespace.
func (b *binder) selectingIn(ns *Namespace) []selectingPods {
	var result []selectingPods
	for _, p := range b.selecting {
		var of []*Selector
		for _, c := range p.of {
			if c.namespaces.MatchesNamespace(ns) {
				of = append(of, c.pods)
			}
		}
		if len(of) > 0 {
			result = append(result, selectingPods{p.name, of})
		}
	}
	return result
}

// binding says what annotations bind to. The zero bound: nothing.
func (b *binder) binding(a *Binding, namespace string, r *reporter) bound {
	if a.Policy != "" {
		if a.MaxNextHops != "" && a.Selector == "" {
			r.add(ReasonInvalid, annotation(AnnotationMaxNextHops), "is for gateways that are selected beside it: the policy has its own bounds")
		}
		result := b.named(a.Policy)
		if result.blocked && b.lookup.policies[a.Policy] == nil {
			r.add(ReasonNotFound, annotation(AnnotationPolicy), "there is no policy %s: all traffic that would leave the cluster is dropped", quote(a.Policy))
		}
		return result
	}
	if a.Selector == "" {
		r.add(ReasonInvalid, annotation(AnnotationSelector), "is missing: the other annotations mean nothing without it")
		return bound{}
	}
	to := &target{}
	to.selector = r.selector(annotation(AnnotationSelector), a.Selector)
	namespaces := a.NamespaceSelector
	if namespaces == "" {
		namespaces = LabelCalicoName + " == " + quoted(namespace)
	}
	to.namespaces = r.selector(annotation(AnnotationNamespaceSelector), namespaces)
	if a.MaxNextHops != "" {
		n, err := strconv.ParseUint(strings.TrimSpace(a.MaxNextHops), 10, 16)
		if err != nil {
			r.add(ReasonInvalid, annotation(AnnotationMaxNextHops), "%s is not allowed: a number is, 0 (all) to %d", quote(a.MaxNextHops), math.MaxUint16)
		}
		to.maxNextHops = int(n)
	}
	if !r.ok() {
		return bound{blocked: true}
	}
	key := implicitName(to)
	if b.compiled[key] == nil {
		b.compiled[key] = &policy{name: key, rules: []rule{{destinations: everything(), to: to}}}
	}
	return bound{policy: key}
}

func annotation(name string) string { return "metadata.annotations[" + name + "]" }

// implicitName is that of a policy with one rule. Equal annotations make one.
func implicitName(to *target) string {
	sum := sha256.Sum256([]byte(to.selector.String() + "\x00" + to.namespaces.String() + "\x00" + strconv.Itoa(to.maxNextHops)))
	return implicitPrefix + hex.EncodeToString(sum[:8])
}

// named is what a binding to a policy by name means. "" is none.
func (b *binder) named(name string) bound {
	if name == "" {
		return bound{}
	}
	return bound{policy: name, blocked: b.policy(name) == nil}
}

// policy is the compiled policy of a key; nil if it is missing or wrong.
func (b *binder) policy(key string) *policy {
	if p, known := b.compiled[key]; known {
		return p
	}
	var result *policy
	if p := b.lookup.policies[key]; p != nil {
		compiled, problems := compilePolicy(p)
		if len(problems) == 0 {
			result = compiled
		}
		b.problems = append(b.problems, problems...)
	}
	b.compiled[key] = result
	return result
}
