package probes

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// packet is what a socket gave.
type packet struct {
	data []byte
	// from is the sender, or for an error the destination of what it is about.
	from *address
	// came is when the kernel got it from the device.
	came time.Time
	// control are its control messages.
	control []byte
}

// stamps makes the kernel note when packets come (SO_TIMESTAMPNS).
func stamps(fd int) error {
	return os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
}

// receive reads one packet of a connected socket without waiting. buf and
// control are room for it.
func receive(fd int, buf, control []byte) (packet, error) {
	for {
		n, m, _, _, err := unix.Recvmsg(fd, buf, control, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return packet{}, err
		}
		p := packet{data: buf[:n], control: control[:m]}
		p.came = arrival(time.Now(), p.control)
		return p, nil
	}
}

// arrival is the time in the stamp among the control messages, on the clock of
// now, or now without one. The stamp is of the system's time, which may be set
// at any time: so only its distance from now counts, and nothing comes from the
// future.
func arrival(now time.Time, control []byte) time.Time {
	stamp, ok := controlMessage(control, unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS)
	if !ok {
		return now
	}
	var at time.Time
	switch len(stamp) {
	case 16:
		at = time.Unix(int64(binary.NativeEndian.Uint64(stamp)), int64(binary.NativeEndian.Uint64(stamp[8:])))
	case 8: // of a 32-bit system
		at = time.Unix(int64(int32(binary.NativeEndian.Uint32(stamp))), int64(binary.NativeEndian.Uint32(stamp[4:])))
	default:
		return now
	}
	return now.Add(-max(0, now.Sub(at)))
}

// controlMessage finds the first message of a kind. unix.ParseSocketControlMessage
// would allocate for each packet.
func controlMessage(b []byte, level, kind int32) ([]byte, bool) {
	header := unix.CmsgLen(0)
	for len(b) >= header {
		var size uint64
		word := header - 8
		if word == 8 {
			size = binary.NativeEndian.Uint64(b)
		} else {
			size = uint64(binary.NativeEndian.Uint32(b))
		}
		if size < uint64(header) || size > uint64(len(b)) {
			return nil, false
		}
		if int32(binary.NativeEndian.Uint32(b[word:])) == level && int32(binary.NativeEndian.Uint32(b[word+4:])) == kind {
			return b[header:size], true
		}
		b = b[min(uint64(len(b)), uint64(unix.CmsgSpace(int(size)-header))):]
	}
	return nil, false
}
