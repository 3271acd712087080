//go:build bench

package clusterbench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/lab"
)

// change is one that the kernel told: an element of a set of the agent's table that
// came or went, or a next-hop group that was written (set is then "group").
type change struct {
	at    time.Time
	set   string
	gone  bool
	key   netip.Addr
	chain string // that the element leads to
}

// watch hears what changes in a namespace.
type watch struct {
	changes chan change
	lost    atomic.Bool
}

// newWatch listens until the test ends. Changes that nobody takes fill the buffer, and
// then wait in the socket.
func newWatch(t *testing.T, ns *lab.NS) *watch {
	t.Helper()
	w := &watch{changes: make(chan change, 1<<16)}
	for _, s := range []struct {
		family, group int
		take          func(kind uint16, body []byte) []change
	}{{unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, elements}, {unix.NETLINK_ROUTE, unix.RTNLGRP_NEXTHOP, groups}} {
		var file *os.File
		if err := ns.Do(func() (err error) { file, err = listen(s.family, s.group); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		go w.read(file, s.take)
	}
	return w
}

func listen(family, group int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "notifications")
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	return file, os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
}

// read stamps what comes. Notifications follow the transaction, so the kernel had it at
// the latest at that time.
func (w *watch) read(file *os.File, take func(kind uint16, body []byte) []change) {
	buf := make([]byte, 1<<18)
	for {
		n, err := file.Read(buf)
		if err != nil {
			w.lost.Store(!errors.Is(err, os.ErrClosed)) // the figures would be wrong
			return
		}
		now := time.Now()
		for data := buf[:n]; len(data) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(data))
			if length < unix.SizeofNlMsghdr || length > len(data) {
				break
			}
			for _, c := range take(binary.NativeEndian.Uint16(data[4:]), data[unix.SizeofNlMsghdr:length]) {
				c.at = now
				w.changes <- c
			}
			data = data[min((length+3)&^3, len(data)):]
		}
	}
}

// attributes are those of a message or of a nest, by type; of equal ones all.
func attributes(data []byte) map[uint16][][]byte {
	out := map[uint16][][]byte{}
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return out
	}
	for _, a := range list {
		kind := a.Attr.Type &^ unix.NLA_F_NESTED
		out[kind] = append(out[kind], a.Value)
	}
	return out
}

// first follows a path of nested attributes.
func first(data []byte, path ...uint16) []byte {
	for _, kind := range path {
		list := attributes(data)[kind]
		if len(list) == 0 {
			return nil
		}
		data = list[0]
	}
	return data
}

func name(data []byte) string {
	if n := len(data); n > 0 && data[n-1] == 0 {
		data = data[:n-1]
	}
	return string(data)
}

// elements reads a message of nftables.
func elements(kind uint16, body []byte) []change {
	const header = 4
	kind &= 0xff
	if len(body) < header || kind != unix.NFT_MSG_NEWSETELEM && kind != unix.NFT_MSG_DELSETELEM {
		return nil
	}
	body = body[header:]
	if name(first(body, unix.NFTA_SET_ELEM_LIST_TABLE)) != steer.TableName {
		return nil
	}
	var out []change
	for _, e := range attributes(first(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS))[unix.NFTA_LIST_ELEM] {
		if f := first(e, unix.NFTA_SET_ELEM_FLAGS); len(f) == 4 && binary.BigEndian.Uint32(f)&unix.NFT_SET_ELEM_INTERVAL_END != 0 {
			continue
		}
		key, _ := netip.AddrFromSlice(first(e, unix.NFTA_SET_ELEM_KEY, unix.NFTA_DATA_VALUE))
		out = append(out, change{set: name(first(body, unix.NFTA_SET_ELEM_LIST_SET)), gone: kind == unix.NFT_MSG_DELSETELEM, key: key,
			chain: name(first(e, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN))})
	}
	return out
}

// groups reads a message about next hops.
func groups(kind uint16, body []byte) []change {
	const header, groupAttribute = 8, 2 // struct nhmsg, NHA_GROUP
	if kind != unix.RTM_NEWNEXTHOP || len(body) < header || first(body[header:], groupAttribute) == nil {
		return nil
	}
	return []change{{set: "group"}}
}

// forget drops what was heard so far, and says how much.
func (w *watch) forget() int {
	for n := 0; ; n++ {
		select {
		case <-w.changes:
		default:
			return n
		}
	}
}

// await is the time of the first change that is as wanted. Others are dropped.
func (w *watch) await(what string, wanted func(change) bool) (time.Time, error) {
	deadline := time.After(time.Minute)
	for {
		select {
		case c := <-w.changes:
			if wanted(c) {
				return c.at, nil
			}
		case <-deadline:
			return time.Time{}, fmt.Errorf("wait for %s: nothing came for a minute (notifications were lost: %t)", what, w.lost.Load())
		}
	}
}
