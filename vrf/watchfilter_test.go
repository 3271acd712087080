package vrf

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLeaveOutOwn sends what looks like events through a socket pair with the
// filter, and sees which arrive: those of our port and these kinds do not.
func TestLeaveOutOwn(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	const ours = 0x12345678
	if err := leaveOutOwn(pair[1], ours); err != nil {
		t.Fatal(err)
	}
	arrives := func(kind uint16, port uint32) bool {
		t.Helper()
		m := make([]byte, 32)
		binary.NativeEndian.PutUint32(m, uint32(len(m)))
		binary.NativeEndian.PutUint16(m[4:], kind)
		binary.NativeEndian.PutUint32(m[12:], port)
		if _, err := unix.Write(pair[0], m); err != nil && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		n, err := unix.Read(pair[1], m)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		if err == nil && n != len(m) {
			t.Errorf("kind %d of port %#x was cut to %d bytes", kind, port, n)
		}
		return err == nil
	}
	for _, kind := range []uint16{unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWRULE, unix.RTM_DELRULE, unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP} {
		if arrives(kind, ours) {
			t.Errorf("kind %d of ours arrives", kind)
		}
		if !arrives(kind, ours+1) || !arrives(kind, 0) || !arrives(kind, 0x78563412) {
			t.Errorf("kind %d of others is left out", kind)
		}
	}
	for _, kind := range []uint16{unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWNETCONF, unix.NLMSG_DONE} {
		if !arrives(kind, ours) {
			t.Errorf("kind %d of ours is left out", kind)
		}
	}
}
