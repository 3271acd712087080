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

// receiveBuffer of the watch socket, in bytes. A transaction of some ten
// thousand elements still overflows it, which is no harm: notify is called.
const receiveBuffer = 4 << 20

// Watch calls notify whenever somebody else changes our table, which includes
// "nft flush ruleset", and whenever notifications were lost. It blocks until ctx
// ends, then returns nil; an error is one of the socket. notify is called on
// Watch's own goroutine and must not block.
//
// A transaction is ours if its notifications carry the netlink port of a socket
// of Apply, or of an nft process that Apply or Delete started; that port is the
// process id in our own pid namespace.
func (t *Table) Watch(ctx context.Context, notify func()) error {
	return t.watch(ctx, notify, receiveBuffer)
}

func (t *Table) watch(ctx context.Context, notify func(), buffer int) error {
	sock, err := openWatch(buffer)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, func() { _ = sock.SetReadDeadline(time.Now()) })
	defer stop()

	buf := make([]byte, 1<<18)
	w := watcher{table: t.name, isOwn: t.isOwn}
	for {
		n, err := sock.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			w.touched = false
			t.log.Debug("nftables notifications lost")
			notify()
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		case w.receive(buf[:n]):
			notify()
		}
	}
}

// openWatch opens a netlink socket that hears the nftables group in the network
// namespace of the calling thread, with a receive buffer of so many bytes.
func openWatch(buffer int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "nftables notifications")
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return nil, errors.Join(os.NewSyscallError("setsockopt", err), file.Close())
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), file.Close())
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES); err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), file.Close())
	}
	return file, nil
}

// genmsgSize is the size of struct nfgenmsg.
const genmsgSize = 4

// watcher follows the notifications of transactions. The kernel sends those of
// a transaction together, and ends them with a new generation.
type watcher struct {
	table   string // "" means egret
	isOwn   func(port uint32) bool
	touched bool // the transaction that is coming in changes our table
}

// receive takes a datagram and says whether a foreign transaction that changed
// our table has come to its end. Garbage is ignored.
func (w *watcher) receive(data []byte) bool {
	changed := false
	for len(data) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(data))
		if length < unix.SizeofNlMsghdr || length > len(data) {
			return changed
		}
		kind := binary.NativeEndian.Uint16(data[4:])
		port := binary.NativeEndian.Uint32(data[12:])
		if w.message(kind, data[unix.SizeofNlMsghdr:length]) {
			changed = changed || w.touched && !w.isOwn(port)
			w.touched = false
		}
		data = data[min((length+3)&^3, len(data)):]
	}
	return changed
}

// message takes one message and says whether it ends a transaction.
func (w *watcher) message(kind uint16, body []byte) bool {
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(body) < genmsgSize {
		return false
	}
	if kind&0xff == unix.NFT_MSG_NEWGEN {
		return true
	}
	// The first attribute of every other message is the name of the table.
	if body[0] == unix.NFPROTO_INET && attribute(body[genmsgSize:], 1) == named(w.table) {
		w.touched = true
	}
	return false
}

// attribute finds a string among netlink attributes; "" if it is not there.
func attribute(data []byte, kind uint16) string {
	for len(data) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(data))
		if length < unix.SizeofNlAttr || length > len(data) {
			return ""
		}
		if binary.NativeEndian.Uint16(data[2:])&^unix.NLA_F_NESTED == kind {
			value := data[unix.SizeofNlAttr:length]
			if n := len(value); n > 0 && value[n-1] == 0 {
				value = value[:n-1]
			}
			return string(value)
		}
		data = data[min((length+3)&^3, len(data)):]
	}
	return ""
}
