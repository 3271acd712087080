package nat

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nft reads every interval of the table before it adds one: a second for
// 100,000 of them. So plans of simple operations, as an edit of a policy gives,
// go to the kernel without it, as the same messages that nft 1.0.6 would send.
// This file and wire_policy.go write them
// (Documentation/netlink/specs/nftables.yaml in Linux); sending is in send.go.

// maxWireBytes bounds a batch. What is larger goes through nft.
const maxWireBytes = 1 << 20

// maxMessageBytes is where a message of elements ends: the length of an attribute
// has 16 bits.
const maxMessageBytes = 32 << 10

// wire is a batch of netlink messages.
type wire struct {
	table string
	buf   []byte
	ops   []Op // by sequence number: the first operation of each message
}

// encode gives the batch that carries the plan out; false if a part of the plan
// is nothing it can say.
func encode(p Plan) (wire, bool) {
	w := wire{table: named(p.Table)}
	w.message(unix.NFNL_MSG_BATCH_BEGIN, 0, Op{}, func() bool { return true })
	for i := 0; i < len(p.Ops); {
		n, ok := w.ops1(p.Ops[i:])
		if !ok || len(w.buf) > maxWireBytes {
			return wire{}, false
		}
		i += n
	}
	w.message(unix.NFNL_MSG_BATCH_END, 0, Op{}, func() bool { return true })
	return w, true
}

// ops1 writes one message, for the first operation and those behind it that
// belong to the same set, and says for how many.
func (w *wire) ops1(ops []Op) (int, bool) {
	op, n := ops[0], 1
	switch {
	case op.Kind == kindElement && op.Verb == verbAdd:
		ok := w.nft(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, op, func() (ok bool) { n, ok = w.elements(ops); return ok })
		return n, ok
	case op.Kind == kindElement && op.Verb == verbDelete:
		ok := w.nft(unix.NFT_MSG_DELSETELEM, 0, op, func() (ok bool) { n, ok = w.elements(ops); return ok })
		return n, ok
	case (op.Kind == "set" || op.Kind == "map") && op.Verb == verbFlush:
		return n, w.nft(unix.NFT_MSG_DELSETELEM, 0, op, func() bool { w.names(unix.NFTA_SET_ELEM_LIST_SET, op.Name); return true })
	case (op.Kind == "set" || op.Kind == "map") && op.Verb == verbDelete:
		return n, w.nft(unix.NFT_MSG_DELSET, 0, op, func() bool { w.names(unix.NFTA_SET_NAME, op.Name); return true })
	case op.Kind == kindChain && op.Verb == verbFlush:
		return n, w.nft(unix.NFT_MSG_DELRULE, 0, op, func() bool { w.names(unix.NFTA_RULE_CHAIN, op.Name); return true })
	case op.Kind == kindChain && op.Verb == verbDelete:
		return n, w.nft(unix.NFT_MSG_DELCHAIN, 0, op, func() bool { w.names(unix.NFTA_CHAIN_NAME, op.Name); return true })
	case op.Kind == kindChain && op.Verb == verbAdd:
		return n, w.addChain(op)
	case op.Kind == "map" && op.Verb == verbAdd:
		return n, w.addMap(op)
	case op.Kind == kindRule && op.Verb == verbAdd:
		return n, w.addRule(op)
	}
	return 0, false
}

// names are the attributes that say which object is meant. The table's is 1 in
// every message.
func (w *wire) names(kind uint16, name string) {
	w.text(unix.NFTA_SET_TABLE, w.table)
	w.text(kind, name)
}

// elements writes the elements of one message, and says of how many operations.
func (w *wire) elements(ops []Op) (n int, ok bool) {
	w.names(unix.NFTA_SET_ELEM_LIST_SET, ops[0].Name)
	begin := len(w.buf)
	ok = w.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() bool {
		for n < len(ops) && (n == 0 || ops[n].sameSet(ops[0])) && len(w.buf)-begin < maxMessageBytes {
			if !w.element(ops[n]) {
				return false
			}
			n++
		}
		return true
	})
	return n, ok
}

// openInterval is the user data by which nft knows an interval without an end.
var openInterval = []byte{1, 4, 1, 0, 0, 0}

// element writes an element: for an interval its first address, and the address
// behind its last one as an end, unless there is none.
func (w *wire) element(op Op) bool {
	if !op.Set.Interval {
		key, ok := keyBytes(op.Set.Key, op.Key)
		return ok && w.nest(unix.NFTA_LIST_ELEM, func() bool { return w.entry(op, key) })
	}
	s, err := parseSpan(op.Key)
	if err != nil || addrType(s.lo.Is4()) != op.Set.Key {
		return false
	}
	end := s.hi.Next()
	ok := w.nest(unix.NFTA_LIST_ELEM, func() bool {
		if !w.entry(op, s.lo.AsSlice()) {
			return false
		}
		if !end.IsValid() && op.Verb == verbAdd {
			w.bytes(unix.NFTA_SET_ELEM_USERDATA, openInterval)
		}
		return true
	})
	if !ok || !end.IsValid() {
		return ok
	}
	return w.nest(unix.NFTA_LIST_ELEM, func() bool {
		w.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		return w.key(end.AsSlice())
	})
}

func (w *wire) key(key []byte) bool {
	return w.nest(unix.NFTA_SET_ELEM_KEY, func() bool { w.bytes(unix.NFTA_DATA_VALUE, key); return true })
}

// entry writes key and value of an element.
func (w *wire) entry(op Op, key []byte) bool {
	w.key(key)
	if op.Set.Value == "" || op.Verb == verbDelete {
		return true
	}
	if op.Set.Value != "verdict" {
		value, ok := keyBytes(op.Set.Value, op.Value)
		return ok && w.nest(unix.NFTA_SET_ELEM_DATA, func() bool { w.bytes(unix.NFTA_DATA_VALUE, value); return true })
	}
	word, chain, _ := strings.Cut(op.Value, " ")
	code, ok := map[string]int32{"goto": unix.NFT_GOTO, "jump": unix.NFT_JUMP}[word]
	return ok && chain != "" && w.nest(unix.NFTA_SET_ELEM_DATA, func() bool {
		return w.nest(unix.NFTA_DATA_VERDICT, func() bool {
			w.number(unix.NFTA_VERDICT_CODE, uint32(code))
			w.text(unix.NFTA_VERDICT_CHAIN, chain)
			return true
		})
	})
}

// keyBytes is a key or an address in the kernel's form.
func keyBytes(kind, text string) ([]byte, bool) {
	switch kind {
	case "ipv4_addr", "ipv6_addr":
		a, err := netip.ParseAddr(text)
		return a.AsSlice(), err == nil && a.Zone() == "" && addrType(a.Is4()) == kind
	case "mark", "integer":
		n, err := strconv.ParseUint(text, 0, 32)
		return binary.NativeEndian.AppendUint32(nil, uint32(n)), err == nil
	case "ifname":
		name := strings.TrimSuffix(strings.TrimPrefix(text, `"`), `"`)
		out := make([]byte, unix.IFNAMSIZ)
		copy(out, name)
		return out, deviceName.MatchString(name) && len(name)+2 == len(text)
	}
	return nil, false
}

// nft writes a message of nftables, which the kernel acknowledges.
func (w *wire) nft(kind, flags uint16, op Op, body func() bool) bool {
	return w.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags|unix.NLM_F_ACK, op, body)
}

// message writes struct nlmsghdr, struct nfgenmsg and what body writes.
func (w *wire) message(kind, flags uint16, op Op, body func() bool) bool {
	start := len(w.buf)
	w.buf = binary.NativeEndian.AppendUint32(w.buf, 0)
	w.buf = binary.NativeEndian.AppendUint16(w.buf, kind)
	w.buf = binary.NativeEndian.AppendUint16(w.buf, flags|unix.NLM_F_REQUEST)
	w.buf = binary.NativeEndian.AppendUint32(w.buf, uint32(len(w.ops)))
	w.buf = binary.NativeEndian.AppendUint32(w.buf, 0)
	w.ops = append(w.ops, op)
	genmsg := [genmsgSize]byte{unix.NFPROTO_INET, 0}
	if kind < unix.NFNL_SUBSYS_NFTABLES<<8 {
		genmsg = [genmsgSize]byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	}
	w.buf = append(w.buf, genmsg[:]...)
	ok := body()
	binary.NativeEndian.PutUint32(w.buf[start:], uint32(len(w.buf)-start))
	return ok
}

// nest writes an attribute that has attributes in it.
func (w *wire) nest(kind uint16, body func() bool) bool {
	start := len(w.buf)
	w.buf = append(w.buf, 0, 0, 0, 0)
	ok := body()
	length := len(w.buf) - start
	binary.NativeEndian.PutUint16(w.buf[start:], uint16(length))
	binary.NativeEndian.PutUint16(w.buf[start+2:], kind|unix.NLA_F_NESTED)
	return ok && length < 1<<16
}

// bytes writes an attribute, and fills it up to four bytes.
func (w *wire) bytes(kind uint16, value []byte) {
	w.buf = binary.NativeEndian.AppendUint16(w.buf, uint16(unix.SizeofNlAttr+len(value)))
	w.buf = binary.NativeEndian.AppendUint16(w.buf, kind)
	w.buf = append(w.buf, value...)
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}

func (w *wire) text(kind uint16, value string) { w.bytes(kind, append([]byte(value), 0)) }

func (w *wire) number(kind uint16, value uint32) {
	w.bytes(kind, binary.BigEndian.AppendUint32(nil, value))
}
