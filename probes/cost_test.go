package probes

import (
	"testing"
	"time"
)

// TestMetered: processor time counts, time that passes does not.
func TestMetered(t *testing.T) {
	busy := metered(func() {
		for begin := threadTime(); threadTime()-begin < int64(20*time.Millisecond); {
		}
	})
	idle := metered(func() { time.Sleep(200 * time.Millisecond) })
	if d := time.Duration(busy); d < 20*time.Millisecond || d > 10*time.Second {
		t.Errorf("20 ms of work cost %v", d)
	}
	if d := time.Duration(idle); d < 0 || d > 100*time.Millisecond {
		t.Errorf("a pause of 200 ms cost %v", d)
	}
}
