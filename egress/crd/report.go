package crd

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/egret-router/egret/egress/cluster"
	"github.com/egret-router/egret/egress/crd/v1alpha1"
)

// The states of a NodeReport.
const (
	StateReady    = "Ready"
	StateFailed   = "Failed"
	StateDraining = "Draining"
)

const (
	// settle is how long a report waits for more: a network that flaps is not a
	// write for each time.
	settle = 500 * time.Millisecond
	// unseen is how long a write may be on its way through the watch before it is
	// made again.
	unseen = 10 * time.Second
	// maxStateMessage is what the schema takes.
	maxStateMessage = 1024
)

// NodeReport is how a gateway is on this node.
type NodeReport struct {
	// State is one of the three.
	State string
	// Message says why, if it failed.
	Message string
	// Addresses are the blocks in use.
	Addresses []string
}

// Reporter keeps what a node says of its gateways in their status. It is the
// record for people; clients' nodes ask the node itself. Neither Set nor Deliver
// waits for the API server.
type Reporter struct {
	client *Client
	node   string
	log    *slog.Logger
	wake   chan struct{}

	mu   sync.Mutex
	want map[string]NodeReport
	view *View
	// told are the last writes, until the watch shows them.
	told map[string]toldReport
}

type toldReport struct {
	at     time.Time
	report *NodeReport
}

// NewReporter makes a Reporter; Run runs it.
func NewReporter(c *Client, node string, log *slog.Logger) *Reporter {
	return &Reporter{client: c, node: node, log: log, wake: make(chan struct{}, 1), told: map[string]toldReport{}}
}

// Set says how all gateways of this node are, by namespace/name. Entries of
// others are taken away, also those of an earlier process.
func (r *Reporter) Set(reports map[string]NodeReport) {
	r.mu.Lock()
	r.want = maps.Clone(reports)
	if r.want == nil {
		r.want = map[string]NodeReport{}
	}
	r.mu.Unlock()
	r.fire()
}

// Deliver takes a View, which says what the status has.
func (r *Reporter) Deliver(v View) {
	if !v.Live {
		return
	}
	r.mu.Lock()
	r.view = &v
	r.mu.Unlock()
	r.fire()
}

func (r *Reporter) fire() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	retry := time.NewTicker(unseen)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-retry.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		for _, w := range r.due(time.Now()) {
			namespace, name, _ := strings.Cut(w.gateway, "/")
			err := r.client.SetNodeState(ctx, namespace, name, r.node, w.state)
			if err != nil && ctx.Err() == nil {
				r.log.Warn("cannot report the state of a gateway", "gateway", w.gateway, "err", err)
				r.mu.Lock()
				delete(r.told, w.gateway) // again at the next tick
				r.mu.Unlock()
			}
		}
	}
}

// stateWrite is one entry to write; nil takes it away.
type stateWrite struct {
	gateway string
	state   *v1alpha1.NodeState
}

// due are the entries that differ from what is wanted, and notes that they are
// being written.
func (r *Reporter) due(now time.Time) []stateWrite {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.want == nil || r.view == nil {
		return nil
	}
	var writes []stateWrite
	for k, o := range r.view.objects {
		if k.kind != cluster.KindGateway {
			continue
		}
		key := k.namespace + "/" + k.name
		want, wanted := r.want[key]
		have := slices.IndexFunc(o.nodes, func(n v1alpha1.NodeState) bool { return n.Node == r.node })
		switch {
		case !wanted && have < 0, wanted && have >= 0 && says(o.nodes[have], want):
			delete(r.told, key)
			continue
		case r.isOnItsWay(key, want, wanted, now):
			continue
		}
		w := stateWrite{gateway: key}
		told := toldReport{at: now}
		if wanted {
			since := metav1.NewTime(now)
			if have >= 0 && o.nodes[have].State == want.State && o.nodes[have].Since != nil {
				since = *o.nodes[have].Since
			}
			w.state = &v1alpha1.NodeState{Node: r.node, State: want.State, Message: bound(want.Message), Addresses: want.Addresses, Since: &since}
			told.report = &want
		}
		r.told[key] = told
		writes = append(writes, w)
	}
	slices.SortFunc(writes, func(a, b stateWrite) int { return strings.Compare(a.gateway, b.gateway) })
	return writes
}

// isOnItsWay says whether the same was written a moment ago.
func (r *Reporter) isOnItsWay(key string, want NodeReport, wanted bool, now time.Time) bool {
	told, ok := r.told[key]
	if !ok || now.Sub(told.at) >= unseen || wanted != (told.report != nil) {
		return false
	}
	return !wanted || told.report.State == want.State && told.report.Message == want.Message && slices.Equal(told.report.Addresses, want.Addresses)
}

func says(n v1alpha1.NodeState, want NodeReport) bool {
	return n.State == want.State && n.Message == bound(want.Message) && slices.Equal(n.Addresses, want.Addresses)
}

func bound(message string) string {
	if len(message) <= maxStateMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxStateMessage], "")
}
