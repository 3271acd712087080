package nat

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// What a new policy needs: its chain and its maps from destinations to verdicts. The
// rules that look destinations up in them are in wire_rule.go.

// addChain writes a new regular chain.
func (w *wire) addChain(op Op) bool {
	return op.Base == (Base{}) && w.nft(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, op, func() bool {
		w.names(unix.NFTA_CHAIN_NAME, op.Name)
		return true
	})
}

// Types of nft (enum datatypes in its include/datatype.h), as which sets are
// listed. The kernel does not look at them, but at the verdict's.
var keyTypes = map[string]uint32{"ipv4_addr": 7, "ipv6_addr": 8}

const dataVerdict = 0xffffff00 // enum nft_data_types

// verdictMapData is the user data of such a map in nft 1.0.6: the byte orders of
// keys (network) and values (none), and that values are no intervals.
var verdictMapData = slices.Concat(userNumber(0, 2), userNumber(1, 0), userNumber(6, 0))

func userNumber(kind byte, value uint32) []byte {
	return binary.NativeEndian.AppendUint32([]byte{kind, 4}, value)
}

// addMap writes a new map from intervals of addresses to verdicts.
func (w *wire) addMap(op Op) bool {
	if op.Set.Value != "verdict" || !op.Set.Interval || op.Set.Odd != "" || keyTypes[op.Set.Key] == 0 {
		return false
	}
	return w.nft(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, op, func() bool {
		w.names(unix.NFTA_SET_NAME, op.Name)
		w.number(unix.NFTA_SET_FLAGS, unix.NFT_SET_INTERVAL|unix.NFT_SET_MAP)
		w.number(unix.NFTA_SET_KEY_TYPE, keyTypes[op.Set.Key])
		w.number(unix.NFTA_SET_KEY_LEN, addrLen(op.Set.Key == "ipv4_addr"))
		w.number(unix.NFTA_SET_DATA_TYPE, dataVerdict)
		w.number(unix.NFTA_SET_DATA_LEN, 0)
		w.number(unix.NFTA_SET_ID, uint32(len(w.ops)))
		w.bytes(unix.NFTA_SET_USERDATA, verdictMapData)
		return true
	})
}

func addrLen(ipv4 bool) uint32 {
	if ipv4 {
		return 4
	}
	return 16
}

// comment writes the comment of a rule, which is user data of type 0.
func (w *wire) comment(text string) bool {
	w.bytes(unix.NFTA_RULE_USERDATA, append(append([]byte{0, byte(len(text) + 1)}, text...), 0))
	return len(text) < 128
}

// matchFamily goes on with packets of one family only.
func (w *wire) matchFamily(ipv4 bool) bool {
	family := byte(unix.NFPROTO_IPV6)
	if ipv4 {
		family = unix.NFPROTO_IPV4
	}
	return w.expression("meta", func() bool {
		w.number(unix.NFTA_META_KEY, unix.NFT_META_NFPROTO)
		w.number(unix.NFTA_META_DREG, unix.NFT_REG_1)
		return true
	}) && w.expression("cmp", func() bool {
		w.number(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		w.number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		return w.nest(unix.NFTA_CMP_DATA, func() bool { w.bytes(unix.NFTA_DATA_VALUE, []byte{family}); return true })
	})
}

func (w *wire) expression(name string, data func() bool) bool {
	return w.nest(unix.NFTA_LIST_ELEM, func() bool {
		w.text(unix.NFTA_EXPR_NAME, name)
		return w.nest(unix.NFTA_EXPR_DATA, data)
	})
}
