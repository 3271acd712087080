package vrf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxBulk bounds how many requests are sent at a time. The answers to them, if all
// fail, must fit into the receive buffer, for the kernel drops what does not.
const maxBulk = 100

// bulkBuffer is the receive buffer of the socket in bytes: 100 answers are below
// 150 kB as the kernel counts.
const bulkBuffer = 1 << 20

// execute is Execute, with runs of routes sent together.
func (a *applier) execute(ctx context.Context, plan Plan) Result {
	var r Result
	failed := make([]bool, len(plan.Ops))
	note := func(i int, err error) {
		if a.log.Enabled(ctx, slog.LevelDebug) {
			a.log.Debug("step", "action", plan.Ops[i].Action.String(), "error", err)
		}
		if err == nil {
			r.Applied++
			return
		}
		failed[i] = true
		r.Errors = append(r.Errors, OpError{Op: plan.Ops[i], Err: err})
	}
	for i := 0; i < len(plan.Ops); {
		end := i + bulkLength(plan.Ops, i)
		var errs []error
		switch op := plan.Ops[i]; {
		case ctx.Err() != nil:
			errs = slices.Repeat([]error{ctx.Err()}, end-i)
		case end > i+1:
			errs = a.bulk(plan.Ops[i:end], failed)
		case lacks(op, failed):
			errs = []error{ErrSkipped}
		default:
			errs = []error{a.do(op.Action)}
		}
		for n, err := range errs {
			note(i+n, err)
		}
		i = end
	}
	return r
}

// lacks says that a step needs one that failed.
func lacks(op Op, failed []bool) bool {
	return slices.ContainsFunc(op.Needs, func(n int) bool { return failed[n] })
}

// bulkLength is how many steps from the first on may be sent together: routes that
// need none of each other.
func bulkLength(ops []Op, first int) int {
	n := 0
	for n < maxBulk && first+n < len(ops) && isRoute(ops[first+n].Action) &&
		!slices.ContainsFunc(ops[first+n].Needs, func(need int) bool { return need >= first }) {
		n++
	}
	return max(n, 1)
}

func isRoute(a Action) bool {
	switch a.(type) {
	case PutRoute, DeleteRoute:
		return true
	}
	return false
}

// bulk sends the requests for some routes in one go and has an error, or nil, for each.
// The kernel carries them out one after the other, whatever becomes of those before. It
// answers where something fails, and for the last one in any case.
func (a *applier) bulk(ops []Op, failed []bool) []error {
	errs := make([]error, len(ops))
	handle := a.sockets[unix.NETLINK_ROUTE]
	sent := map[uint32]int{} // by sequence number
	var last uint32
	buffer, at := a.buffer[:0], 0
	for i, op := range ops {
		if lacks(op, failed) {
			errs[i] = ErrSkipped
			continue
		}
		last, at = atomic.AddUint32(&handle.Seq, 1), len(buffer)
		sent[last] = i
		buffer = a.appendRoute(buffer, op.Action, last)
	}
	a.buffer = buffer
	if len(sent) == 0 {
		return errs
	}
	flags := binary.NativeEndian.Uint16(buffer[at+6:])
	binary.NativeEndian.PutUint16(buffer[at+6:], flags|unix.NLM_F_ACK)
	handle.Socket.Lock()
	defer handle.Socket.Unlock()
	a.requests.Add(uint64(len(sent)))
	err := unix.Sendto(handle.Socket.GetFd(), buffer, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = readAnswers(handle.Socket, last, func(seq uint32, err error) {
			if i, ours := sent[seq]; ours {
				errs[i] = err
			}
		})
	}
	if err != nil { // nobody knows what became of them
		for _, i := range sent {
			errs[i] = errors.Join(errs[i], err)
		}
	}
	for i, op := range ops {
		if _, del := op.Action.(DeleteRoute); del {
			errs[i] = gone(errs[i])
		}
	}
	return errs
}

// appendRoute appends the whole message of a route's request.
func (a *applier) appendRoute(b []byte, action Action, seq uint32) []byte {
	var kind, flags uint16
	var payload message
	switch action := action.(type) {
	case PutRoute:
		kind, flags = unix.RTM_NEWROUTE, putFlags(action.Replace)
		payload = encodeRoute(action.Route, a.routeProtocol(action.Route), unix.RT_SCOPE_UNIVERSE)
	case DeleteRoute:
		kind = unix.RTM_DELROUTE
		payload = encodeRoute(action.Route, a.routeProtocol(action.Route), unix.RT_SCOPE_NOWHERE)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel knows our port
	return append(b, payload...)               // its attributes are padded to 4 bytes
}

// readAnswers reads until the answer to the request last.
func readAnswers(socket *nl.NetlinkSocket, last uint32, each func(seq uint32, err error)) error {
	for {
		messages, from, err := socket.Receive()
		if err != nil {
			return fmt.Errorf("read the answers: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, m := range messages {
			if m.Header.Type != unix.NLMSG_ERROR {
				continue
			}
			each(m.Header.Seq, parseError(m.Header.Flags, m.Data))
			if m.Header.Seq == last {
				return nil
			}
		}
	}
}

// parseError reads the payload of an NLMSG_ERROR: nil for an acknowledgement, else the
// errno with the kernel's words for it, if it has some.
func parseError(flags uint16, b []byte) error {
	if len(b) < 4+unix.SizeofNlMsghdr {
		return fmt.Errorf("parse answer: %d bytes", len(b))
	}
	errno := int32(binary.NativeEndian.Uint32(b))
	if errno == 0 {
		return nil
	}
	err := error(unix.Errno(-errno))
	if flags&unix.NLM_F_ACK_TLVS == 0 {
		return err
	}
	request := unix.SizeofNlMsghdr
	if flags&unix.NLM_F_CAPPED == 0 {
		request = int(min(binary.NativeEndian.Uint32(b[4:]), uint32(len(b))))
	}
	rest := b[min(len(b), 4+(request+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
	text := ""
	bad := eachAttr(rest, func(kind uint16, data []byte) error {
		if kind == nl.NLMSGERR_ATTR_MSG {
			text = unix.ByteSliceToString(data)
		}
		return nil
	})
	if bad != nil || text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}
