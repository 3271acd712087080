package probes

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"golang.org/x/sys/unix"
)

// TestLateLook: a reply that lies in the socket when the deadline has passed
// counts; without one the time is up at once.
func TestLateLook(t *testing.T) {
	lab.Require(t, lab.Root)
	ns := lab.New(t).MustNamespace("gw")
	for _, target := range []string{"127.0.0.1", "::1"} {
		c := ping("a")
		c.Device = "lo"
		a := newICMPAttempt(c, Target{Address: netip.MustParseAddr(target)})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := ns.Do(func() error {
			conn, err := a.dialer.DialIP(t.Context(), a.network, a.source, a.target)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
				return err
			}
			e := echo{id: 1, seq: 2, token: [tokenSize]byte{3}}
			if got, _ := a.await(ctx, conn, e); got {
				return fmt.Errorf("a reply to what was not sent")
			}
			if err := send(conn, e.request(a.target.Is6())); err != nil {
				return err
			}
			raw, err := conn.SyscallConn()
			if err != nil {
				return err
			}
			// Wait for the reply without the runtime's poller.
			err = raw.Control(func(fd uintptr) {
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000)
			})
			if err != nil {
				return err
			}
			if got, last := a.await(ctx, conn, e); !got {
				return fmt.Errorf("the reply was not seen: %v", last)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}
