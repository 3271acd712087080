package bfd

import (
	"testing"
	"time"
)

// TestArrived: the kernel's time of arrival, moved to our clock, never in the
// future nor before the socket was empty, whatever the wall clock does.
func TestArrived(t *testing.T) {
	now := time.Now()
	r := &receiver{empty: now.Add(-300 * ms)}
	for name, c := range map[string]struct{ wall, want time.Duration }{
		"waited in the socket":                {-200 * ms, -200 * ms},
		"came just now":                       {0, 0},
		"the wall clock was set back since":   {time.Hour, 0},
		"the wall clock was set forth since":  {-time.Hour, -300 * ms},
		"came when the socket was seen empty": {-300 * ms, -300 * ms},
	} {
		got := r.arrived(arrival{wall: now.Add(c.wall).UnixNano()}, now).Sub(now)
		if diff := got - c.want; diff < -time.Microsecond || diff > time.Microsecond {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := r.arrived(arrival{}, now); !got.Equal(now) {
		t.Errorf("without a time: %v", got)
	}
}
