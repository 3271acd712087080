package crd

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

const (
	// retryAfter is the time to the next round after one with errors.
	retryAfter = time.Second
	// roundsAtLeast is the time from one round to the next when nothing happens.
	roundsAtLeast = 5 * time.Minute
	// maxMessage bounds a condition's message, in bytes; the API server takes 32 KiB.
	maxMessage = 4096
)

// ControllerOptions are the settings of a controller.
type ControllerOptions struct {
	// Identity is this process's, unique in the cluster. Namespace has the Lease.
	Identity, Namespace string
	Mode                cluster.Mode
	Election            ElectionOptions
	Log                 *slog.Logger
}

// Controller places gateways, hands out blocks and says what is wrong, while it
// leads. Views come from a Source of RoleController. What it decides it decides
// from the last View alone, and writes only over what that View had: so a second
// leader, in the moment of a change, does no harm.
type Controller struct {
	client  *Client
	options ControllerOptions
	memo    cluster.Memo
	fresh   chan struct{}
	mu      sync.Mutex
	last    *View
	now     func() time.Time
	told    map[event]time.Time // since when, by whoever leads
}

// NewController makes a controller; Run runs it.
func NewController(c *Client, o ControllerOptions) *Controller {
	return &Controller{client: c, options: o, fresh: make(chan struct{}, 1), now: time.Now}
}

// Deliver takes a View, in place of one that was not looked at yet.
func (c *Controller) Deliver(v View) {
	c.mu.Lock()
	c.last = &v
	c.mu.Unlock()
	select {
	case c.fresh <- struct{}{}:
	default:
	}
}

// Run takes part in the election until ctx ends, and does the work while it leads.
func (c *Controller) Run(ctx context.Context) error {
	return elect(ctx, c.client, c.options, c.lead)
}

// lead works until ctx ends: this one leads no longer.
func (c *Controller) lead(ctx context.Context) {
	timer := time.NewTimer(0) // what was delivered while another one led
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.fresh:
		case <-timer.C:
		}
		c.mu.Lock()
		view := c.last
		c.mu.Unlock()
		if view == nil || !view.Live {
			continue // a leader must see what it writes over
		}
		next, err := c.round(ctx, *view)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !errors.Is(err, ErrStale):
			c.options.Log.Error("cannot write to the API server", "err", err)
			next = min(next, retryAfter)
		case err != nil:
			next = min(next, retryAfter) // the newer state is on its way
		}
		timer.Reset(next)
	}
}

// round decides from a View and writes what differs. It returns when to decide
// again if nothing happens.
func (c *Controller) round(ctx context.Context, v View) (time.Duration, error) {
	s, now := v.Snapshot, c.now()
	placements, unplaced := cluster.Place(s, now)
	var errs []error
	for i := range placements {
		g := &s.Gateways[i]
		if slices.EqualFunc(placements[i].Instances, g.Instances, sameInstance) {
			continue
		}
		if err := c.client.setInstances(ctx, g, placements[i].Instances); err != nil {
			errs = append(errs, err)
			placements[i].Instances = g.Instances // a block is for who is placed, not for who will be
		}
	}
	allocations, exhausted := cluster.Allocate(s, placements)
	problems := slices.Concat(v.Problems, cluster.Validate(s, c.options.Mode), unplaced, exhausted)
	for i := range allocations {
		pool := &s.Pools[i]
		guarded := slices.Contains(v.objects[objectKey{cluster.KindPool, "", pool.Name}].finalizers, finalizer)
		if guarded && !slices.Equal(allocations[i].Allocations, pool.Allocations) {
			errs = append(errs, c.client.setAllocations(ctx, &s, placements, pool, allocations[i].Allocations))
		}
	}
	errs = append(errs, c.finalizers(ctx, &v), c.conditions(ctx, &v, problems), c.maintain(ctx, &v))
	more, err := c.tell(ctx, problems)
	next := nextRound(&s, now)
	if more {
		next = min(next, retryAfter)
	}
	return next, firstErrors(append(errs, err))
}

// firstErrors are the errors that are not about staleness, if there are any: else
// all, which the next View will mend.
func firstErrors(errs []error) error {
	var serious, rest []error
	for _, err := range errs {
		switch {
		case err == nil || isGone(err):
		case errors.Is(err, ErrStale):
			rest = append(rest, err)
		default:
			serious = append(serious, err)
		}
	}
	if len(serious) > 0 {
		return errors.Join(serious...)
	}
	return errors.Join(rest...)
}

// nextRound is the time to the next decision that nothing but time makes.
func nextRound(s *cluster.Snapshot, now time.Time) time.Duration {
	next := cluster.NextPlace(*s, now)
	if next.IsZero() {
		return roundsAtLeast
	}
	return min(roundsAtLeast, max(next.Sub(now), 10*time.Millisecond))
}

// finalizers are on every gateway, until it was deleted and nothing of it is left,
// and on every pool, until it was deleted and nobody holds a block of it: made anew
// under its name, it would give addresses away that are in use.
func (c *Controller) finalizers(ctx context.Context, v *View) error {
	held := map[string]bool{}
	var errs []error
	want := func(k objectKey, uid string, deleted, left bool) {
		has := slices.Contains(v.objects[k].finalizers, finalizer)
		switch {
		case !deleted && !has:
			errs = append(errs, c.client.setFinalizer(ctx, k, uid, true))
		case deleted && has && !left:
			errs = append(errs, c.client.setFinalizer(ctx, k, uid, false))
		}
	}
	for i := range v.Snapshot.Pools {
		p := &v.Snapshot.Pools[i]
		for _, a := range p.Allocations {
			held[a.Gateway+"\x00"+a.UID] = true
		}
		k := objectKey{cluster.KindPool, "", p.Name}
		want(k, v.objects[k].uid, p.Deleted, len(p.Allocations) > 0)
	}
	for i := range v.Snapshot.Gateways {
		g := &v.Snapshot.Gateways[i]
		want(objectKey{cluster.KindGateway, g.Namespace, g.Name}, g.UID, !g.Deleted.IsZero(), len(g.Instances) > 0 || held[g.Key()+"\x00"+g.UID])
	}
	return firstErrors(errs)
}

// conditions writes those that differ from what objects have.
func (c *Controller) conditions(ctx context.Context, v *View, problems []cluster.Problem) error {
	by := map[objectKey][]cluster.Problem{}
	for _, p := range withoutConsequences(problems) {
		k := objectKey{p.Kind, p.Namespace, p.Name}
		by[k] = append(by[k], p)
	}
	var errs []error
	for k, o := range v.objects {
		if o.deleted {
			continue
		}
		if condition, changed := condition(o, by[k], c.now()); changed {
			errs = append(errs, c.client.setCondition(ctx, k, o.uid, condition))
		}
	}
	return firstErrors(errs)
}

// withoutConsequences drops what follows from a pool that a gateway could not be
// given (its network, and where it is placed), and gives fields the names that they
// have in objects.
func withoutConsequences(problems []cluster.Problem) []cluster.Problem {
	type gateway struct{ namespace, name string }
	named := map[gateway]string{} // the field that names no pool
	for _, p := range problems {
		if of := (gateway{p.Namespace, p.Name}); p.Kind == cluster.KindGateway && (p.Field == "spec.pool" && named[of] == "" || p.Field == "spec.ipPools[0].cidr") {
			named[of] = p.Field
		}
	}
	var kept []cluster.Problem
	for _, p := range problems {
		if field := named[gateway{p.Namespace, p.Name}]; p.Kind == cluster.KindGateway && field != "" {
			noNetwork := p.Field == "spec.externalNetwork" && p.Reason == cluster.ReasonInvalid
			if noNetwork || p.Reason == cluster.ReasonUnplaced || p.Field == "spec.pool" && field != p.Field {
				continue
			}
		}
		if p.Kind == cluster.KindGateway && p.Field == "spec.pool" {
			p.Field = "spec.ipPools[0].name"
		} else if p.Kind == cluster.KindGateway && p.Field == "spec.externalNetwork" {
			p.Field = "spec.externalNetworks"
		}
		if !slices.Contains(kept, p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// condition is what an object's should be, and whether it differs from what it is.
func condition(o objectState, problems []cluster.Problem, now time.Time) (metav1.Condition, bool) {
	want := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady,
		ObservedGeneration: o.generation, LastTransitionTime: metav1.NewTime(now)}
	if len(problems) > 0 {
		want.Status, want.Reason = metav1.ConditionFalse, problems[0].Reason
		var lines []string
		for _, p := range problems {
			if p.Field != "" {
				p.Message = p.Field + ": " + p.Message
			}
			lines = append(lines, p.Message)
		}
		want.Message = strings.Join(lines, "; ")
		if len(want.Message) > maxMessage {
			want.Message = strings.ToValidUTF8(want.Message[:maxMessage], "") + "..."
		}
	}
	have := o.ready
	if have == nil {
		return want, true
	}
	if have.Status == want.Status {
		want.LastTransitionTime = have.LastTransitionTime
	}
	return want, have.Status != want.Status || have.Reason != want.Reason || have.Message != want.Message || have.ObservedGeneration != want.ObservedGeneration
}
