package nat

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

// poke changes the table and leaves it as it was.
const poke = "add chain inet egret x; delete chain inet egret x"

// Watch tells of what others do to our table, not of what we do.
func TestKernelWatch(t *testing.T) {
	k := newKernelTable(t)
	want := Render(smallConfig())
	k.become(want)
	seen := make(chan struct{}, 1)
	end := k.watching(receiveBuffer, func() {
		select {
		case seen <- struct{}{}:
		default:
		}
	}, seen)
	k.become(want)
	for len(seen) > 0 {
		<-seen
	}

	for _, ours := range []Ruleset{Render(dualConfig()), Render(Config{}), want} {
		k.become(ours)
	}
	if err := k.nft("add table ip other; add chain ip other c"); err != nil {
		t.Fatal(err)
	}
	for _, damage := range []string{"flush ruleset", "add table inet egret { flags dormant; }", "add element inet egret clients4 { 10.9.9.9 : accept }"} {
		if len(seen) > 0 {
			t.Errorf("a notification before %q", damage)
			<-seen
		}
		if err := k.nft(damage); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, time.Minute, "a notification of "+damage, func() error { return within2s(seen) })
		k.become(want)
	}
	end()
}

// Notifications that were lost are a notification, and the next ones come.
func TestKernelWatchSurvivesOverflow(t *testing.T) {
	k := newKernelTable(t)
	want := Render(smallConfig())
	k.become(want)
	seen, release := make(chan struct{}, 1000), make(chan struct{}, 1000)
	release <- struct{}{}
	end := k.watching(1, func() { // the kernel gives a socket some 2 KiB at least
		seen <- struct{}{}
		<-release
	}, seen)
	// Watch is held in a notification while more comes than the buffer holds.
	for range 20 {
		if err := k.nft(poke); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	k.do(func() error { return k.Delete(t.Context()) })
	k.become(want)
	for len(seen) > 0 {
		<-seen
	}
	lab.Eventually(t, time.Minute, "a notification after the overflow", func() error {
		if err := k.nft(poke); err != nil {
			return lab.Final(err)
		}
		return within2s(seen)
	})
	if !strings.Contains(k.logged.String(), "notifications lost") {
		t.Error("nothing was lost, the test shows nothing")
	}
	end()
}

// watching starts Watch and waits until it hears. The function it returns ends
// it and checks its error.
func (k kernelTable) watching(buffer int, notify func(), seen <-chan struct{}) func() {
	k.t.Helper()
	ctx, cancel := context.WithCancel(k.t.Context())
	done := make(chan error, 1)
	go func() {
		done <- k.ns.Do(func() error { return k.watch(ctx, notify, buffer) })
	}()
	// The socket may not be open yet; poke the table until Watch tells.
	lab.Eventually(k.t, time.Minute, "a first notification", func() error {
		if err := k.nft(poke); err != nil {
			return lab.Final(err)
		}
		return within2s(seen)
	})
	return func() {
		k.t.Helper()
		cancel()
		if err := <-done; err != nil {
			k.t.Error(err)
		}
	}
}

func within2s(seen <-chan struct{}) error {
	select {
	case <-seen:
		return nil
	case <-time.After(2 * time.Second):
		return context.DeadlineExceeded
	}
}
