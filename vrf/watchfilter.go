package vrf

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// leaveOutOwn has the kernel drop what ownChange would: with a full table that is
// one event for each route, which costs more to read than to send. What the filter
// lets through is looked at as before, so that nothing depends on it.
//
// An event of these kinds is a datagram of its own, whose header (struct nlmsghdr)
// is in the byte order of the machine, while the filter's loads are big-endian.
func leaveOutOwn(fd int, port uint32) error {
	const (
		load2  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		load4  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K
		all    = 0xffffffff
	)
	kinds := []uint16{unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWRULE, unix.RTM_DELRULE, unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP}
	program := []unix.SockFilter{
		{Code: load4, K: 12}, // nlmsg_pid
		{Code: equal, K: swap32(port), Jf: uint8(len(kinds) + 1)},
		{Code: load2, K: 4}, // nlmsg_type
	}
	for i, kind := range kinds {
		program = append(program, unix.SockFilter{Code: equal, K: uint32(swap16(kind)), Jt: uint8(len(kinds) - i)})
	}
	program = append(program, unix.SockFilter{Code: answer, K: all}, unix.SockFilter{Code: answer, K: 0})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
}

// swap32 is what a big-endian load makes of a number of the machine.
func swap32(v uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v))
}

func swap16(v uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v))
}
