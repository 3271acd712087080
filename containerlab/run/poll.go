package main

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is the pause between two looks at a condition.
const pollEvery = 300 * time.Millisecond

// eventually calls check until it returns nil. After patience it gives up with
// what was waited for and check's last error.
func eventually(ctx context.Context, patience time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, time.Since(start).Round(time.Second), last)
		case <-time.After(pollEvery):
		}
	}
}
