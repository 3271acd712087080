package probes

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

const (
	// jitterShare is the largest jitter: an interval over this.
	jitterShare = 10
	// maxSlack is how much too early an attempt may begin, to share a wakeup with
	// others: a wakeup costs more than many attempts. It is part of the jitter, and
	// at most half of it.
	maxSlack = 15 * time.Millisecond
)

// schedule says when the attempts at one target begin. The first is at a phase
// within the interval that follows from the target's name, so that hundreds of
// targets that start together do not send together. Then each gap is shortened
// by a jitter, as in BFD (RFC 5880, 6.8.7), so that targets that do meet part
// again, and detection is never later than the interval promises.
type schedule struct {
	interval time.Duration
	random   *rand.Rand
}

// newSchedule is the same for the same name and interval. interval > 0.
func newSchedule(name string, interval time.Duration) schedule {
	sum := sha256.Sum256([]byte(name))
	seed := rand.NewPCG(binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:]))
	return schedule{interval: interval, random: rand.New(seed)}
}

// phase is from now to the first attempt, in [0, interval).
func (s schedule) phase() time.Duration {
	return time.Duration(s.random.Int64N(int64(s.interval)))
}

// gap is from the start of an attempt to the start of the next, in
// [0.9 interval + slack, interval].
func (s schedule) gap() time.Duration {
	return s.interval - time.Duration(s.random.Int64N(int64(s.interval/jitterShare-s.slack())+1))
}

// slack is how much shorter still a gap may turn out.
func (s schedule) slack() time.Duration {
	return min(maxSlack, s.interval/jitterShare/2)
}
