package vrf

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply carries out a plan in its order. A step that fails is reported, the steps
// that need it are skipped, and the others go on. Deleting what is gone already is
// no failure. Nothing is retried: the next Snapshot shows what is left to do.
func (k *Kernel) Apply(ctx context.Context, plan Plan) Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expectTables(plan)
	a := applier{Kernel: k, index: map[string]int{}}
	return a.execute(ctx, plan)
}

// expectTables makes Watch tell foreign routes in the tables that a plan is the first
// to use.
func (k *Kernel) expectTables(plan Plan) {
	known := k.tables.Load()
	if known == nil {
		return // all are told
	}
	var added Snapshot
	last := TableID(0)
	for _, op := range plan.Ops {
		switch a := op.Action.(type) {
		case PutRoute:
			if a.Route.Table != last {
				last = a.Route.Table
				added.Config.Routes = append(added.Config.Routes, a.Route)
			}
		case AddRule:
			added.Config.Rules = append(added.Config.Rules, a.Rule)
		}
	}
	all := added.tables()
	maps.Copy(all, *known)
	k.tables.Store(&all)
}

// applier is one run of Apply. It knows the index of the devices it has met.
type applier struct {
	*Kernel
	index  map[string]int
	buffer []byte // of requests, see bulk
}

func (a *applier) do(action Action) error {
	switch action := action.(type) {
	case AddVRF:
		return a.addVRF(action)
	case AddVLAN:
		return a.addVLAN(action)
	case AddTunnel:
		delete(a.index, action.Name)
		return a.send(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, encodeTunnelDevice(action))
	case AddLoop:
		return a.addLoop(action)
	case SetMTU:
		return a.withLink(action.Device, func(l netlink.Link) error { return a.handle.LinkSetMTU(l, action.MTU) })
	case SetAlias:
		return a.setAlias(action)
	case SetMaster:
		return a.setMaster(action)
	case SetUp:
		return a.withLink(action.Device, a.handle.LinkSetUp)
	case DeleteLink:
		return a.deleteLink(action.Device)
	case PutAddress:
		return a.putAddress(action)
	case DeleteAddress:
		return a.deleteAddress(action)
	case PutNextHop:
		return a.putNextHop(action)
	case PutGroup:
		return a.send(unix.RTM_NEWNEXTHOP, putFlags(action.Replace), encodeGroup(action.Group, a.owner.Protocol))
	case DeleteNextHop:
		return gone(a.send(unix.RTM_DELNEXTHOP, 0, encodeHopID(action.ID)))
	case PutRoute:
		return a.send(unix.RTM_NEWROUTE, putFlags(action.Replace),
			encodeRoute(action.Route, a.routeProtocol(action.Route), unix.RT_SCOPE_UNIVERSE))
	case DeleteRoute:
		return gone(a.send(unix.RTM_DELROUTE, 0,
			encodeRoute(action.Route, a.routeProtocol(action.Route), unix.RT_SCOPE_NOWHERE)))
	case AddRule:
		// Without NLM_F_EXCL the kernel takes a rule that equals a foreign one.
		return a.send(unix.RTM_NEWRULE, unix.NLM_F_CREATE, encodeRule(action.Rule, a.owner.Protocol))
	case DeleteRule:
		return gone(a.send(unix.RTM_DELRULE, 0, encodeRule(action.Rule, a.owner.Protocol)))
	}
	return fmt.Errorf("unknown action %T", action)
}

// send sends one request and waits for the answer.
func (a *applier) send(kind, flags uint16, payload message) error {
	a.requests.Add(1)
	_, err := a.request(kind, flags|unix.NLM_F_ACK, payload).Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func putFlags(replace bool) uint16 {
	if replace {
		return unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return unix.NLM_F_CREATE | unix.NLM_F_EXCL
}

func (k *Kernel) routeProtocol(r Route) uint8 {
	if r.Learned {
		return k.owner.LearnedProtocol
	}
	return k.owner.Protocol
}

// gone forgives the errors that say that something to be deleted does not exist.
func gone(err error) error {
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil
	}
	for _, missing := range []error{unix.ENODEV, unix.ENOENT, unix.ESRCH, unix.EADDRNOTAVAIL} {
		if errors.Is(err, missing) {
			return nil
		}
	}
	return err
}

func (a *applier) addVRF(v AddVRF) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = v.Name, v.Group
	delete(a.index, v.Name)
	return a.handle.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: uint32(v.Table)})
}

func (a *applier) addVLAN(v AddVLAN) error {
	parent, err := a.indexOf(v.VLAN.Parent)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.ParentIndex = v.Name, v.Group, parent
	delete(a.index, v.Name)
	return a.handle.LinkAdd(&netlink.Vlan{
		LinkAttrs: attrs, VlanId: int(v.VLAN.ID), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q,
	})
}

func (a *applier) addLoop(l AddLoop) error {
	delete(a.index, l.Name)
	delete(a.index, l.Peer)
	m, err := encodeLoop(l)
	if err != nil {
		return err
	}
	return a.send(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m)
}

// setAlias leaves the group that marks a new device after the alias is set, so
// that the device is recognised at every moment.
func (a *applier) setAlias(s SetAlias) error {
	return a.withLink(s.Device, func(l netlink.Link) error {
		if err := a.handle.LinkSetAlias(l, s.Alias); err != nil {
			return err
		}
		return a.handle.LinkSetGroup(l, 0)
	})
}

func (a *applier) setMaster(s SetMaster) error {
	if s.Master == "" {
		return gone(a.withLink(s.Device, a.handle.LinkSetNoMaster))
	}
	master, err := a.indexOf(s.Master)
	if err != nil {
		return err
	}
	return a.withLink(s.Device, func(l netlink.Link) error { return a.handle.LinkSetMasterByIndex(l, master) })
}

// deleteLink looks again whether the device is ours: others may have taken the
// name since the snapshot.
func (a *applier) deleteLink(name string) error {
	delete(a.index, name)
	l, err := a.handle.LinkByName(name)
	if err != nil {
		return gone(err)
	}
	is := linkOf(l, nil)
	if !a.owner.ownsVRF(is) && !a.owner.ownsVLAN(is) && !a.owner.ownsDevice(is) {
		return fmt.Errorf("device %q is not ours any more", name)
	}
	return gone(a.handle.LinkDel(l))
}

// withLink runs f on a link that only has its index.
func (a *applier) withLink(name string, f func(netlink.Link) error) error {
	index, err := a.indexOf(name)
	if err != nil {
		return err
	}
	return f(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index, Name: name}})
}

func (a *applier) indexOf(name string) (int, error) {
	if index, ok := a.index[name]; ok {
		return index, nil
	}
	l, err := a.handle.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find device %q: %w", name, err)
	}
	a.index[name] = l.Attrs().Index
	return l.Attrs().Index, nil
}

func (a *applier) putAddress(p PutAddress) error {
	index, err := a.indexOf(p.Device)
	if err != nil {
		return err
	}
	return a.send(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, encodeAddress(p.Address, index))
}

func (a *applier) deleteAddress(d DeleteAddress) error {
	index, err := a.indexOf(d.Device)
	if err != nil {
		return gone(err)
	}
	address := Address{Prefix: d.Prefix, Valid: Forever, Preferred: Forever}
	return gone(a.send(unix.RTM_DELADDR, 0, encodeAddress(address, index)))
}

func (a *applier) putNextHop(p PutNextHop) error {
	m := encodeNextHop(p.NextHop, a.owner.Protocol)
	if !p.NextHop.Blackhole {
		index, err := a.indexOf(p.NextHop.Device)
		if err != nil {
			return err
		}
		m.u32(unix.NHA_OIF, uint32(index))
	}
	return a.send(unix.RTM_NEWNEXTHOP, putFlags(p.Replace), m)
}
