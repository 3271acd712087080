package lab

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// Poll calls check until it returns nil, a Final error, or the deadline has
// passed; then the error names what was awaited and carries check's last
// error. It calls at least once. It pauses 10 ms at first and at most 250 ms,
// but at least as long as the check took, to leave time to what it waits for.
func Poll(ctx context.Context, deadline time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	began := time.Now()
	for pause := 10 * time.Millisecond; ; pause = min(pause*3/2, 250*time.Millisecond) {
		checked := time.Now()
		err := check()
		took := time.Since(checked)
		if err == nil {
			return nil
		}
		if final := new(finalError); errors.As(err, final) {
			return fmt.Errorf("wait for %s: %w", what, final.error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: gave up after %v: %w", what, time.Since(began).Round(time.Millisecond), err)
		case <-time.After(max(pause, min(took, time.Second))):
		}
	}
}

type finalError struct{ error }

// Final marks an error that further waiting cannot change.
func Final(err error) error { return finalError{err} }

// Eventually is Poll for tests. Choose a generous deadline: it costs nothing
// where all is well, and machines are slow when they are shared or emulated.
func Eventually(tb testing.TB, deadline time.Duration, what string, check func() error) {
	tb.Helper()
	if err := Poll(tb.Context(), deadline, what, check); err != nil {
		tb.Fatal(err)
	}
}
