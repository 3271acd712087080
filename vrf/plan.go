package vrf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Op is one step of a Plan.
type Op struct {
	Action Action
	// Network is the VRF the step is for, "" when it is for none or several.
	Network string
	// Needs are the steps (indexes into Plan.Ops, all smaller than this one's)
	// without which this one must not be tried.
	Needs []int
}

// String is the action, for a log line or a terminal.
func (o Op) String() string { return o.Action.String() }

// Plan is an ordered list of steps that lead from one Snapshot to a Config, and
// what of the Config cannot be reached.
type Plan struct {
	Ops []Op
	// Errors is what cannot be had, sorted. A want that is impossible leaves out
	// its own steps and those that depend on it; everything else is planned.
	Errors []NetworkError
}

// NetworkError is something of one network ("" for what all share) that cannot
// be planned.
type NetworkError struct {
	Network string
	Err     error
}

func (e NetworkError) Error() string {
	if e.Network == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("network %q: %v", e.Network, e.Err)
}

func (e NetworkError) Unwrap() error { return e.Err }

// Empty reports that there is nothing to do. Errors may still be present.
func (p Plan) Empty() bool { return len(p.Ops) == 0 }

// String is one line per step, then one per error.
func (p Plan) String() string {
	var b strings.Builder
	for _, op := range p.Ops {
		b.WriteString(op.Action.String())
		b.WriteByte('\n')
	}
	for _, e := range p.Errors {
		b.WriteString("# " + e.Error() + "\n")
	}
	return b.String()
}

// ErrSkipped marks a step that was not tried because a step it needs failed.
var ErrSkipped = errors.New("skipped, a step before it failed")

// OpError is a step that failed or was skipped.
type OpError struct {
	Op  Op
	Err error
}

func (e OpError) Error() string { return fmt.Sprintf("apply %q: %v", e.Op.Action.String(), e.Err) }

func (e OpError) Unwrap() error { return e.Err }

// Result is what became of a Plan.
type Result struct {
	// Applied counts the steps that succeeded.
	Applied int
	// Errors are the steps that did not, in the order of the plan.
	Errors []OpError
}

// maxJoined bounds the errors that one message spells out.
const maxJoined = 8

// Err joins the errors of the steps that failed, nil when there are none. Steps
// that were skipped, and failures beyond the first 8, are only counted.
func (r Result) Err() error { return joinOpErrors(r.Errors) }

// Failed gives every network with failed or skipped steps its error, as Err
// does. The key "" holds the steps that belong to no network.
func (r Result) Failed() map[string]error {
	byNetwork := map[string][]OpError{}
	for _, e := range r.Errors {
		byNetwork[e.Op.Network] = append(byNetwork[e.Op.Network], e)
	}
	out := make(map[string]error, len(byNetwork))
	for network, list := range byNetwork {
		out[network] = joinOpErrors(list)
	}
	return out
}

func joinOpErrors(list []OpError) error {
	var shown []error
	rest := 0
	for _, e := range list {
		if errors.Is(e.Err, ErrSkipped) || len(shown) == maxJoined {
			rest++
			continue
		}
		shown = append(shown, e)
	}
	if rest > 0 {
		shown = append(shown, fmt.Errorf("%d more steps failed or were skipped", rest))
	}
	return errors.Join(shown...)
}

// Execute walks a plan in order and has do carry out each step whose needs are
// met. After ctx has ended the remaining steps fail with its error.
func Execute(ctx context.Context, plan Plan, do func(Action) error) Result {
	var r Result
	failed := make([]bool, len(plan.Ops))
	for i, op := range plan.Ops {
		err := ctx.Err()
		if err == nil && slices.ContainsFunc(op.Needs, func(n int) bool { return failed[n] }) {
			err = ErrSkipped
		}
		if err == nil {
			err = do(op.Action)
		}
		if err != nil {
			failed[i] = true
			r.Errors = append(r.Errors, OpError{Op: op, Err: err})
			continue
		}
		r.Applied++
	}
	return r
}
