package probes

import (
	"math"
	"time"
)

// merit is the figure of merit of one target (RFC 2439, 4.2): a penalty that
// decays. It has no clock: every call says what time it is.
type merit struct {
	figure float64 // at the time at
	at     time.Time
	// suppressed is kept between Suppress and Reuse.
	suppressed bool
}

// decay brings the figure to now, and ends a suppression below Reuse. Time that
// runs backwards decays nothing. Without damping everything is forgotten.
func (m *merit) decay(d *Damping, now time.Time) {
	if d == nil {
		*m = merit{at: now}
		return
	}
	if age := now.Sub(m.at); age > 0 {
		m.figure *= math.Exp2(-float64(age) / float64(d.HalfLife))
		m.at = now
	}
	m.figure = min(m.figure, d.Ceiling()) // the rules may have changed
	if m.figure < float64(d.Reuse) {
		m.suppressed = false
	}
}

// flap adds the penalty of one Down. decay to the same time came before.
func (m *merit) flap(d *Damping) {
	if d == nil {
		return
	}
	m.figure = min(m.figure+float64(d.Penalty), d.Ceiling())
	if m.figure >= float64(d.Suppress) {
		m.suppressed = true
	}
}

// release is when the figure falls below Reuse if nothing is added.
func (m *merit) release(d *Damping) time.Time {
	if d == nil || m.figure < float64(d.Reuse) {
		return m.at
	}
	return m.at.Add(time.Duration(float64(d.HalfLife) * math.Log2(m.figure/float64(d.Reuse))))
}

// Ceiling bounds the figure of merit: it takes MaxSuppress to fall from there to
// Reuse (RFC 2439, 4.2).
func (d *Damping) Ceiling() float64 {
	return float64(d.Reuse) * math.Exp2(float64(d.MaxSuppress)/float64(d.HalfLife))
}
