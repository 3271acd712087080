package bfd

import (
	"testing"
	"time"
)

const ms = time.Millisecond

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func fixed(x float64) func() float64 { return func() float64 { return x } }

// quick are 50 ms x 3.
func quick() params { return params{desiredMinTx: 50 * ms, requiredMinRx: 50 * ms, mult: 3} }

// from is a packet of a peer at 50 ms x 3 that knows our discriminator 1.
func from(s Status) packet {
	return packet{status: s, my: 9, your: 1, mult: 3, desiredMinTx: 50 * ms, requiredMinRx: 50 * ms}
}

// machineIn is a session in a state, reached by packets.
func machineIn(t *testing.T, s Status) *machine {
	t.Helper()
	p := quick()
	p.adminDown = s == AdminDown
	m := newMachine(start, p, 1, fixed(0.5))
	switch s {
	case Init:
		m.receive(start, start, from(Down))
	case Up:
		m.receive(start, start, from(Init))
	}
	if m.status != s {
		t.Fatalf("wanted a session in %s, got %s", s, m.status)
	}
	collect(m, start)
	return m
}

// collect is what is sent now.
func collect(m *machine, now time.Time) []packet {
	var sent []packet
	m.flush(now, func(p packet) { sent = append(sent, p) })
	return sent
}

// TestStateMachine is the table of RFC 5880 6.8.6, all of it, and the diagram of 6.2.
func TestStateMachine(t *testing.T) {
	for _, c := range []struct {
		at, received, then Status
		diag               Diag
	}{
		{AdminDown, AdminDown, AdminDown, AdministrativelyDown},
		{AdminDown, Down, AdminDown, AdministrativelyDown},
		{AdminDown, Init, AdminDown, AdministrativelyDown},
		{AdminDown, Up, AdminDown, AdministrativelyDown},
		{Down, AdminDown, Down, NoDiag},
		{Down, Down, Init, NoDiag},
		{Down, Init, Up, NoDiag},
		{Down, Up, Down, NoDiag},
		{Init, AdminDown, Down, NeighborDown},
		{Init, Down, Init, NoDiag},
		{Init, Init, Up, NoDiag},
		{Init, Up, Up, NoDiag},
		{Up, AdminDown, Down, NeighborDown},
		{Up, Down, Down, NeighborDown},
		{Up, Init, Up, NoDiag},
		{Up, Up, Up, NoDiag},
	} {
		m := machineIn(t, c.at)
		now := start.Add(10 * ms)
		m.receive(now, now, from(c.received))
		if m.status != c.then || m.diag != c.diag {
			t.Errorf("%s receives %s: %s (%s), want %s (%s)", c.at, c.received, m.status, m.diag, c.then, c.diag)
		}
		sent := collect(m, now)
		if c.at == c.then {
			if len(sent) != 0 {
				t.Errorf("%s receives %s: sent %+v, though nothing changed", c.at, c.received, sent)
			}
			continue
		}
		if len(sent) != 1 || sent[0].status != c.then || sent[0].diag != c.diag || sent[0].your != 9 || !m.since.Equal(now) {
			t.Errorf("%s receives %s: sent %+v at once, since %v", c.at, c.received, sent, m.since)
		}
	}
}

// TestDetection: no packet for the peer's multiplier times the slower interval.
func TestDetection(t *testing.T) {
	for _, c := range []struct {
		at, then Status
		diag     Diag
	}{
		{AdminDown, AdminDown, AdministrativelyDown}, {Down, Down, NoDiag}, {Init, Down, DetectionTimeExpired}, {Up, Down, DetectionTimeExpired},
	} {
		m := machineIn(t, c.at)
		p := from(Up)
		if c.at == Init {
			p.status = Down
		}
		p.mult, p.desiredMinTx = 4, 70*ms
		m.receive(start, start, p)
		if got := m.detection(); got != 280*ms {
			t.Errorf("%s: detection time %v", c.at, got)
		}
		if m.expire(start.Add(280*ms - 1)) {
			t.Errorf("%s: expired too early", c.at)
		}
		late := start.Add(280 * ms)
		if !m.expire(late) || m.status != c.then || m.diag != c.diag || m.remoteDiscr != 0 {
			t.Errorf("%s: %s (%s), peer %d", c.at, m.status, m.diag, m.remoteDiscr)
		}
		if m.expire(late.Add(time.Hour)) {
			t.Errorf("%s: expired twice", c.at)
		}
	}
}

// TestDetectionCountsFromArrival: a packet that was handled late proves that
// the peer lived when it came, and no later one is taken back.
func TestDetectionCountsFromArrival(t *testing.T) {
	m := machineIn(t, Up)
	m.receive(start.Add(100*ms), start.Add(400*ms), from(Up))
	if m.overdue(start.Add(249 * ms)) {
		t.Error("expired too early")
	}
	if !m.overdue(start.Add(250 * ms)) {
		t.Error("counted from when the packet was handled")
	}
	m.receive(start.Add(300*ms), start.Add(400*ms), from(Up))
	m.receive(start.Add(200*ms), start.Add(400*ms), from(Up))
	if m.overdue(start.Add(449 * ms)) {
		t.Error("an older packet took time back")
	}
}

// TestDetectionUsesOurSlowerRx: the peer would send every 50 ms, we want 200.
func TestDetectionUsesOurSlowerRx(t *testing.T) {
	m := machineIn(t, Up)
	p := quick()
	p.requiredMinRx = 200 * ms
	m.configure(start, p)
	if got := m.detection(); got != 600*ms {
		t.Errorf("detection time %v", got)
	}
}

// TestSlowUntilUp: RFC 5880 6.8.3.
func TestSlowUntilUp(t *testing.T) {
	for _, s := range []Status{AdminDown, Down, Init, Up} {
		m := machineIn(t, s)
		m.wantSoon = true
		want := time.Second
		if s == Up {
			want = 50 * ms
		}
		if p := collect(m, start)[0]; p.desiredMinTx != want || p.requiredMinRx != 50*ms || m.interval() != want {
			t.Errorf("%s: says %v, uses %v", s, p.desiredMinTx, m.interval())
		}
	}
	m := machineIn(t, Up)
	m.receive(start, start, from(Down))
	if m.interval() != time.Second || m.timing.polling {
		t.Errorf("after Up: %v, %+v", m.interval(), m.timing)
	}
}

// TestPassive says nothing before the peer does (6.1), and AdminDown is told on.
func TestPassive(t *testing.T) {
	p := quick()
	p.passive = true
	m := newMachine(start, p, 1, fixed(0))
	for i := range 100 {
		if sent := collect(m, start.Add(time.Duration(i)*100*ms)); len(sent) > 0 {
			t.Fatalf("sent %+v", sent)
		}
	}
	now := start.Add(time.Minute)
	m.receive(now, now, from(Down))
	if sent := collect(m, now); len(sent) != 1 || sent[0].status != Init {
		t.Errorf("answered %+v", sent)
	}
}

// TestSilence: who wants no packets gets none but answers (6.8.7).
func TestSilence(t *testing.T) {
	for name, mute := range map[string]func(*packet){
		"required min rx is zero": func(p *packet) { p.requiredMinRx = 0 },
		"demand mode":             func(p *packet) { p.demand = true },
	} {
		m := machineIn(t, Up)
		p := from(Up)
		p.final = true // ends our Poll Sequence
		mute(&p)
		m.receive(start, start, p)
		now := start.Add(time.Second)
		if sent := collect(m, now); len(sent) > 0 {
			t.Errorf("%s: sent %+v", name, sent)
		}
		p.poll, p.final = true, false
		m.receive(now, now, p)
		if sent := collect(m, now); len(sent) != 1 || !sent[0].final || sent[0].poll {
			t.Errorf("%s: answered %+v to a poll", name, sent)
		}
		// A peer that is gone wants nothing any more.
		gone := now.Add(time.Minute)
		if !m.expire(gone) || len(collect(m, gone)) != 1 {
			t.Errorf("%s: still silent when the peer was gone", name)
		}
	}
}

// TestAdminDownOnPurpose: leaving is told at once, and coming back begins in Down.
func TestAdminDownOnPurpose(t *testing.T) {
	m := machineIn(t, Up)
	p := quick()
	p.adminDown = true
	m.configure(start, p)
	if sent := collect(m, start); len(sent) != 1 || sent[0].status != AdminDown || sent[0].diag != AdministrativelyDown || sent[0].your != 9 {
		t.Errorf("sent %+v", sent)
	}
	m.configure(start, quick())
	if m.status != Down || m.downs != 1 || m.ups != 1 {
		t.Errorf("back: %s, %d ups, %d downs", m.status, m.ups, m.downs)
	}
}
