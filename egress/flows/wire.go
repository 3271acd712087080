package flows

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Messages of linux/netfilter/nfnetlink_conntrack.h. Headers are in the
// machine's byte order, what is in attributes is big endian.

const (
	sizeofHeader = unix.SizeofNlMsghdr
	sizeofFamily = 4 // struct nfgenmsg
	sizeofAttr   = unix.SizeofNlAttr

	flagNested   = 1 << 15
	attrTypeMask = 1<<14 - 1

	statusOffload = 1 << 14 // IPS_OFFLOAD, Linux 4.16
)

// Message types, IPCTNL_MSG_CT_*.
const (
	msgNew      = unix.NFNL_SUBSYS_CTNETLINK << 8
	msgGet      = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	msgDelete   = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	msgStatsCPU = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4
	msgStats    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5
)

// Attributes of an entry, CTA_*.
const (
	attrTupleOrig     = 1
	attrTupleReply    = 2
	attrStatus        = 3
	attrProtoInfo     = 4
	attrTimeout       = 7
	attrMark          = 8
	attrCountersOrig  = 9
	attrCountersReply = 10
	attrID            = 12
	attrZone          = 18
	attrMarkMask      = 21
)

// Attributes of a tuple, CTA_TUPLE_*, and below it CTA_IP_* and CTA_PROTO_*.
const (
	tupleIP    = 1
	tupleProto = 2
	tupleZone  = 3

	ipV4Src = 1
	ipV4Dst = 2
	ipV6Src = 3
	ipV6Dst = 4

	protoNum     = 1
	protoSrcPort = 2
	protoDstPort = 3
	protoICMPID  = 4
	protoICMP6ID = 7
	// Type and code follow the identifier in both families.
	protoICMPType  = 5
	protoICMPCode  = 6
	protoICMP6Type = 8
	protoICMP6Code = 9
)

// The state of a TCP connection, CTA_PROTOINFO_TCP and CTA_PROTOINFO_TCP_STATE,
// and those in which it has ended (linux/netfilter/nf_conntrack_tcp.h).
const (
	protoInfoTCP      = 1
	protoInfoTCPState = 1

	tcpTimeWait = 7
	tcpClose    = 8
)

// Counters, CTA_COUNTERS_*, CTA_STATS_* and CTA_STATS_GLOBAL_*.
const (
	counterPackets = 1
	counterBytes   = 2

	statsInvalid      = 4
	statsInsertFailed = 9
	statsDrop         = 10
	statsEarlyDrop    = 11

	globalEntries = 1
	globalMax     = 2
)

// A message is being built: finish writes its length.
type message []byte

// appendMessage begins a message at the end of b. Its sequence number is the sender's.
func appendMessage(b message, kind, flags uint16, family uint8) message {
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, make([]byte, 8)...)
	return append(b, family, unix.NFNETLINK_V0, 0, 0)
}

// finish writes the length of the message that began at start.
func (b message) finish(start int) message {
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// attr appends an attribute with its padding.
func (b message) attr(kind uint16, payload []byte) message {
	b = binary.NativeEndian.AppendUint16(b, uint16(sizeofAttr+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, payload...)
	return append(b, make([]byte, align(len(payload))-len(payload))...)
}

func (b message) u32(kind uint16, v uint32) message {
	return b.attr(kind, binary.BigEndian.AppendUint32(nil, v))
}

func align(n int) int { return (n + 3) &^ 3 }

// dumpRequest asks for the entries of both families with (ct mark & mask) == mark.
func dumpRequest(mark, mask uint32) message {
	b := appendMessage(nil, msgGet, unix.NLM_F_DUMP, unix.AF_UNSPEC)
	return b.u32(attrMark, mark).u32(attrMarkMask, mask).finish(0)
}

func statsRequest() message {
	return appendMessage(nil, msgStats, 0, unix.AF_UNSPEC).finish(0)
}

func statsCPURequest() message {
	return appendMessage(nil, msgStatsCPU, unix.NLM_F_DUMP, unix.AF_UNSPEC).finish(0)
}

// appendDelete asks for the end of one entry, in the words in which the kernel
// described it. The original tuple is unique within its zone, and the zone goes
// along: as CTA_ZONE if it is that of both directions, inside of the tuple if
// it is that of the original direction only. The reply direction's zone plays no
// part in finding the entry, so it is not sent. The id spares a later entry with
// the same tuple. Without a tuple this message would empty the whole table, so
// parseEntry lets no entry pass that has none.
func appendDelete(b message, e *entry) message {
	start := len(b)
	b = appendMessage(b, msgDelete, 0, e.family)
	b = b.attr(attrTupleOrig|flagNested, e.tuple)
	if len(e.zone) > 0 {
		b = b.attr(attrZone, e.zone)
	}
	return b.attr(attrID, e.id).finish(start)
}
