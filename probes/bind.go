package probes

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindTo is a Dialer.Control that binds the socket to a device before it gets
// an address, so that the routes of the device's VRF and no others are used.
// More options may follow. The name is resolved for each socket: a device that
// was deleted and made again is found.
func bindTo(device string, more ...func(fd int) error) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		ctl := c.Control(func(fd uintptr) {
			if err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
				err = fmt.Errorf("bind to device %q: %w", device, err)
				return
			}
			for _, set := range more {
				if err = set(int(fd)); err != nil {
					return
				}
			}
		})
		if ctl != nil {
			return ctl
		}
		return err
	}
}
