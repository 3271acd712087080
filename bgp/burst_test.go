package bgp

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestBurstsAreToldOfOnce: a route alone is told of at once, a burst when it is
// over or has lasted a second, and a session at any time.
func TestBurstsAreToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var told []time.Duration
		s := newSpeaker(slog.New(slog.DiscardHandler), func() { told = append(told, time.Since(start)) }, timing{})
		defer s.Close(false)
		expect := func(what string, want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			if len(told) != len(want) {
				t.Fatalf("%s: told at %v, want %v", what, told, want)
			}
			for i := range want {
				if told[i] != want[i] {
					t.Fatalf("%s: told at %v, want %v", what, told, want)
				}
			}
			told = nil
			start = time.Now()
		}
		s.burst()
		expect("alone", 0)
		for range 30 { // 10 ms apart
			s.burst()
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		expect("a burst", 290*time.Millisecond+burstQuiet)
		s.burst()
		expect("alone again", 0)
		for range 250 {
			s.burst()
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		expect("a long burst", time.Second, 2*time.Second, 2490*time.Millisecond+burstQuiet)
		s.burst()
		synctest.Wait()
		s.burst()
		time.Sleep(5 * time.Millisecond)
		s.kick()
		time.Sleep(time.Minute)
		expect("a session in a burst", 0, 5*time.Millisecond)
	})
}
