package bfd

import "time"

// txSlack is how much earlier than drawn a packet may go, so that those of
// several sessions share a wake-up. It is never more than a twentieth of the
// interval, and never makes it less than three quarters.
const (
	txSlack      = 5 * time.Millisecond
	txSlackShare = 20
)

// timing are the intervals of our side, and the Poll Sequence that makes the
// peer know them (RFC 5880 6.5, 6.8.3).
type timing struct {
	desiredMinTx, requiredMinRx time.Duration // what our packets say
	minTx, minRx                time.Duration // what is in use
	polling                     bool
	// again: the intervals changed during the Poll Sequence, so that its answer
	// may be one to the older intervals.
	again bool
}

func (t *timing) begin(tx, rx time.Duration) {
	*t = timing{desiredMinTx: tx, requiredMinRx: rx, minTx: tx, minRx: rx}
}

// want changes the intervals. In a session that is up, slower sending and a
// shorter detection time wait until the peer has confirmed to know them.
func (t *timing) want(tx, rx time.Duration, up bool) {
	if tx == t.desiredMinTx && rx == t.requiredMinRx {
		return
	}
	t.desiredMinTx, t.requiredMinRx = tx, rx
	if !up {
		t.minTx, t.minRx = tx, rx
		return
	}
	t.minTx, t.minRx = min(t.minTx, tx), max(t.minRx, rx)
	t.again = t.polling
	t.polling = true
}

// confirm is the peer's Final.
func (t *timing) confirm() {
	if !t.polling {
		return
	}
	if t.again {
		t.again = false
		return
	}
	t.polling = false
	t.minTx, t.minRx = t.desiredMinTx, t.requiredMinRx
}

// stop gives up the Poll Sequence: a session that is not up needs none.
func (t *timing) stop() {
	t.polling, t.again = false, false
	t.minTx, t.minRx = t.desiredMinTx, t.requiredMinRx
}

// reschedule draws when the next packet goes after the last (6.8.7): after 75
// to 100 % of the interval, or 90 % when a single lost packet ends the session.
func (m *machine) reschedule(now time.Time) {
	span := 0.25
	if m.params.mult == 1 {
		span = 0.15
	}
	whole := float64(m.interval())
	least := m.lastTx.Add(time.Duration(0.75 * whole))
	m.nextTx = m.lastTx.Add(time.Duration((0.75 + span*m.random()) * whole))
	if m.nextTx.Before(now) {
		m.nextTx = now
	}
	m.earliestTx = m.nextTx.Add(-min(txSlack, m.interval()/txSlackShare))
	if m.earliestTx.Before(least) {
		m.earliestTx = least
	}
	if m.earliestTx.After(m.nextTx) {
		m.earliestTx = m.nextTx
	}
}
