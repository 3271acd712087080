package vrf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// socketTimeout bounds one netlink exchange. It has to cover the time that
	// others hold the kernel's one lock for network configuration.
	socketTimeout = 30 * time.Second
	// dumpTries bounds how often a dump is repeated that the kernel says was
	// disturbed by a change.
	dumpTries = 10
)

// Kernel reads and changes the network namespace it was opened in. Snapshot and
// Apply exclude each other; Watch may run beside them.
type Kernel struct {
	owner Owner
	log   *slog.Logger
	ns    netns.NsHandle

	watchSize int                              // bytes, see Watch
	tables    atomic.Pointer[map[TableID]bool] // ours, as of the latest Snapshot

	mu      sync.Mutex
	handle  *netlink.Handle
	sockets map[int]*nl.SocketHandle
	port    uint32 // of the socket that changes routing, set by Open

	requests atomic.Uint64 // changes of routing sent, for tests
}

// Open opens the network namespace of the calling thread. Needs CAP_NET_ADMIN and
// kernel 5.18.
func Open(owner Owner, log *slog.Logger) (*Kernel, error) {
	if err := checkKernel(); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	k := &Kernel{owner: owner, log: log, ns: ns, watchSize: watchBuffer}
	if err := k.openSockets(); err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), k.Close())
	}
	return k, nil
}

// checkKernel refuses kernels that would silently ignore IFA_PROTO, so that our
// addresses could not be told from those of others.
func checkKernel() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	release := unix.ByteSliceToString(name.Release[:])
	if !kernelAtLeast(release, 5, 18) {
		return fmt.Errorf("kernel %q is too old, 5.18 is the oldest", release)
	}
	return nil
}

// kernelAtLeast compares the first two numbers of a release as uname shows it. A
// release that it cannot read passes.
func kernelAtLeast(release string, major, minor int) bool {
	var have [2]int
	if _, err := fmt.Sscanf(release, "%d.%d", &have[0], &have[1]); err != nil {
		return true
	}
	return have[0] > major || (have[0] == major && have[1] >= minor)
}

func (k *Kernel) openSockets() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	k.handle = handle.DisableVFInfoCollection()
	if err := k.handle.SetSocketTimeout(socketTimeout); err != nil {
		return err
	}
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	k.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	if k.port, err = socket.GetPid(); err != nil {
		return err
	}
	if err := socket.SetReceiveBufferSize(bulkBuffer, true); err != nil {
		return err
	}
	timeout := unix.NsecToTimeval(socketTimeout.Nanoseconds())
	// The kernel filters dumps by table and protocol only under strict checking.
	return errors.Join(socket.SetSendTimeout(&timeout), socket.SetReceiveTimeout(&timeout), socket.SetExtAck(true),
		unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1))
}

// Close releases the sockets. No other method may run or follow.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	if k.handle != nil {
		errs = append(errs, k.handle.Close())
	}
	for _, s := range k.sockets {
		errs = append(errs, s.Close())
	}
	k.handle, k.sockets = nil, nil
	return errors.Join(append(errs, k.ns.Close())...)
}

// Snapshot reads what the kernel has. It is not one atomic view: a change in the
// middle shows in part, and as an event in Watch.
func (k *Kernel) Snapshot(ctx context.Context) (Snapshot, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var raw Raw
	read := []struct {
		what string
		do   func(*Raw) error
	}{
		{"links", k.readLinks}, {"addresses", k.readAddresses}, {"next hops", k.readNextHops},
		{"rules", k.readRules}, {"routes", k.readRoutes},
	}
	for _, r := range read {
		if err := ctx.Err(); err != nil {
			return Snapshot{}, err
		}
		if err := r.do(&raw); err != nil {
			return Snapshot{}, fmt.Errorf("read %s: %w", r.what, err)
		}
	}
	s := NewSnapshot(k.owner, raw)
	tables := s.tables()
	k.tables.Store(&tables)
	return s, nil
}

// dump sends a dump request and calls f for each message. f may be called for the
// messages of several tries: reset is called before each.
func (k *Kernel) dump(kind uint16, payload message, reset func(), f func([]byte) error) error {
	var err error
	for range dumpTries {
		reset()
		req := k.request(kind, unix.NLM_F_DUMP, payload)
		var bad error
		err = req.ExecuteIter(unix.NETLINK_ROUTE, 0, func(b []byte) bool {
			bad = f(b)
			return bad == nil
		})
		if bad != nil {
			return bad
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return err
}

func (k *Kernel) request(kind uint16, flags uint16, payload message) *nl.NetlinkRequest {
	req := &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: kind, Flags: unix.NLM_F_REQUEST | flags},
		Sockets:  k.sockets,
	}
	req.AddRawData(payload)
	return req
}

func (k *Kernel) readLinks(raw *Raw) error {
	var list []netlink.Link
	var err error
	for range dumpTries {
		if list, err = k.handle.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return err
	}
	names := make(map[int]string, len(list))
	for _, l := range list {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range list {
		raw.Links = append(raw.Links, linkOf(l, names))
	}
	return nil
}

func linkOf(l netlink.Link, names map[int]string) Link {
	a := l.Attrs()
	out := Link{
		Name: a.Name, Index: a.Index, Master: names[a.MasterIndex],
		Up: a.Flags&net.FlagUp != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Alias: a.Alias, Group: a.Group, MTU: a.MTU,
	}
	if kind := l.Type(); kind != "device" {
		out.Kind = kind
	}
	out.readTunnel(l, names)
	switch l := l.(type) {
	case *netlink.Vrf:
		out.Table = TableID(l.Table)
	case *netlink.Vlan:
		out.VLANID = uint16(l.VlanId)
		if a.NetNsID < 0 { // the parent is in this namespace
			out.Parent = names[a.ParentIndex]
		}
	}
	return out
}

func (k *Kernel) readAddresses(raw *Raw) error {
	byIndex := map[int]*Link{}
	for i := range raw.Links {
		byIndex[raw.Links[i].Index] = &raw.Links[i]
	}
	reset := func() {
		for i := range raw.Links {
			raw.Links[i].Addresses = nil
		}
	}
	return k.dump(unix.RTM_GETADDR, make(message, sizeofIfAddr), reset, func(b []byte) error {
		a, index, ok, err := parseAddress(b)
		if l := byIndex[index]; ok && err == nil && l != nil {
			l.Addresses = append(l.Addresses, a)
		}
		return err
	})
}

func (k *Kernel) readNextHops(raw *Raw) error {
	names := map[int]string{}
	for _, l := range raw.Links {
		names[l.Index] = l.Name
	}
	reset := func() { raw.NextHops, raw.Groups = nil, nil }
	return k.dump(unix.RTM_GETNEXTHOP, make(message, sizeofNhMsg), reset, func(b []byte) error {
		h, err := parseNextHop(b)
		if err != nil {
			return err
		}
		if len(h.members) > 0 {
			raw.Groups = append(raw.Groups, RawGroup{
				Group: Group{ID: h.ID, Members: h.members, Resilient: h.resilient}, Protocol: h.Protocol, Odd: h.Odd,
			})
			return nil
		}
		if !h.Blackhole {
			h.Device = names[h.device]
		}
		raw.NextHops = append(raw.NextHops, h.RawNextHop)
		return nil
	})
}

// readRoutes reads the routes of our protocols in every table, and those of
// others in our tables, filtered by the kernel. It comes after the rules.
func (k *Kernel) readRoutes(raw *Raw) error {
	ours := func(protocol uint8) bool {
		return protocol == k.owner.Protocol || protocol == k.owner.LearnedProtocol
	}
	for _, ipv6 := range []bool{false, true} {
		for _, protocol := range []uint8{k.owner.Protocol, k.owner.LearnedProtocol} {
			if err := k.dumpRoutes(raw, ipv6, protocol, 0, ours); err != nil {
				return err
			}
		}
	}
	// What NewSnapshot makes of it so far tells which tables are ours.
	foreign := func(protocol uint8) bool { return !ours(protocol) }
	for _, table := range slices.Sorted(maps.Keys(k.tablesOf(*raw))) {
		for _, ipv6 := range []bool{false, true} {
			if err := k.dumpRoutes(raw, ipv6, 0, table, foreign); err != nil {
				return err
			}
		}
	}
	return nil
}

// tablesOf are our tables in raw, see Snapshot.tables.
func (k *Kernel) tablesOf(raw Raw) map[TableID]bool {
	routes := raw.Routes
	raw.Routes, raw.NextHops, raw.Groups = nil, nil, nil
	last := TableID(0)
	for _, r := range routes {
		if r.Table != last { // one of each table will do
			raw.Routes, last = append(raw.Routes, r), r.Table
		}
	}
	s := NewSnapshot(k.owner, raw)
	return s.tables()
}

// dumpRoutes reads routes that match protocol and table (0 matches all) and whose
// protocol is to be kept.
func (k *Kernel) dumpRoutes(raw *Raw, ipv6 bool, protocol uint8, table TableID, keep func(uint8) bool) error {
	payload := make(message, sizeofRtMsg, sizeofRtMsg+8)
	payload[0], payload[5] = family(ipv6), protocol
	if table != 0 {
		payload.u32(unix.RTA_TABLE, uint32(table))
	}
	before := len(raw.Routes)
	reset := func() { raw.Routes = raw.Routes[:before] }
	err := k.dump(unix.RTM_GETROUTE, payload, reset, func(b []byte) error {
		if len(b) >= sizeofRtMsg && !keep(b[5]) {
			return nil
		}
		r, ok, err := parseRoute(b)
		if ok && err == nil {
			raw.Routes = append(raw.Routes, r)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) { // the table has no routes yet
		return nil
	}
	return err
}

func (k *Kernel) readRules(raw *Raw) error {
	reset := func() { raw.Rules = nil }
	for _, ipv6 := range []bool{false, true} {
		before := raw.Rules
		payload := make(message, sizeofRtMsg)
		payload[0] = family(ipv6)
		err := k.dump(unix.RTM_GETRULE, payload, reset, func(b []byte) error {
			r, ok, err := parseRule(b)
			if ok && err == nil {
				raw.Rules = append(raw.Rules, r)
			}
			return err
		})
		if err != nil {
			return err
		}
		raw.Rules = append(before, raw.Rules...)
	}
	return nil
}
