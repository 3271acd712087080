package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// arrived is the number of packets that the receiving devices have seen and
// that were for nobody: the measured ones, and not what IPv6 multicasts now and
// then.
func (g *generator) arrived() (int, error) {
	total := 0
	err := g.to.Do(func() error {
		for _, d := range g.arrive {
			n, err := otherHost(d)
			if err != nil {
				return fmt.Errorf("count arrivals at %q in %q: %w", d, g.to.Name, err)
			}
			total += n
		}
		return nil
	})
	return total, err
}

// otherHost reads a device's count of packets for hardware addresses that are not
// its own (Linux 5.19 and later), in the calling thread's namespace.
func otherHost(device string) (int, error) {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(dev.Index)
	req.AddData(msg)
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return 0, err
	}
	for _, answer := range answers {
		attrs, err := nl.ParseRouteAttr(answer[unix.SizeofIfInfomsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_STATS64 {
				return otherHostOf(a.Value)
			}
		}
	}
	return 0, errors.New("no statistics")
}

// otherHostOf finds rx_otherhost_dropped in a struct rtnl_link_stats64, where
// it is the 25th counter.
func otherHostOf(stats []byte) (int, error) {
	const offset = 24 * 8
	if len(stats) < offset+8 {
		return 0, errors.New("the kernel does not count packets for other hosts (Linux 5.19 does)")
	}
	return int(binary.NativeEndian.Uint64(stats[offset:])), nil
}
