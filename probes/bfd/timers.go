package bfd

import (
	"fmt"
	"time"
)

// maintenance is how often sockets are looked after: those that could not be
// opened, and those whose device was deleted and made again.
const maintenance = time.Second

// timers is the goroutine that gives sessions their turns.
func (s *Sessions) timers() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	tick := time.NewTicker(maintenance)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		case <-tick.C:
			s.mu.Lock()
			stale := s.maintain()
			s.mu.Unlock()
			closeAll(stale)
		}
		timer.Reset(s.turn())
	}
}

// turn serves the sessions whose time has come and returns how long there is
// nothing to do. Who seems silent is given the benefit of the doubt: first all
// is read that the kernel has, since it may be us who were kept waiting.
func (s *Sessions) turn() time.Duration {
	s.mu.Lock()
	now := time.Now()
	s.due = s.queue.take(now.Add(txSlack), s.due[:0])
	doubtful := map[*receiver]bool{}
	for _, x := range s.due {
		s.transmit(x, now)
		if r := s.receivers[x.spot]; x.m.overdue(now) && r != nil {
			doubtful[r] = true
		}
	}
	s.mu.Unlock()
	for r := range doubtful {
		r.drain()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now = time.Now()
	for _, x := range s.due {
		if was := x.m.status; x.m.expire(now) {
			s.after(x, now, was)
		}
		if !x.removed || x.leaving > 0 {
			s.queue.add(x)
		}
	}
	clear(s.due)
	if len(s.queue) == 0 {
		return maintenance
	}
	return max(0, time.Until(s.queue[0].at))
}

// transmit sends what is due. One that leaves repeats itself, and goes.
func (s *Sessions) transmit(x *session, now time.Time) {
	last := x.m.lastTx
	x.m.flush(now, x.send)
	if x.leaving == 0 || x.m.lastTx == last {
		return
	}
	x.leaving--
	x.m.repeat(now, x.gap)
	if x.leaving > 0 {
		return
	}
	x.close()
	s.leaving--
	if s.leaving == 0 && s.closed {
		close(s.gone)
	}
}

// handle is the receivers' way in.
func (s *Sessions) handle(r *receiver, b []byte, a arrival, at, now time.Time) {
	p, err := parse(b)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.find(r.spot, p, a)
	if x == nil {
		return
	}
	if err := x.accept(b, p, a, now); err != nil {
		x.refused++
		x.fail(err)
		return
	}
	x.in++
	was := x.m.status
	x.m.receive(at, now, p)
	s.after(x, now, was)
}

// find is the session of a packet (RFC 5880 6.8.6, RFC 5881 3): by our
// discriminator, or by the addresses when the peer does not know it yet.
func (s *Sessions) find(where spot, p packet, a arrival) *session {
	if p.your != 0 {
		if x := s.byDiscr[p.your]; x != nil && x.spot == where {
			return x
		}
		return nil
	}
	var found *session
	for _, x := range s.byPeer[peerKey{spot: where, peer: a.from}] {
		switch {
		case x.zone != 0 && x.zone != a.device:
		case x.config.Local.WithZone("") == a.to:
			return x
		case !x.config.Local.IsValid():
			found = x
		}
	}
	return found
}

// maintain opens what is missing and returns receivers to be closed when s.mu,
// which is held, is free.
func (s *Sessions) maintain() []*receiver {
	var stale []*receiver
	wanted := map[spot]bool{}
	for _, x := range s.sessions {
		wanted[x.spot] = true
	}
	indexes := indexCache{}
	for where, r := range s.receivers {
		if !wanted[where] || where.device != "" && indexes.of(r.fd, where.device) != r.index {
			stale = append(stale, r)
			delete(s.receivers, where)
		}
	}
	clear(s.spotErrs)
	for where := range wanted {
		if s.receivers[where] != nil {
			continue
		}
		r, err := startReceiver(where, s.handle)
		if err != nil {
			s.spotErrs[where] = fmt.Errorf("open receive socket: %w", err)
			continue
		}
		s.receivers[where] = r
	}
	for _, x := range s.sessions {
		s.maintainSender(x, indexes)
	}
	return stale
}

// maintainSender asks about devices through the receiver's socket.
func (s *Sessions) maintainSender(x *session, indexes indexCache) {
	r := s.receivers[x.spot]
	if r == nil {
		x.close()
		return
	}
	zone := indexes.of(r.fd, x.config.Peer.Zone())
	if x.fd >= 0 && (zone != x.zone || r.index != x.index) {
		x.close()
	}
	x.open(zone)
}

// indexCache asks once for each device.
type indexCache map[string]uint32

func (c indexCache) of(fd int, device string) uint32 {
	if index, known := c[device]; known {
		return index
	}
	c[device] = deviceIndex(fd, device)
	return c[device]
}

func closeAll(list []*receiver) {
	for _, r := range list {
		r.close()
	}
}
