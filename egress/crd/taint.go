package crd

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TaintAgentNotReady keeps pods away from a node until its agent is ready. Whoever
// makes nodes adds it (kubelet --register-with-taints); the agent takes it away.
const TaintAgentNotReady = "egret-router.io/agent-not-ready"

func isNotReadyTaint(t corev1.Taint) bool { return t.Key == TaintAgentNotReady }

func hasTaint(n *corev1.Node) bool { return slices.ContainsFunc(n.Spec.Taints, isNotReadyTaint) }

const (
	// askReady is how often the agent is asked whether it is ready, while the taint is there.
	askReady = 100 * time.Millisecond
	// untaintRetry is the time from one write that fails to the next.
	untaintRetry = 5 * time.Second
)

// Untainter takes the taint from its node whenever it is there and the agent ready.
type Untainter struct {
	client *Client
	node   string
	ready  func() bool
	log    *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex
	tainted bool
}

// NewUntainter makes an Untainter; Run runs it.
func NewUntainter(c *Client, node string, ready func() bool, log *slog.Logger) *Untainter {
	return &Untainter{client: c, node: node, ready: ready, log: log, wake: make(chan struct{}, 1)}
}

// Deliver takes a View, which says whether the taint is there.
func (u *Untainter) Deliver(v View) {
	u.mu.Lock()
	u.tainted = v.Live && v.notReady[u.node]
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *Untainter) isTainted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.tainted
}

// Run works until ctx ends.
func (u *Untainter) Run(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.wake:
		case <-again:
		}
		again = nil
		switch {
		case !u.isTainted():
		case !u.ready():
			again = time.After(askReady)
		default:
			err := u.client.removeTaint(ctx, u.node)
			if err != nil && ctx.Err() == nil {
				u.log.Warn("the taint of this node cannot be taken away", "taint", TaintAgentNotReady, "err", err)
				again = time.After(untaintRetry)
			} else {
				u.log.Info("this node takes pods", "taint", TaintAgentNotReady)
			}
		}
	}
}

// removeTaint takes the taint from a node, if nobody else changed the node meanwhile:
// else ErrStale.
func (c *Client) removeTaint(ctx context.Context, name string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var node corev1.Node
	if err := c.core.Get().Resource("nodes").Name(name).Do(ctx).Into(&node); err != nil {
		return fmt.Errorf("read node %s: %w", name, err)
	}
	if !hasTaint(&node) {
		return nil
	}
	rest := slices.DeleteFunc(node.Spec.Taints, isNotReadyTaint)
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": node.ResourceVersion}, "spec": map[string]any{"taints": rest}})
	if err != nil {
		return err
	}
	if err := c.core.Patch(types.MergePatchType).Resource("nodes").Name(name).Body(text).Do(ctx).Error(); err != nil {
		return stale(fmt.Errorf("change node %s: %w", name, err))
	}
	return nil
}
