package steer

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/egret-router/egret/vrf"
)

// DefaultMarkMask has what kube-proxy (0x4000, 0x8000), Cilium (0xf00) and Calico
// (0xffff0000) leave of a mark: ten bits.
const DefaultMarkMask uint32 = 0x000030ff

const (
	// kubeProxyMarks say that a packet is to be dropped or masqueraded.
	kubeProxyMarks uint32 = 0xc000
	// freeMarks are the bits that no mark of a gateway has, which may be on the same
	// node (egress: 0-11 pool, 16-27 hop set, 28 and 29 ways), nor kube-proxy's.
	freeMarks uint32 = 0xc0003000

	minNumberBits, maxNumberBits = 5, 12
	// maxNumber is the highest number of a set with any mask.
	maxNumber = 4000
)

// marks is what we put in the marks of packets and flows, of pods only: a bit that says
// that a policy concerns the packet until it is decided that it is routed normally,
// and the number of a set or a code. All other bits stay as they are.
type marks struct {
	ours uint32   // the bit
	bits []uint32 // of the number, the lowest first
	mask uint32   // all of these

	// The highest number of a set, and codes in place of one, from classification
	// (before conntrack) to the hook that carries the decision out.
	highest                   uint16
	unknown, blocked, nothing uint16 // nothing: no gateway can be used
}

// codeNormal is 0: a packet that a policy concerns and no rule of it.
const codeNormal = 0

// CheckMarkMask says what is wrong with a mask of marks for Config.
func CheckMarkMask(mask uint32) error {
	switch {
	case mask&kubeProxyMarks != 0:
		return fmt.Errorf("mark mask %#x has bits of %#x, with which kube-proxy drops and masquerades", mask, kubeProxyMarks)
	case mask&freeMarks == 0:
		return fmt.Errorf("mark mask %#x has none of the bits %#x: without one, packets of a gateway on the same node would be taken for those of pods", mask, freeMarks)
	case bits.OnesCount32(mask) < 1+minNumberBits:
		return fmt.Errorf("mark mask %#x has %d bits, at least %d are needed: one, and the others for numbers of sets of gateways", mask, bits.OnesCount32(mask), 1+minNumberBits)
	}
	return nil
}

// marksOf are those within a mask that CheckMarkMask accepts; of more bits than can be
// used, the highest that is free and the lowest others.
func marksOf(mask uint32) marks {
	free := mask & freeMarks
	m := marks{ours: 1 << (bits.Len32(free) - 1)}
	m.mask = m.ours
	for bit := range 32 {
		if b := uint32(1) << bit; mask&b != 0 && b != m.ours && len(m.bits) < maxNumberBits {
			m.bits = append(m.bits, b)
			m.mask |= b
		}
	}
	top := uint16(1)<<len(m.bits) - 1
	m.unknown, m.blocked, m.nothing = top-2, top-1, top
	m.highest = min(maxNumber, top-3)
	return m
}

// of is the mark of a number.
func (m marks) of(number uint16) uint32 {
	mark := m.ours
	for i, b := range m.bits {
		if number>>i&1 == 1 {
			mark |= b
		}
	}
	return mark
}

// number is that of a mark.
func (m marks) number(mark uint32) uint16 {
	var n uint16
	for i, b := range m.bits {
		if mark&b != 0 {
			n |= 1 << i
		}
	}
	return n
}

// What follows is in nft's words.

// are matches packets, or with "ct" flows, that a policy concerns; not matches the others.
func (m marks) are(what string) string { return fmt.Sprintf("%s mark & %#x != 0", what, m.ours) }
func (m marks) not(what string) string { return fmt.Sprintf("%s mark & %#x == 0", what, m.ours) }

// is matches packets with exactly this number.
func (m marks) is(number uint16) string {
	return fmt.Sprintf("meta mark & %#x == %#x", m.mask, m.of(number))
}

// put gives packets, or with "ct" flows, a number; clear takes it from packets.
func (m marks) put(what string, number uint16) string {
	return fmt.Sprintf("%s mark set %s mark & %#x | %#x", what, what, ^m.mask, m.of(number))
}

func (m marks) clear() string { return fmt.Sprintf("meta mark set meta mark & %#x", ^m.mask) }

// marksFor are those of a Config's MarkMask, with an error the default ones instead.
func marksFor(mask uint32) (marks, error) {
	if mask == 0 {
		mask = DefaultMarkMask
	}
	if err := CheckMarkMask(mask); err != nil {
		return marksOf(DefaultMarkMask), err
	}
	return marksOf(mask), nil
}

// former are the bits of masks that were in use before, by the rules in the kernel that
// catch what has them: flows may still have them, too.
func former(have vrf.Config, m marks) []uint32 {
	var out []uint32
	for _, r := range have.Rules {
		if b := uint32(r.Mark); r.Priority == prioCatch && r.Mark == r.Mask && b != m.ours && !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	slices.Sort(out)
	return out
}

// podSources says whether an address is one of a node's pods.
func podSources(cfg *Config) func(netip.Addr) bool {
	clients := make(map[netip.Addr]bool, len(cfg.Clients))
	for _, c := range cfg.Clients {
		clients[c.Address] = true
	}
	return func(a netip.Addr) bool {
		return clients[a] || slices.ContainsFunc(cfg.Local, func(p netip.Prefix) bool { return p.Contains(a) })
	}
}
