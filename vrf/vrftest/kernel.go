// Package vrftest is a kernel in memory for tests of what plans and applies
// vrf.Plans. It refuses what Linux refuses and has its side effects: changing a
// device's master takes it down and up, which flushes IPv6 addresses and drops
// next hops; losing a next hop shrinks groups; losing a group loses routes;
// losing a VRF releases its ports. The tests of package vrf run the same
// scenarios on it and on a real kernel (Linux 6.1) and compare.
package vrftest

import (
	"context"
	"slices"
	"sync"

	"github.com/egret-router/egret/vrf"
)

// Kernel is the fake. It is safe for concurrent use.
type Kernel struct {
	owner vrf.Owner

	mu        sync.Mutex
	links     []vrf.Link
	nextHops  []vrf.RawNextHop
	groups    []vrf.RawGroup
	routes    map[routeKey]vrf.RawRoute
	rules     []vrf.RawRule
	lastIndex int
	applied   []vrf.Action
	tried     int
	fail      func(n int, a vrf.Action) error
	snapshot  error
	watchers  map[*func()]bool
}

// New makes a kernel with a loopback device that is up, and links. Links without
// an index get one.
func New(owner vrf.Owner, links ...vrf.Link) *Kernel {
	k := &Kernel{owner: owner, routes: map[routeKey]vrf.RawRoute{}, watchers: map[*func()]bool{}}
	k.AddLink(vrf.Link{Name: "lo", Up: true, Carrier: true, MTU: 65536})
	for _, l := range links {
		k.AddLink(l)
	}
	return k
}

// Snapshot is what the real kernel's Snapshot is.
func (k *Kernel) Snapshot(ctx context.Context) (vrf.Snapshot, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return vrf.Snapshot{}, err
	}
	if k.snapshot != nil {
		return vrf.Snapshot{}, k.snapshot
	}
	return vrf.NewSnapshot(k.owner, k.raw()), nil
}

func (k *Kernel) raw() vrf.Raw {
	raw := vrf.Raw{
		NextHops: slices.Clone(k.nextHops), Rules: k.rawRules(),
		Routes: make([]vrf.RawRoute, 0, len(k.routes)),
	}
	for _, l := range k.links {
		l.Addresses = slices.Clone(l.Addresses)
		l.Carrier = k.running(l)
		raw.Links = append(raw.Links, l)
	}
	for _, g := range k.groups {
		g.Members = slices.Clone(g.Members)
		raw.Groups = append(raw.Groups, g)
	}
	for _, r := range k.routes {
		raw.Routes = append(raw.Routes, r)
	}
	return raw
}

// Apply carries out a plan, with the failures that were asked for.
func (k *Kernel) Apply(ctx context.Context, plan vrf.Plan) vrf.Result {
	told := false
	r := vrf.Execute(ctx, plan, func(a vrf.Action) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.tried++
		if k.fail != nil {
			if err := k.fail(k.tried, a); err != nil {
				return err
			}
		}
		if err := k.do(a); err != nil {
			return err
		}
		k.applied = append(k.applied, a)
		switch a.(type) {
		case vrf.PutNextHop, vrf.PutGroup, vrf.DeleteNextHop, vrf.PutRoute, vrf.DeleteRoute, vrf.AddRule, vrf.DeleteRule:
		default:
			told = true
		}
		return nil
	})
	if told {
		k.notify()
	}
	return r
}

// FailNth makes the n-th step from now on, counted from 1, fail with err.
func (k *Kernel) FailNth(n int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n += k.tried
	k.fail = func(i int, _ vrf.Action) error {
		if i == n {
			return err
		}
		return nil
	}
}

// FailIf makes every step fail for which fail has an error; nil ends it.
func (k *Kernel) FailIf(fail func(vrf.Action) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = nil
	if fail != nil {
		k.fail = func(_ int, a vrf.Action) error { return fail(a) }
	}
}

// FailSnapshot makes Snapshot fail with err until it is set to nil.
func (k *Kernel) FailSnapshot(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.snapshot = err
}

// Applied lists the steps that have succeeded since the last call.
func (k *Kernel) Applied() []vrf.Action {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.applied
	k.applied = nil
	return out
}

// Watch calls notify after every change until ctx ends, except what Apply does to next
// hops, groups, routes and rules, as the real kernel's.
func (k *Kernel) Watch(ctx context.Context, notify func()) error {
	k.mu.Lock()
	k.watchers[&notify] = true
	k.mu.Unlock()
	<-ctx.Done()
	k.mu.Lock()
	delete(k.watchers, &notify)
	k.mu.Unlock()
	return ctx.Err()
}

// Close does nothing; the real kernel has one.
func (k *Kernel) Close() error { return nil }

func (k *Kernel) notify() {
	k.mu.Lock()
	var all []func()
	for notify := range k.watchers {
		all = append(all, *notify)
	}
	k.mu.Unlock()
	for _, notify := range all {
		notify()
	}
}
