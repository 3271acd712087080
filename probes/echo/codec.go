// Package echo is how the nodes of clients know which gateways work: they ask
// each gateway's node by UDP, and the answer names the state of each gateway that
// was asked about. It is a signal, and no secret: whoever can answer from the
// address of a gateway's node to a random number that was sent to it is believed.
//
// A request names gateways by a hash each, its answer has a byte for each of
// them: so an answer is never longer than its request, and the server cannot be
// used to multiply traffic. Both fit into one packet of the smallest MTU of IPv6.
package echo

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// DefaultPort is where gateways' nodes answer.
const DefaultPort = 9644

// MaxInstances bounds what one request asks about.
const MaxInstances = 128

// The layout: magic, version, kind, count (16 bits), nonce (64 bits), then count
// keys of 8 bytes (request) or states of one byte (answer). All is big endian.
// Later versions only append: what follows is not looked at.
const (
	magic      = 0x45674563 // "EgEc"
	version    = 1
	headerSize = 16
	keySize    = 8
	maxPacket  = headerSize + MaxInstances*keySize
)

// kind is what a packet is.
type kind uint8

const (
	request kind = 1
	answer  kind = 2
)

// State is what a node says of a gateway on it.
type State uint8

// The states. A state of a later version that is not known here counts as Failed.
const (
	// Absent is a gateway that the node does not have (yet, or any more).
	Absent State = iota
	Ready
	// Draining gateways carry the flows they have, and take no new ones.
	Draining
	Failed
)

// String is the state in lower case.
func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case Ready:
		return "ready"
	case Draining:
		return "draining"
	}
	return "failed"
}

// key stands for the ID of a gateway.
type key [keySize]byte

func keyOf(id string) key {
	sum := sha256.Sum256([]byte(id))
	return key(sum[:keySize])
}

// appendRequest appends a request for at most MaxInstances gateways.
func appendRequest(b []byte, nonce uint64, keys []key) []byte {
	b = appendHeader(b, request, len(keys), nonce)
	for _, k := range keys {
		b = append(b, k[:]...)
	}
	return b
}

// appendAnswer appends the answer to a request with as many keys as states.
func appendAnswer(b []byte, nonce uint64, states []State) []byte {
	b = appendHeader(b, answer, len(states), nonce)
	for _, s := range states {
		b = append(b, byte(s))
	}
	return b
}

func appendHeader(b []byte, k kind, count int, nonce uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, version, byte(k))
	b = binary.BigEndian.AppendUint16(b, uint16(count))
	return binary.BigEndian.AppendUint64(b, nonce)
}

var errForeign = errors.New("not a packet of ours")

// parse checks the header of a packet of one kind, and returns its nonce and its
// list, of count entries of the given size.
func parse(b []byte, want kind, size int) (nonce uint64, list []byte, err error) {
	if len(b) < headerSize || binary.BigEndian.Uint32(b) != magic || b[4] < version || kind(b[5]) != want {
		return 0, nil, errForeign
	}
	count := int(binary.BigEndian.Uint16(b[6:]))
	if count > MaxInstances || len(b) < headerSize+count*size {
		return 0, nil, fmt.Errorf("%d bytes are not %d entries of %d bytes, or too many", len(b), count, size)
	}
	return binary.BigEndian.Uint64(b[8:]), b[headerSize : headerSize+count*size], nil
}

// parseRequest appends the keys of a request to keys.
func parseRequest(b []byte, keys []key) (uint64, []key, error) {
	nonce, list, err := parse(b, request, keySize)
	for ; len(list) > 0; list = list[keySize:] {
		keys = append(keys, key(list[:keySize]))
	}
	return nonce, keys, err
}

// parseAnswer appends the states of an answer to states.
func parseAnswer(b []byte, states []State) (uint64, []State, error) {
	nonce, list, err := parse(b, answer, 1)
	for _, s := range list {
		states = append(states, min(State(s), Failed))
	}
	return nonce, states, err
}
