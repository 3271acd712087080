package probes

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The bounds of a Config.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Hour
	// MaxAttemptTimeout also bounds how long a removed probe's sockets can live.
	MaxAttemptTimeout = time.Minute
	MaxThreshold      = 1000
	MaxHoldDown       = time.Hour
	MaxTargets        = 256
	// MaxBody is how much of an HTTP answer is searched, in bytes.
	MaxBody = 64 << 10

	// MaxHeaders and MaxHeader (bytes of a name or a value) bound what HTTP probes
	// send.
	MaxHeaders = 16
	MaxHeader  = 1024
	// MaxPenalty bounds the figures of Damping, MinHalfLife its times; the times
	// are at most MaxHoldDown.
	MaxPenalty  = 1_000_000
	MinHalfLife = time.Second

	maxURL    = 2048
	maxDevice = 15 // IFNAMSIZ less the NUL
)

// Validate reports everything that is wrong with c, each with the field's name,
// joined. It looks at c alone, not at the machine.
func (c Config) Validate() error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	}
	if c.Name == "" {
		wrong("name", "missing")
	}
	if c.Device == "" {
		wrong("device", "missing")
	} else if len(c.Device) > maxDevice || strings.ContainsFunc(c.Device, func(r rune) bool { return r == '/' || r <= ' ' }) {
		wrong("device", "%q is not an interface name", c.Device)
	}
	if n := len(c.Targets); n > 0 && c.Require.needs(n) == 0 {
		wrong("require", "%q is neither %q nor %q nor a number from 1 to %d", c.Require, Any, All, n)
	}
	if c.Interval < MinInterval || c.Interval > MaxInterval {
		wrong("interval", "%v is not within %v and %v", c.Interval, MinInterval, MaxInterval)
	}
	if c.AttemptTimeout < time.Millisecond || c.AttemptTimeout > MaxAttemptTimeout {
		wrong("attemptTimeout", "%v is not within %v and %v", c.AttemptTimeout, time.Millisecond, MaxAttemptTimeout)
	}
	if c.Rise < 1 || c.Rise > MaxThreshold {
		wrong("rise", "%d is not within 1 and %d", c.Rise, MaxThreshold)
	}
	if c.Fall < 1 || c.Fall > MaxThreshold {
		wrong("fall", "%d is not within 1 and %d", c.Fall, MaxThreshold)
	}
	if c.HoldDown < 0 || c.HoldDown > MaxHoldDown {
		wrong("holdDown", "%v is not within 0s and %v", c.HoldDown, MaxHoldDown)
	}
	if c.Source.IsValid() {
		if err := checkAddress(c.Source); err != nil {
			wrong("source", "%w", err)
		}
	}
	errs = append(errs, c.Damping.validate(), c.validateTargets(), c.validateHTTP(), c.validateDNS())
	return errors.Join(errs...)
}
