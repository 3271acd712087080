package egress

import "time"

// alarm asks for a round at a time. It belongs to the loop.
type alarm struct {
	fire  func()
	timer *time.Timer
}

// arm has a round asked for after d; 0 is never.
func (a *alarm) arm(d time.Duration) {
	switch {
	case d == 0 && a.timer != nil:
		a.timer.Stop()
	case d == 0:
	case a.timer == nil:
		a.timer = time.AfterFunc(d, a.fire)
	default:
		a.timer.Reset(d)
	}
}
