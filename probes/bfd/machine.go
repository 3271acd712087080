package bfd

import "time"

// slowInterval is the least bfd.DesiredMinTxInterval of a session that is not
// Up (RFC 5880 6.8.3).
const slowInterval = time.Second

// machine is one session's part of RFC 5880. It is told the time and does no
// input or output. The names in parentheses are the RFC's variables (6.8.1).
type machine struct {
	random func() float64 // in [0, 1)

	params              params // as configured
	independent         bool
	status              Status // bfd.SessionState
	remoteStatus        Status // bfd.RemoteSessionState
	diag, remoteDiag    Diag   // bfd.LocalDiag
	discr, remoteDiscr  uint32 // bfd.LocalDiscr, bfd.RemoteDiscr
	remoteMinTx         time.Duration
	remoteMinRx         time.Duration // bfd.RemoteMinRxInterval
	remoteMult          uint8
	remoteDemand        bool // bfd.RemoteDemandMode
	remoteIndependent   bool
	since               time.Time // of status
	ups, downs          uint64
	heard               bool // since the last detection time expired
	lastRx              time.Time
	lastTx              time.Time
	nextTx, earliestTx  time.Time
	wantFinal, wantSoon bool
	timing              timing
}

// params are what may change while the session goes on.
type params struct {
	desiredMinTx, requiredMinRx time.Duration
	mult                        uint8 // bfd.DetectMult
	passive, adminDown          bool
}

func (c Config) params() params {
	return params{desiredMinTx: c.DesiredMinTx, requiredMinRx: c.RequiredMinRx, mult: c.DetectMult, passive: c.Passive, adminDown: c.AdminDown}
}

// newMachine begins a session in Down, or in AdminDown.
func newMachine(now time.Time, p params, discr uint32, random func() float64) *machine {
	m := &machine{random: random, params: p, discr: discr, status: Down, remoteStatus: Down, since: now, remoteMinRx: time.Microsecond}
	m.timing.begin(m.wantedMinTx(), p.requiredMinRx)
	m.configure(now, p)
	// Sessions that begin together do not send together.
	m.nextTx = now.Add(time.Duration(m.random() * float64(min(m.interval(), slowInterval)) / 4))
	m.earliestTx = m.nextTx
	return m
}

// configure makes the session use p: new intervals by a Poll Sequence if it is
// Up, everything else with the next packet.
func (m *machine) configure(now time.Time, p params) {
	m.params = p
	switch {
	case p.adminDown && m.status != AdminDown:
		m.become(now, AdminDown, AdministrativelyDown)
	case !p.adminDown && m.status == AdminDown:
		m.become(now, Down, NoDiag)
	default:
		m.retime(now)
	}
}

// leave is the last a peer hears: that we go by decision (6.8.16).
func (m *machine) leave(now time.Time) {
	p := m.params
	p.adminDown = true
	m.configure(now, p)
}

// receive is the part of 6.8.6 after authentication. The packet came at this
// time, which may be a while before now.
func (m *machine) receive(at, now time.Time, p packet) {
	m.remoteDiscr = p.my
	m.remoteStatus, m.remoteDiag = p.status, p.diag
	m.remoteDemand, m.remoteIndependent = p.demand, p.independent
	was := m.interval()
	m.remoteMinTx, m.remoteMinRx, m.remoteMult = p.desiredMinTx, p.requiredMinRx, p.mult
	if p.final {
		m.timing.confirm()
	}
	m.heard = true
	if at.After(m.lastRx) {
		m.lastRx = at
	}
	if m.status == AdminDown {
		return
	}
	m.follow(now, p)
	if p.poll {
		m.wantFinal = true
	}
	if m.interval() != was {
		m.reschedule(now)
	}
}

// follow is the state machine (6.2, 6.8.6).
func (m *machine) follow(now time.Time, p packet) {
	switch {
	case p.status == AdminDown:
		if m.status != Down {
			m.become(now, Down, NeighborDown)
		}
	case m.status == Down && p.status == Down:
		m.become(now, Init, m.diag)
	case m.status == Down && p.status == Init:
		m.become(now, Up, NoDiag)
	case m.status == Init && p.status >= Init:
		m.become(now, Up, NoDiag)
	case m.status == Up && p.status == Down:
		m.become(now, Down, NeighborDown)
	}
}

// become changes the state, which the peer is told at once.
func (m *machine) become(now time.Time, s Status, d Diag) {
	if m.status == Up {
		m.downs++
	}
	if s == Up {
		m.ups++
	}
	m.status, m.diag, m.since = s, d, now
	m.wantSoon = true
	if s != Up {
		m.timing.stop()
	}
	m.retime(now)
}

// retime takes over the intervals that state and configuration want.
func (m *machine) retime(now time.Time) {
	was := m.interval()
	m.timing.want(m.wantedMinTx(), m.params.requiredMinRx, m.status == Up)
	if m.interval() != was {
		m.reschedule(now)
	}
}

func (m *machine) wantedMinTx() time.Duration {
	if m.status != Up {
		return max(m.params.desiredMinTx, slowInterval)
	}
	return m.params.desiredMinTx
}

// expire ends the peer's credit if its detection time has passed (6.8.4), and
// reports whether it had.
func (m *machine) expire(now time.Time) bool {
	if !m.overdue(now) {
		return false
	}
	m.heard = false
	m.remoteDiscr, m.remoteDemand, m.remoteMinRx = 0, false, time.Microsecond
	if m.status == Init || m.status == Up {
		m.become(now, Down, DetectionTimeExpired)
	}
	return true
}

func (m *machine) overdue(now time.Time) bool {
	return m.heard && !now.Before(m.lastRx.Add(m.detection()))
}

// detection is the time without a packet that ends the session (6.8.4).
func (m *machine) detection() time.Duration {
	return time.Duration(m.remoteMult) * max(m.timing.minRx, m.remoteMinTx)
}

// interval is between our packets, before jitter (6.8.2, 6.8.7).
func (m *machine) interval() time.Duration { return max(m.timing.minTx, m.remoteMinRx) }

// next is when expire or flush has something to do.
func (m *machine) next() time.Time {
	if m.heard {
		if d := m.lastRx.Add(m.detection()); d.Before(m.nextTx) {
			return d
		}
	}
	return m.nextTx
}

// flush sends what is due (6.8.7): an answer to a Poll, and then a packet
// because its time has come or because there is news.
func (m *machine) flush(now time.Time, send func(packet)) {
	if m.wantFinal {
		m.wantFinal = false
		p := m.packet()
		p.poll, p.final = false, true
		send(p)
	}
	if !m.wantSoon && now.Before(m.earliestTx) {
		return
	}
	m.wantSoon = false
	if !m.silent() {
		send(m.packet())
	}
	m.lastTx = now
	m.reschedule(now)
}

// repeat has the next packet sent after this time, whatever the interval is.
func (m *machine) repeat(now time.Time, gap time.Duration) {
	m.nextTx = now.Add(gap)
	m.earliestTx = m.nextTx
}

// silent says whether periodic packets are not wanted.
func (m *machine) silent() bool {
	demand := m.remoteDemand && m.status == Up && m.remoteStatus == Up && !m.timing.polling
	return m.params.passive && m.remoteDiscr == 0 || m.remoteMinRx == 0 || demand
}

func (m *machine) packet() packet {
	return packet{
		diag: m.diag, status: m.status, poll: m.timing.polling, independent: m.independent, mult: m.params.mult,
		my: m.discr, your: m.remoteDiscr, desiredMinTx: m.timing.desiredMinTx, requiredMinRx: m.timing.requiredMinRx,
	}
}
