package config

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs the loop of a watch on a fake clock, with a real file and events
// sent by hand. Everything it tells is there when synctest.Wait returns.
func bubble(t *testing.T, test func(file string, event func(), f *File, c *calls)) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "egret.yaml")
		write(t, file, resync(1))
		f, c := NewFile(file, slog.New(slog.DiscardHandler)), &calls{}
		if _, err := f.Load(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		events := make(chan struct{})
		go f.run(ctx, file, events, func() {}, c.onSpec, c.onError)
		synctest.Wait()
		test(file, func() { events <- struct{}{}; synctest.Wait() }, f, c)
		cancel()
		synctest.Wait()
	})
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestWatchWaitsForQuiet(t *testing.T) {
	bubble(t, func(file string, event func(), _ *File, c *calls) {
		// A file written piece by piece, each of which would be an error.
		for _, part := range []string{"resync: ", "resync: 2", "resync: 2s\npolicies: [", "resync: 2s\npolicies: []\n"} {
			write(t, file, part)
			event()
			pass(quietTime - time.Millisecond)
		}
		compareCalls(t, c.all(), nil)
		pass(time.Millisecond)
		compareCalls(t, c.all(), []string{"spec 2s"})
	})
}

func TestWatchWaitIsBounded(t *testing.T) {
	bubble(t, func(file string, event func(), _ *File, c *calls) {
		write(t, file, resync(2))
		start := time.Now()
		for len(c.all()) == 0 && time.Since(start) < time.Minute {
			event()
			pass(quietTime / 2)
		}
		if waited := time.Since(start); waited > maxDelay+quietTime {
			t.Errorf("waited for %v while events kept coming", waited)
		}
		compareCalls(t, c.all(), []string{"spec 2s"})
	})
}

func TestWatchUnchanged(t *testing.T) {
	bubble(t, func(file string, event func(), f *File, c *calls) {
		write(t, file, resync(1)) // the same content, another time stamp
		event()
		pass(10 * pollTime)
		f.Reload()
		synctest.Wait()
		compareCalls(t, c.all(), nil)
	})
}

func TestWatchPolls(t *testing.T) {
	bubble(t, func(file string, _ func(), f *File, c *calls) {
		replace(t, file, resync(2)) // and no event
		pass(pollTime + quietTime)
		compareCalls(t, c.all(), []string{"spec 2s"})
		write(t, file, "- a\n")
		pass(pollTime + quietTime)
		compareCalls(t, c.all(), []string{"spec 2s", "error must be an object"})
		pass(10 * pollTime)
		compareCalls(t, c.all(), []string{"spec 2s", "error must be an object"})
	})
}

func TestWatchRefusesOtherFiles(t *testing.T) {
	bubble(t, func(file string, event func(), _ *File, c *calls) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(file, 0o600); err != nil { // reading it would block
			t.Fatal(err)
		}
		event()
		pass(quietTime)
		compareCalls(t, c.all(), []string{"error is not a regular file"})
	})
}
