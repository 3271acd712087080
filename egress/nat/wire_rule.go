package nat

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// The rules that are sent without nft: those of the chains of policies and of choices
// among gateways, here and in the table of the agent. Whoever has other ones goes by nft.
var (
	lookUpRule = regexp.MustCompile(`^(ip|ip6) ([sd])addr vmap @(\S+)$`)
	leadRule   = regexp.MustCompile(`^(goto|jump) ([^\s,}]+)$`)
	markRule   = regexp.MustCompile(`^(meta|ct) mark set (meta|ct) mark & (0x[0-9a-f]+) \| (0x[0-9a-f]+)$`)
	zoneRule   = regexp.MustCompile(`^ct original zone set (\d+)$`)
)

// localRule lets by what is for this machine.
const localRule = "fib daddr type { local, broadcast, anycast, multicast } return"

// addRule writes a rule at the end of its chain.
func (w *wire) addRule(op Op) bool {
	body, ok := w.rule(op)
	return ok && w.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, op, func() bool {
		w.names(unix.NFTA_RULE_CHAIN, op.Name)
		return w.nest(unix.NFTA_RULE_EXPRESSIONS, body) && w.comment(op.Line.ID)
	})
}

// rule is what writes the expressions of a rule; false if it is none of those above.
func (w *wire) rule(op Op) (func() bool, bool) {
	text := op.Line.Text
	if m := lookUpRule.FindStringSubmatch(text); m != nil {
		return func() bool { return w.matchFamily(m[1] == "ip") && w.lookUpAddress(m[1] == "ip", m[2] == "s", m[3]) }, true
	}
	if m := leadRule.FindStringSubmatch(text); m != nil {
		return func() bool { return w.verdict(verdictCodes[m[1]], m[2]) }, true
	}
	if m := markRule.FindStringSubmatch(text); m != nil && m[1] == m[2] {
		mask, err := strconv.ParseUint(m[3], 0, 32)
		value, err2 := strconv.ParseUint(m[4], 0, 32)
		return func() bool { return w.setMark(m[1], uint32(mask), uint32(value)) }, err == nil && err2 == nil
	}
	if m := zoneRule.FindStringSubmatch(text); m != nil {
		zone, err := strconv.ParseUint(m[1], 10, 16)
		return func() bool { return w.setZone(uint16(zone)) }, err == nil
	}
	if text == localRule {
		id, ok := w.localTypes(op)
		return func() bool { return w.letLocalBy(id) }, ok
	}
	return nil, false
}

var verdictCodes = map[string]int32{"goto": unix.NFT_GOTO, "jump": unix.NFT_JUMP, "return": unix.NFT_RETURN}

// lookUpAddress loads an address of the packet and does what the map says.
func (w *wire) lookUpAddress(ipv4, source bool, set string) bool {
	offset := uint32(24) // of the destination in struct ipv6hdr
	if ipv4 {
		offset = 16 // in struct iphdr
	}
	if source {
		offset -= addrLen(ipv4)
	}
	return w.expression("payload", func() bool {
		w.number(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
		w.number(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER)
		w.number(unix.NFTA_PAYLOAD_OFFSET, offset)
		w.number(unix.NFTA_PAYLOAD_LEN, addrLen(ipv4))
		return true
	}) && w.expression("lookup", func() bool {
		w.number(unix.NFTA_LOOKUP_SREG, unix.NFT_REG_1)
		w.number(unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
		w.text(unix.NFTA_LOOKUP_SET, set)
		return true
	})
}

// verdict does something with the packet; chain is "" unless it goes to one.
func (w *wire) verdict(code int32, chain string) bool {
	return w.expression("immediate", func() bool {
		w.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		return w.nest(unix.NFTA_IMMEDIATE_DATA, func() bool {
			return w.nest(unix.NFTA_DATA_VERDICT, func() bool {
				w.number(unix.NFTA_VERDICT_CODE, uint32(code))
				if chain != "" {
					w.text(unix.NFTA_VERDICT_CHAIN, chain)
				}
				return true
			})
		})
	})
}

// value writes data in the byte order of this machine.
func (w *wire) value(kind uint16, data []byte) bool {
	return w.nest(kind, func() bool { w.bytes(unix.NFTA_DATA_VALUE, data); return true })
}

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// setMark sets the mark of a packet (meta) or flow (ct) to mark & mask | value.
func (w *wire) setMark(of string, mask, value uint32) bool {
	// Attributes have the same numbers for meta and ct, but for the source.
	key, source := uint32(unix.NFT_META_MARK), uint16(unix.NFTA_META_SREG)
	if of == "ct" {
		key, source = unix.NFT_CT_MARK, unix.NFTA_CT_SREG
	}
	return w.expression(of, func() bool {
		w.number(unix.NFTA_META_KEY, key)
		w.number(unix.NFTA_META_DREG, unix.NFT_REG_1)
		return true
	}) && w.expression("bitwise", func() bool {
		w.number(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
		w.number(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
		w.number(unix.NFTA_BITWISE_LEN, 4)
		return w.value(unix.NFTA_BITWISE_MASK, native(mask&^value)) && w.value(unix.NFTA_BITWISE_XOR, native(value))
	}) && w.expression(of, func() bool {
		w.number(unix.NFTA_META_KEY, key)
		w.number(source, unix.NFT_REG_1)
		return true
	})
}

// setZone sets the zone of a flow's original direction.
func (w *wire) setZone(zone uint16) bool {
	return w.expression("immediate", func() bool {
		w.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1)
		return w.value(unix.NFTA_IMMEDIATE_DATA, binary.NativeEndian.AppendUint16(nil, zone))
	}) && w.expression("ct", func() bool {
		w.number(unix.NFTA_CT_KEY, unix.NFT_CT_ZONE)
		w.bytes(unix.NFTA_CT_DIRECTION, []byte{0})
		w.number(unix.NFTA_CT_SREG, unix.NFT_REG_1)
		return true
	})
}

// localTypesData is the user data of the set of localRule in nft 1.0.6: keys in this
// machine's byte order, and of the type of "fib daddr type" (expression 26, result 3, flag 2).
var localTypesData = slices.Concat(userNumber(0, 1), []byte{3, 20}, userNumber(0, 26), []byte{1, 12}, userNumber(0, 3), userNumber(1, 2))

const typeFibAddress = 38 // in nft's enum datatypes

// anonymous is what the kernel makes the name of a set without one of.
const anonymous = "__set%d"

// localTypes writes the set of localRule, and gives its number within the batch.
func (w *wire) localTypes(op Op) (id uint32, ok bool) {
	types := []uint32{unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST}
	ok = w.nft(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, op, func() bool {
		id = uint32(len(w.ops))
		w.names(unix.NFTA_SET_NAME, anonymous)
		w.number(unix.NFTA_SET_FLAGS, unix.NFT_SET_ANONYMOUS|unix.NFT_SET_CONSTANT)
		w.number(unix.NFTA_SET_KEY_TYPE, typeFibAddress)
		w.number(unix.NFTA_SET_KEY_LEN, 4)
		w.number(unix.NFTA_SET_ID, id)
		w.bytes(unix.NFTA_SET_USERDATA, localTypesData)
		return w.nest(unix.NFTA_SET_DESC, func() bool { w.number(unix.NFTA_SET_DESC_SIZE, uint32(len(types))); return true })
	}) && w.nft(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, op, func() bool {
		w.names(unix.NFTA_SET_ELEM_LIST_SET, anonymous)
		w.number(unix.NFTA_SET_ELEM_LIST_SET_ID, id)
		return w.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() bool {
			for _, t := range types {
				if !w.nest(unix.NFTA_LIST_ELEM, func() bool { return w.key(native(t)) }) {
					return false
				}
			}
			return true
		})
	})
	return id, ok
}

// letLocalBy returns if the destination is of the types in the set.
func (w *wire) letLocalBy(set uint32) bool {
	return w.expression("fib", func() bool {
		w.number(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
		w.number(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
		w.number(unix.NFTA_FIB_DREG, unix.NFT_REG_1)
		return true
	}) && w.expression("lookup", func() bool {
		w.number(unix.NFTA_LOOKUP_SREG, unix.NFT_REG_1)
		w.text(unix.NFTA_LOOKUP_SET, anonymous)
		w.number(unix.NFTA_LOOKUP_SET_ID, set)
		return true
	}) && w.verdict(verdictCodes["return"], "")
}
