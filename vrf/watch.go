package vrf

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// watchBuffer is the first size of the event buffer in bytes, doubled with
	// every overflow up to maxWatchBuffer.
	watchBuffer    = 4 << 20
	maxWatchBuffer = 128 << 20
	// The wait after a failed subscription doubles from min to max.
	minWatchBackoff = 100 * time.Millisecond
	maxWatchBackoff = 10 * time.Second
	// watchRounds bounds how many reads are drained before notify is called.
	watchRounds = 64
)

// watchGroups are the multicast groups that concern us (RTNLGRP_*).
func watchGroups() []uint32 {
	return []uint32{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
	}
}

// Watch calls notify soon after anything changed that a Snapshot would show, or a
// setting of a device (netconf), until ctx ends; then it returns ctx's error.
// Many events make one call. notify must not block.
//
// What this Kernel's Apply does to next hops, groups, routes and rules is not told,
// nor what goes with them: Plan.ApplyTo follows that, and whoever does not use it reads
// a Snapshot after Apply. Changes of links and addresses are always told, and so are,
// unless net.ipv4.nexthop_compat_mode is 0, IPv6 routes that go with a next hop.
//
// Events are hints, never data: notify is called once after every subscription,
// also the first, because something may have changed before it, and after every
// overflow of the event buffer, which is then made larger.
func (k *Kernel) Watch(ctx context.Context, notify func()) error {
	size, backoff := k.watchSize, minWatchBackoff
	for ctx.Err() == nil {
		started := time.Now()
		err := k.watchOnce(ctx, size, notify)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, unix.ENOBUFS):
			size = min(2*size, maxWatchBuffer)
			k.log.Warn("kernel events lost", "buffer", size)
			continue
		default:
			if time.Since(started) > maxWatchBackoff {
				backoff = minWatchBackoff
			}
			k.log.Warn("kernel events interrupted", "error", err, "retry", backoff)
			select {
			case <-ctx.Done():
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, maxWatchBackoff)
		}
	}
	return ctx.Err()
}

// watchOnce subscribes and reads until something fails.
func (k *Kernel) watchOnce(ctx context.Context, size int, notify func()) (err error) {
	fd, err := k.subscribe(size)
	if err != nil {
		return fmt.Errorf("subscribe to kernel events: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make event: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(stop)) }()
	// The eventfd must not be closed while the function that writes it runs.
	written := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(written)
		if _, err := unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			k.log.Error("stop watching", "error", err)
		}
	})
	defer func() {
		if !cancel() {
			<-written
		}
	}()
	notify()
	return k.readEvents(ctx, fd, stop, notify)
}

func (k *Kernel) readEvents(ctx context.Context, fd, stop int, notify func()) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	buffer := make([]byte, 64<<10)
	for ctx.Err() == nil {
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for kernel events: %w", err)
		}
		concerns, err := k.drain(fd, buffer)
		if concerns {
			notify()
		}
		if err != nil {
			return fmt.Errorf("read kernel events: %w", err)
		}
	}
	return nil
}

// drain reads what is there. It reports whether one of the events concerns us.
func (k *Kernel) drain(fd int, buffer []byte) (concerns bool, err error) {
	for range watchRounds {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return concerns, nil
		case err != nil:
			return concerns, err
		}
		if !concerns {
			concerns = k.concerns(buffer[:n])
		}
	}
	return concerns, nil
}

// concerns looks into the messages of one datagram. Whatever it does not
// understand counts as an event.
func (k *Kernel) concerns(b []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true
	}
	for _, m := range messages {
		if !k.ownChange(m.Header) && k.concernsUs(m.Header.Type, m.Data) {
			return true
		}
	}
	return false
}

// ownChange says that a request of ours made an event of those kinds for which the
// kernel says so: it gives them, and what follows from them in the same request, the
// port of the socket that asked. Ports are unique within a namespace.
func (k *Kernel) ownChange(h syscall.NlMsghdr) bool {
	switch h.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWRULE, unix.RTM_DELRULE, unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return h.Pid != 0 && h.Pid == k.port
	}
	return false
}

// concernsUs leaves out what a node with other routing daemons has thousands of:
// routes of others in tables that the latest Snapshot did not know as ours.
func (k *Kernel) concernsUs(kind uint16, data []byte) bool {
	switch kind {
	case unix.NLMSG_NOOP, unix.NLMSG_DONE:
		return false
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok, err := parseRoute(data)
		switch {
		case err != nil:
			return true
		case !ok:
			return false
		case r.Protocol == k.owner.Protocol || r.Protocol == k.owner.LearnedProtocol:
			return true
		}
		tables := k.tables.Load()
		return tables == nil || (*tables)[r.Table]
	}
	return true
}

// subscribe opens an event socket in the namespace of k, whatever namespace the
// calling thread is in.
func (k *Kernel) subscribe(size int) (fd int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, here.Close()) }()
	if !here.Equal(k.ns) {
		if err := netns.Set(k.ns); err != nil {
			return -1, fmt.Errorf("enter network namespace: %w", err)
		}
		defer func() {
			if back := netns.Set(here); back != nil {
				// A thread in the wrong namespace must not go back to the pool:
				// one more lock and the runtime ends it with its goroutine.
				runtime.LockOSThread()
				err = errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			}
		}()
	}
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	if err := k.joinGroups(fd, size); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (k *Kernel) joinGroups(fd, size int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size); err != nil {
		k.log.Debug("enlarge event buffer", "error", err)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if err := leaveOutOwn(fd, k.port); err != nil {
		k.log.Debug("all events of our own are read", "error", err)
	}
	for _, group := range watchGroups() {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)); err != nil {
			return fmt.Errorf("join group %d: %w", group, err)
		}
	}
	return nil
}
