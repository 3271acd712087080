package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	version = 1
	// headerBytes is the mandatory section, maxPacketBytes a packet with the
	// longest authentication section there can be, as its length is one byte.
	headerBytes    = 24
	maxPacketBytes = headerBytes + 255

	flagPoll        = 0x20
	flagFinal       = 0x10
	flagIndependent = 0x08
	flagAuth        = 0x04
	flagDemand      = 0x02
	flagMultipoint  = 0x01
)

// packet is a BFD Control packet (RFC 5880 4.1). Intervals are whole
// microseconds below 2^32.
type packet struct {
	diag         Diag
	status       Status
	poll, final  bool
	independent  bool
	demand       bool
	mult         uint8
	my, your     uint32
	desiredMinTx time.Duration
	// requiredMinRx zero asks us to send nothing periodically.
	requiredMinRx time.Duration
	echoMinRx     time.Duration
	// auth is the authentication section as it was received, nil without one.
	auth []byte
}

// parse reads a packet as far as that is possible without a session: the first
// checks of RFC 5880 6.8.6. The packet refers to b.
func parse(b []byte) (packet, error) {
	if len(b) < headerBytes {
		return packet{}, fmt.Errorf("only %d bytes", len(b))
	}
	length := int(b[3])
	p := packet{
		diag:          Diag(b[0] & 0x1f),
		status:        Status(b[1] >> 6),
		poll:          b[1]&flagPoll != 0,
		final:         b[1]&flagFinal != 0,
		independent:   b[1]&flagIndependent != 0,
		demand:        b[1]&flagDemand != 0,
		mult:          b[2],
		my:            binary.BigEndian.Uint32(b[4:]),
		your:          binary.BigEndian.Uint32(b[8:]),
		desiredMinTx:  interval(b[12:]),
		requiredMinRx: interval(b[16:]),
		echoMinRx:     interval(b[20:]),
	}
	switch {
	case b[0]>>5 != version:
		return packet{}, fmt.Errorf("version %d", b[0]>>5)
	case length < headerBytes || length > len(b):
		return packet{}, fmt.Errorf("length field %d of %d bytes", length, len(b))
	case p.mult == 0:
		return packet{}, errors.New("detect multiplier is zero")
	case b[1]&flagMultipoint != 0:
		return packet{}, errors.New("multipoint bit is set")
	case p.my == 0:
		return packet{}, errors.New("my discriminator is zero")
	case p.your == 0 && p.status != Down && p.status != AdminDown:
		return packet{}, fmt.Errorf("your discriminator is zero in state %s", p.status)
	}
	if b[1]&flagAuth == 0 {
		return p, nil
	}
	p.auth = b[headerBytes:length]
	if len(p.auth) < 2 || int(p.auth[1]) != len(p.auth) {
		return packet{}, fmt.Errorf("authentication section does not fill %d bytes", len(p.auth))
	}
	return p, nil
}

func interval(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

// appendTo appends the packet, with its authentication section.
func (p packet) appendTo(b []byte) []byte {
	flags := byte(p.status) << 6
	for _, f := range []struct {
		set  bool
		flag byte
	}{{p.poll, flagPoll}, {p.final, flagFinal}, {p.independent, flagIndependent}, {p.auth != nil, flagAuth}, {p.demand, flagDemand}} {
		if f.set {
			flags |= f.flag
		}
	}
	b = append(b, version<<5|byte(p.diag)&0x1f, flags, p.mult, byte(headerBytes+len(p.auth)))
	b = binary.BigEndian.AppendUint32(b, p.my)
	b = binary.BigEndian.AppendUint32(b, p.your)
	for _, d := range []time.Duration{p.desiredMinTx, p.requiredMinRx, p.echoMinRx} {
		b = binary.BigEndian.AppendUint32(b, uint32(min(d.Microseconds(), math.MaxUint32)))
	}
	return append(b, p.auth...)
}
