package probes

import (
	"strconv"
	"strings"
	"time"
)

// maxError bounds TargetState.LastError, in bytes.
const maxError = 300

// outcome is a finished attempt. err == nil is a success.
type outcome struct {
	start, at time.Time
	rtt       time.Duration
	err       error
}

// tracker turns the attempts at one target into its verdict. It has no clock
// and starts nothing: time is what the outcomes say.
//
// Two machines stand behind one another. The first knows Rise and Fall only. The
// second follows it down at once, and up when neither hold-down nor damping
// object, which is asked anew at each attempt.
type tracker struct {
	state TargetState
	// streak is how many attempts in a row had the same outcome: positive for
	// successes, negative for failures. It outlives a change of thresholds,
	// which then apply to the next attempt.
	streak int
	// began is the start of the first attempt of the streak, healthy the end of it.
	began, healthy time.Time
	// plain is the verdict by Rise and Fall alone. What it does while the target is
	// kept down counts for damping, too.
	plain Verdict
	merit merit
	// punished says that there was a suppression since the target was Up.
	punished bool
}

// newTracker is a target of which nothing is known.
func newTracker(target string, now time.Time) tracker {
	return tracker{state: TargetState{Target: target, Verdict: Unknown, Since: now}}
}

// observe takes in an attempt and reports whether the verdict changed.
func (t *tracker) observe(o outcome, c *Config) bool {
	t.record(o)
	t.merit.decay(c.Damping, o.at)
	switch {
	case t.streak >= c.Rise:
		t.plain = Up
	case -t.streak >= c.Fall:
		if t.plain == Up {
			t.merit.flap(c.Damping)
		}
		t.plain = Down
	}
	verdict := t.plain
	t.state.HeldUntil = time.Time{}
	if verdict == Up && t.state.Verdict == Down {
		if held := t.heldUntil(c); o.at.Before(held) || t.merit.suppressed {
			verdict, t.state.HeldUntil = Down, held
		}
	}
	t.state.Penalty, t.state.Suppressed = t.merit.figure, t.merit.suppressed
	return t.turn(verdict, o.at)
}

// tell is observe, and says in change how the verdict changed.
func (t *tracker) tell(o outcome, c *Config, change *Change) bool {
	s := &t.state
	change.From = s.Verdict
	suppressed := s.Suppressed
	changed := t.observe(o, c)
	t.punished = t.punished || s.Suppressed
	if !changed {
		return false
	}
	change.To, change.Cause = s.Verdict, s.LastError
	change.Attempts = max(t.streak, -t.streak)
	change.Suppressed = s.Suppressed && !suppressed
	if change.From == Up && s.Verdict == Down {
		change.Detection = s.Detection
	}
	if s.Verdict == Up {
		change.Released, t.punished = t.punished, false
	}
	return true
}

// record counts the attempt.
func (t *tracker) record(o outcome) {
	s := &t.state
	s.Attempts++
	if o.err == nil {
		if t.streak <= 0 {
			t.streak, t.began, t.healthy = 0, o.start, o.at
		}
		t.streak++
		s.LastRTT, s.LastError = o.rtt, ""
		s.RTT.add(o.rtt)
		return
	}
	if t.streak >= 0 {
		t.streak, t.began = 0, o.start
	}
	t.streak--
	s.Failures++
	s.LastError = errorText(o.err)
}

// heldUntil is when a healthy target that is down may be up again.
func (t *tracker) heldUntil(c *Config) time.Time {
	held := t.healthy.Add(c.HoldDown)
	if t.merit.suppressed {
		if r := t.merit.release(c.Damping); r.After(held) {
			held = r
		}
	}
	return held
}

// turn changes the verdict.
func (t *tracker) turn(v Verdict, now time.Time) bool {
	s := &t.state
	if v == s.Verdict {
		return false
	}
	if s.Verdict == Up && v == Down {
		s.Detection = now.Sub(t.began)
	}
	s.Verdict, s.Since = v, now
	s.Changes++
	return true
}

// Quorum is the Require of n targets, n > 0.
func Quorum(n int) Require { return Require(strconv.Itoa(n)) }

// needs is how many of n targets must be up; 0 if r makes no sense.
func (r Require) needs(n int) int {
	switch r {
	case Any:
		return min(1, n)
	case All:
		return n
	}
	k, err := strconv.Atoi(string(r))
	if err != nil || k < 1 || k > n || r != Quorum(k) {
		return 0
	}
	return k
}

// combine is the verdict over the targets of a probe: up as soon as enough are
// up, down as soon as too few are left that could be. Otherwise, and without
// targets, nothing is known.
func combine(require Require, verdicts []Verdict) Verdict {
	need := require.needs(len(verdicts))
	if need == 0 {
		return Unknown
	}
	up, down := 0, 0
	for _, v := range verdicts {
		switch v {
		case Up:
			up++
		case Down:
			down++
		}
	}
	switch {
	case up >= need:
		return Up
	case len(verdicts)-down < need:
		return Down
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
