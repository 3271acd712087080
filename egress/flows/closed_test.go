package flows

import (
	"strings"
	"testing"
)

// closedStates says for each state of TCP (linux/netfilter/nf_conntrack_tcp.h)
// whether the connection has ended.
var closedStates = map[byte]bool{1: false, 2: false, 3: false, 4: false, 5: false, 6: false, 7: true, 8: true}

func withState(m made, state byte) message {
	tcp := message(nil).attr(protoInfoTCPState, []byte{state})
	return append(m.message(), message(nil).attr(attrProtoInfo|flagNested, message(nil).attr(protoInfoTCP|flagNested, tcp))...).finish(0)
}

func TestParseClosed(t *testing.T) {
	m := everyProto()[0]
	for state, want := range closedStates {
		e, err := parseEntry(payload(complete(withState(m, state))))
		if err != nil || e.Closed != want {
			t.Errorf("state %d: closed %v, %v", state, e.Closed, err)
		}
	}
	bad := append(m.message(), message(nil).attr(attrProtoInfo, message(nil).attr(protoInfoTCP, message(nil).attr(protoInfoTCPState, []byte{1, 2})))...)
	if _, err := parseEntry(payload(complete(bad))); err == nil || !strings.Contains(err.Error(), "2 bytes, not 1") {
		t.Errorf("a state of two bytes: %v", err)
	}
}

// The kernel says of the connections that it has which have ended.
func TestKernelSaysClosed(t *testing.T) {
	_, table := newTable(t)
	port := map[uint16]byte{}
	for state := range closedStates {
		m := everyProto()[0]
		m.srcPort, m.poolPort = 6000+uint16(state), 6000+uint16(state)
		port[m.srcPort] = state
		err := use(t.Context(), table.control, func(s *socket) error { return s.exchange(t.Context(), withState(m, state), answer{}) })
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	_, err := table.Sweep(t.Context(), maskAll, maskAll, func(f Flow) bool {
		seen++
		if state := port[f.SrcPort]; f.Closed != closedStates[state] {
			t.Errorf("state %d: closed %v", state, f.Closed)
		}
		return false
	})
	if err != nil || seen != len(closedStates) {
		t.Errorf("%d flows seen, %v", seen, err)
	}
}
