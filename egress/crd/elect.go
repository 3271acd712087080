package crd

import (
	"cmp"
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The Lease is as other controllers have it (the client library's election), so
// that people and tools can read it. The library itself would add 14 MB to the
// binary: it knows all of Kubernetes' kinds.

// leaseName is in Egret's own namespace.
const leaseName = "egret-controller"

// ElectionOptions are the times of the election. The zero value means 15 s, 10 s
// and 2 s.
type ElectionOptions struct {
	// Lease is how long a leader that is silent keeps the others waiting.
	Lease time.Duration
	// Renew is how long a leader goes on without having renewed; less than Lease.
	Renew time.Duration
	// Retry is the time from one attempt to the next.
	Retry time.Duration
}

// elector is one candidate.
type elector struct {
	client   *Client
	options  ControllerOptions
	times    ElectionOptions
	observed coordinationv1.LeaseSpec
	// since is when the record was first seen as it is, by our own clock: those of
	// others do not matter.
	since time.Time
}

// elect calls lead each time this process leads, with a context that ends when it
// does no longer, and returns when ctx ends. At the end the Lease is given back,
// so that another one need not wait for it to run out.
func elect(ctx context.Context, c *Client, o ControllerOptions, lead func(context.Context)) error {
	times := ElectionOptions{cmp.Or(o.Election.Lease, 15*time.Second), cmp.Or(o.Election.Renew, 10*time.Second), cmp.Or(o.Election.Retry, 2*time.Second)}
	if times.Renew >= times.Lease || times.Retry >= times.Renew {
		return fmt.Errorf("election: lease %v must exceed renew %v, and that retry %v", times.Lease, times.Renew, times.Retry)
	}
	e := &elector{client: c, options: o, times: times}
	tick := time.NewTicker(times.Retry)
	defer tick.Stop()
	for {
		acquired, err := e.try(ctx, times.Renew)
		if acquired {
			o.Log.Info("this controller leads", "identity", o.Identity)
			e.hold(ctx, lead)
			o.Log.Info("this controller leads no longer", "identity", o.Identity)
		} else if err != nil && ctx.Err() == nil {
			o.Log.Warn("cannot take part in the election", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// hold leads until ctx ends or the Lease could not be renewed in time.
func (e *elector) hold(ctx context.Context, lead func(context.Context)) {
	leading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lead(leading)
	}()
	renewed := time.Now()
	tick := time.NewTicker(e.times.Retry)
	defer tick.Stop()
	for leading.Err() == nil {
		select {
		case <-ctx.Done():
			stop()
		case <-tick.C:
			left := e.times.Renew - time.Since(renewed)
			began := time.Now()
			ok := false
			if left > 0 {
				ok, _ = e.try(ctx, left) // an error is as good as no answer
			}
			switch {
			case ok:
				renewed = began
			case time.Since(renewed) >= e.times.Renew, e.observed.HolderIdentity != nil && *e.observed.HolderIdentity != e.options.Identity:
				stop()
			}
		}
	}
	stop()
	<-done
	if ctx.Err() != nil {
		e.release(context.WithoutCancel(ctx))
	}
}

// try takes or renews the Lease, and says whether we have it.
func (e *elector) try(ctx context.Context, limit time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, min(limit, requestTimeout))
	defer cancel()
	lease, err := e.read(ctx)
	if err != nil {
		return false, err
	}
	if lease == nil {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaseName, Namespace: e.options.Namespace}}
	} else if e.isTaken(lease) {
		return false, nil
	}
	e.claim(&lease.Spec)
	request := e.client.leases.Put().Name(leaseName)
	if lease.ResourceVersion == "" {
		request = e.client.leases.Post()
	}
	err = request.Resource("leases").Namespace(e.options.Namespace).Body(lease).Do(ctx).Into(lease)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return false, nil // another was faster
	}
	if err != nil {
		return false, fmt.Errorf("write lease: %w", err)
	}
	e.observe(lease.Spec)
	return true, nil
}

// read returns nil for a Lease that is not there.
func (e *elector) read(ctx context.Context) (*coordinationv1.Lease, error) {
	var lease coordinationv1.Lease
	err := e.client.leases.Get().Resource("leases").Namespace(e.options.Namespace).Name(leaseName).Do(ctx).Into(&lease)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read lease: %w", err)
	}
	e.observe(lease.Spec)
	return &lease, nil
}

func (e *elector) observe(spec coordinationv1.LeaseSpec) {
	same := spec.HolderIdentity != nil && e.observed.HolderIdentity != nil && *spec.HolderIdentity == *e.observed.HolderIdentity &&
		spec.RenewTime != nil && e.observed.RenewTime != nil && spec.RenewTime.Equal(e.observed.RenewTime)
	if !same {
		e.observed, e.since = *spec.DeepCopy(), time.Now()
	}
}

// isTaken says whether another one has the Lease and was heard of in time.
func (e *elector) isTaken(lease *coordinationv1.Lease) bool {
	holder := lease.Spec.HolderIdentity
	if holder == nil || *holder == "" || *holder == e.options.Identity {
		return false
	}
	length := e.times.Lease
	if s := lease.Spec.LeaseDurationSeconds; s != nil {
		length = time.Duration(*s) * time.Second
	}
	return time.Since(e.since) < length
}

func (e *elector) claim(spec *coordinationv1.LeaseSpec) {
	now := metav1.NowMicro()
	if spec.HolderIdentity == nil || *spec.HolderIdentity != e.options.Identity {
		spec.AcquireTime = &now
		changes := int32(0)
		if spec.LeaseTransitions != nil {
			changes = *spec.LeaseTransitions + 1
		}
		spec.LeaseTransitions = &changes
	}
	seconds := int32((e.times.Lease + time.Second - 1) / time.Second)
	spec.HolderIdentity, spec.LeaseDurationSeconds, spec.RenewTime = &e.options.Identity, &seconds, &now
}

// release gives the Lease back, if we have it.
func (e *elector) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	lease, err := e.read(ctx)
	if err != nil || lease == nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != e.options.Identity {
		return
	}
	nobody, now := "", metav1.NowMicro()
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = &nobody, &now
	err = e.client.leases.Put().Resource("leases").Namespace(e.options.Namespace).Name(leaseName).Body(lease).Do(ctx).Error()
	if err != nil {
		e.options.Log.Warn("cannot give the lease back: the next leader waits for its end", "err", err)
	}
}
