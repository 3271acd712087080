package crd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"
)

const (
	// syncPause is from one look for the end of a list to the next.
	syncPause = 10 * time.Millisecond
	// saveGap is the time from one writing of the state file to the next.
	saveGap = time.Second
	// defaultPatience is short beside the start of a node, and long beside the
	// answer of an API server that can be reached.
	defaultPatience = 5 * time.Second
)

// SourceOptions are what a Source watches, and for whom.
type SourceOptions struct {
	Role Role
	// Node is the own node's name.
	Node string
	// Namespace is where Egret itself is, with its Secrets.
	Namespace string
	// StateFile keeps the last good Snapshot over restarts; "" keeps none.
	StateFile string
	// Patience is how long to wait for the API server before the state file is used.
	Patience time.Duration
	// Deliver takes every View, from one goroutine. The next waits until it returns.
	Deliver func(View)
	Log     *slog.Logger
}

// Source delivers Views of a cluster: complete ones only, the first when the API
// server has told everything or, after some patience, from the disk. While the API server
// cannot be reached nothing is delivered, so that the last View holds.
type Source struct {
	options SourceOptions
	watches *watches
	trigger chan struct{}
	known   *conversions

	last      *View
	delivered bool
	unsaved   bool
}

// NewSource makes a Source; Run runs it.
func NewSource(c *Client, o SourceOptions) *Source {
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	s := &Source{options: o, trigger: make(chan struct{}, 1), known: newConversions(o.Namespace)}
	s.watches = newWatches(c, o, s.fire)
	return s
}

// fire wakes the loop; many calls before it looks are one.
func (s *Source) fire() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}

// Run watches and delivers until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for _, w := range s.watches.all() {
		running.Go(func() { w.controller.RunWithContext(ctx) })
		// An empty kind has no event: its end of the list is one, too.
		running.Go(func() {
			for !w.synced() {
				select {
				case <-ctx.Done():
					return
				case <-time.After(syncPause):
				}
			}
			s.fire()
		})
	}
	s.loop(ctx)
	if s.unsaved {
		return s.save()
	}
	return nil
}

func (s *Source) loop(ctx context.Context) {
	impatient := time.NewTimer(s.options.Patience)
	defer impatient.Stop()
	save := time.NewTicker(saveGap)
	defer save.Stop()
	var pace pace
	for {
		select {
		case <-ctx.Done():
			return
		case <-impatient.C:
			s.fallBack()
		case <-save.C:
			if s.unsaved {
				if err := s.save(); err != nil {
					s.options.Log.Error("cannot keep the state of the cluster for a restart", "err", err)
				}
			}
		case <-s.trigger:
			if !s.complete() {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pace.wait(time.Now())):
			}
			begin := time.Now()
			s.look()
			pace.took(time.Now(), time.Since(begin))
		}
	}
}

func (s *Source) complete() bool {
	for _, w := range s.watches.all() {
		if !w.synced() {
			return false
		}
	}
	return true
}

// look delivers what the watches have, if it differs from what was delivered.
func (s *Source) look() {
	// What comes while this reads comes again: drained before, so that it is seen.
	select {
	case <-s.trigger:
	default:
	}
	v := s.watches.view(s.known)
	if s.last != nil && s.last.Live && reflect.DeepEqual(*s.last, v) {
		return
	}
	if s.last == nil || !s.last.Live {
		s.options.Log.Info("the cluster is known", "nodes", len(v.Snapshot.Nodes), "pods", len(v.Snapshot.Pods),
			"networks", len(v.Snapshot.Networks), "gateways", len(v.Snapshot.Gateways), "policies", len(v.Snapshot.Policies))
	}
	s.unsaved = s.options.StateFile != "" && (s.unsaved || s.last == nil || !reflect.DeepEqual(s.last.Snapshot, v.Snapshot))
	s.last, s.delivered = &v, true
	s.options.Deliver(v)
}

// fallBack delivers what the disk has, while the API server has told nothing.
func (s *Source) fallBack() {
	if s.delivered || s.options.StateFile == "" {
		return
	}
	state, err := readState(s.options.StateFile)
	if err != nil {
		s.options.Log.Warn("the API server cannot be reached, and there is no earlier state to go on with", "err", err)
		return
	}
	if state.Role != s.options.Role || state.Node != s.options.Node {
		s.options.Log.Warn("the API server cannot be reached, and the earlier state is another role's or node's", "role", state.Role, "node", state.Node)
		return
	}
	s.options.Log.Warn("the API server cannot be reached: going on with the last known state of the cluster", "written", state.Written)
	v := View{Snapshot: state.Snapshot, Problems: state.Problems}
	s.last, s.delivered = &v, true
	s.options.Deliver(v)
}

// save writes the state file.
func (s *Source) save() error {
	if s.last == nil || !s.last.Live {
		return errors.New("nothing to keep")
	}
	s.unsaved = false
	err := writeState(s.options.StateFile, savedState{Role: s.options.Role, Node: s.options.Node, Written: time.Now().UTC(),
		Snapshot: s.last.Snapshot, Problems: s.last.Problems})
	if err != nil {
		s.unsaved = true // once more at the next tick
		return fmt.Errorf("keep state: %w", err)
	}
	return nil
}
