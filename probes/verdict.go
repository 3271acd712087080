package probes

import (
	"strings"
	"time"
)

// maxError bounds TargetState.LastError, in bytes.
const maxError = 300

// outcome is a finished attempt. err == nil is a success.
type outcome struct {
	at  time.Time
	rtt time.Duration
	err error
}

// tracker turns the attempts at one target into its verdict. It has no clock
// and starts nothing.
type tracker struct {
	state TargetState
	// streak is how many attempts in a row had the same outcome: positive for
	// successes, negative for failures. It outlives a change of thresholds,
	// which then apply to the next attempt.
	streak int
}

// newTracker is a target of which nothing is known.
func newTracker(target string, now time.Time) tracker {
	return tracker{state: TargetState{Target: target, Verdict: Unknown, Since: now}}
}

// observe takes in an attempt and reports whether the verdict changed: to Up
// after rise successes in a row, to Down after fall failures in a row.
func (t *tracker) observe(o outcome, rise, fall int) bool {
	t.state.Attempts++
	if o.err == nil {
		t.streak = max(t.streak, 0) + 1
		t.state.LastRTT, t.state.LastError = o.rtt, ""
	} else {
		t.streak = min(t.streak, 0) - 1
		t.state.Failures++
		t.state.LastError = errorText(o.err)
	}
	verdict := t.state.Verdict
	switch {
	case t.streak >= rise:
		verdict = Up
	case -t.streak >= fall:
		verdict = Down
	}
	if verdict == t.state.Verdict {
		return false
	}
	t.state.Verdict, t.state.Since = verdict, o.at
	return true
}

// combine is the verdict over the targets of a probe. Any: up if one is up, down
// only when all are down. All: down if one is down, up only when all are up.
// Otherwise, and without targets, nothing is known.
func combine(require Require, verdicts []Verdict) Verdict {
	decides, unanimous := Up, Down
	if require == All {
		decides, unanimous = Down, Up
	}
	same := 0
	for _, v := range verdicts {
		switch v {
		case decides:
			return decides
		case unanimous:
			same++
		}
	}
	if same > 0 && same == len(verdicts) {
		return unanimous
	}
	return Unknown
}

// errorText is one bounded line, whatever the far side made us say.
func errorText(err error) string {
	s := strings.ToValidUTF8(strings.Join(strings.Fields(err.Error()), " "), "?")
	if s == "" {
		return "failed"
	}
	if len(s) > maxError {
		s = strings.ToValidUTF8(s[:maxError-len("...")], "") + "..."
	}
	return s
}
