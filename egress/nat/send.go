package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// send gives a batch to the kernel, in the network namespace of the calling
// thread. The kernel carries it out before the call returns: all of it or, with
// an error, nothing. (Without any answer, which memory pressure may cause, the
// error says so, and it is not known which of the two.)
func (t *Table) send(ctx context.Context, w wire) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	port, err := prepare(fd, len(w.buf))
	if err != nil {
		return err
	}
	// Watch has to know the port before it can see the change.
	t.began(port)
	defer t.ended(port)
	if err := unix.Sendto(fd, w.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	return w.answers(func(buf []byte) (int, error) {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		return n, err
	})
}

// prepare makes room in a socket for a batch and its answers, and gives the
// socket's port.
func prepare(fd, size int) (uint32, error) {
	for _, buffer := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, buffer, size+1<<18); err != nil {
			return 0, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	own, ok := addr.(*unix.SockaddrNetlink)
	if !ok {
		return 0, errors.New("getsockname: no netlink address")
	}
	return own.Pid, nil
}

// answers reads what the kernel says to a batch: it acknowledges all messages
// but the first and the last, or says what is wrong with one.
func (w wire) answers(read func([]byte) (int, error)) error {
	buf := make([]byte, 1<<16)
	for open := len(w.ops) - 2; open > 0; {
		n, err := read(buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("no answer of the kernel: %w", os.NewSyscallError("recvfrom", err))
		}
		acked, err := w.answer(buf[:n])
		if err != nil {
			return err
		}
		open -= acked
	}
	return nil
}

// answer reads a datagram and counts the acknowledgements in it.
func (w wire) answer(data []byte) (int, error) {
	acked := 0
	for len(data) >= unix.SizeofNlMsghdr+4 {
		length := int(binary.NativeEndian.Uint32(data))
		if length < unix.SizeofNlMsghdr+4 || length > len(data) {
			break
		}
		if binary.NativeEndian.Uint16(data[4:]) == unix.NLMSG_ERROR {
			errno := -int32(binary.NativeEndian.Uint32(data[unix.SizeofNlMsghdr:]))
			seq := int(binary.NativeEndian.Uint32(data[8:]))
			if errno != 0 && seq < len(w.ops) && w.ops[seq].Verb != "" {
				return acked, fmt.Errorf("%s: %w", w.ops[seq].text(w.table), unix.Errno(errno))
			}
			if errno != 0 {
				return acked, unix.Errno(errno)
			}
			acked++
		}
		data = data[min((length+3)&^3, len(data)):]
	}
	return acked, nil
}

// began says that the transactions of a netlink port are ours.
func (t *Table) began(port uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.own[port] = time.Time{}
}
