package probes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"golang.org/x/sys/unix"
)

// flightOn launches a flight on lo, whose pinger rings only when the test says.
func flightOn(t *testing.T, target string) (*flight, *[]outcome) {
	t.Helper()
	p := newPinger(newClock())
	t.Cleanup(p.close)
	c := ping("a")
	c.Device = "lo"
	f := p.newFlight(c, Target{Address: netip.MustParseAddr(target)})
	var ended []outcome
	f.begin(time.Second, func(o outcome) { ended = append(ended, o) })
	return f, &ended
}

// TestLateLook: a reply that lies in the socket when the deadline has passed
// counts; without one the time is up at once.
func TestLateLook(t *testing.T) {
	lab.Require(t, lab.Root)
	ns := lab.New(t).MustNamespace("gw")
	for _, target := range []string{"127.0.0.1", "::1"} {
		err := ns.Do(func() error {
			f, ended := flightOn(t, target)
			if f.wire == nil {
				f.pinger.ring(time.Now())
				return fmt.Errorf("not sent: %+v", *ended)
			}
			// Nobody reads until the kernel has the reply, and then long after the time.
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.wire.line.descriptor()), Events: unix.POLLIN}}, 60_000); err != nil {
				return err
			}
			f.pinger.ring(time.Now().Add(time.Hour))
			if len(*ended) != 1 || (*ended)[0].err != nil || (*ended)[0].rtt <= 0 || (*ended)[0].rtt > time.Second {
				return fmt.Errorf("the reply was not seen: %+v", *ended)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	if err := ns.Sysctl("net.ipv4.icmp_echo_ignore_all", "1"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error {
		f, ended := flightOn(t, "127.0.0.1")
		f.pinger.ring(f.deadline.Add(-time.Millisecond))
		if len(*ended) != 0 {
			return fmt.Errorf("ended too early: %+v", *ended)
		}
		f.pinger.ring(f.deadline)
		if len(*ended) != 1 || (*ended)[0].err == nil || !strings.Contains((*ended)[0].err.Error(), "no answer within 1s: no echo reply") {
			return fmt.Errorf("a reply to what nobody answers: %+v", *ended)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestLateReply: what the kernel got after the deadline does not count, and what
// seems older than its request, because somebody set the clock, does.
func TestLateReply(t *testing.T) {
	p := newPinger(newClock())
	c := ping("a", 1)
	now := time.Now()
	for _, x := range []struct {
		came  time.Time
		ended int
	}{{now.Add(301 * time.Millisecond), 0}, {now.Add(300 * time.Millisecond), 1}, {now.Add(time.Millisecond), 1}, {now.Add(-time.Hour), 1}} {
		f := p.newFlight(c, c.Targets[0])
		f.sent, f.deadline = now, now.Add(300*time.Millisecond)
		p.ended = nil
		f.answered(x.came)
		if len(p.ended) != x.ended {
			t.Errorf("came %v after the request: %d ended, want %d", x.came.Sub(now), len(p.ended), x.ended)
		}
	}
}
