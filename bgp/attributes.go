package bgp

import (
	"cmp"
	"fmt"
	"slices"
)

// Well-known communities: RFC 1997, RFC 8326 and RFC 7999.
const (
	NoExport         uint32 = 0xffffff01
	NoAdvertise      uint32 = 0xffffff02
	GracefulShutdown uint32 = 0xffff0000
	Blackhole        uint32 = 0xffff029a
)

// maxPrepend bounds Attributes.Prepend: longer paths are refused by many.
const maxPrepend = 16

// maxCommunities bounds the communities of one prefix, of each kind, so that
// an UPDATE message (RFC 4271 4: 4096 bytes) has room for them.
const maxCommunities = 64

// LargeCommunity is one of RFC 8092.
type LargeCommunity struct {
	Global, Local1, Local2 uint32
}

// String is the form of RFC 8092 5: three numbers with colons between them.
func (c LargeCommunity) String() string {
	return fmt.Sprintf("%d:%d:%d", c.Global, c.Local1, c.Local2)
}

func (c LargeCommunity) compare(d LargeCommunity) int {
	return cmp.Or(cmp.Compare(c.Global, d.Global), cmp.Compare(c.Local1, d.Local1), cmp.Compare(c.Local2, d.Local2))
}

// FormatCommunity writes a standard community (RFC 1997) as two numbers.
func FormatCommunity(c uint32) string { return fmt.Sprintf("%d:%d", c>>16, c&0xffff) }

// Attributes go along with an advertised prefix.
type Attributes struct {
	// Communities are standard communities (RFC 1997) as ASN<<16|value.
	Communities []uint32
	// LargeCommunities are those of RFC 8092.
	LargeCommunities []LargeCommunity
	// MED is the MULTI_EXIT_DISC; nil sends none.
	MED *uint32
	// LocalPref is the LOCAL_PREF, for peers in our own AS only; nil is 100.
	LocalPref *uint32
	// Prepend is how often our own ASN is prepended to the AS path, beyond the
	// once that it is there, for peers in another AS only; nil is 0.
	Prepend *uint8
}

// Clone returns a deep copy. Lists that are empty stay different from absent
// ones.
func (a Attributes) Clone() Attributes {
	a.Communities = slices.Clone(a.Communities)
	a.LargeCommunities = slices.Clone(a.LargeCommunities)
	a.MED, a.LocalPref, a.Prepend = clonePointer(a.MED), clonePointer(a.LocalPref), clonePointer(a.Prepend)
	return a
}

// Clone returns a deep copy.
func (r ImportRule) Clone() ImportRule {
	r.Communities, r.LargeCommunities = slices.Clone(r.Communities), slices.Clone(r.LargeCommunities)
	r.LocalPref = clonePointer(r.LocalPref)
	return r
}

// Equal tells whether two rules say the same.
func (r ImportRule) Equal(o ImportRule) bool {
	return r.Prefix == o.Prefix && r.Min == o.Min && r.Max == o.Max && r.ASPath == o.ASPath && r.Reject == o.Reject &&
		slices.Equal(r.Communities, o.Communities) && slices.Equal(r.LargeCommunities, o.LargeCommunities) && samePointer(r.LocalPref, o.LocalPref)
}

// normalised returns a copy with the communities sorted.
func (a Attributes) normalised() Attributes {
	a = a.Clone()
	slices.Sort(a.Communities)
	a.Communities = slices.Compact(a.Communities)
	slices.SortFunc(a.LargeCommunities, LargeCommunity.compare)
	a.LargeCommunities = slices.Compact(a.LargeCommunities)
	return a
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func samePointer[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// Equal tells whether a and b are the same, and for lists also equally absent.
func (a Attributes) Equal(b Attributes) bool {
	return a.samePath(b) && samePointer(a.Prepend, b.Prepend)
}

// samePath leaves out what is no attribute of a path in GoBGP's table.
func (a Attributes) samePath(b Attributes) bool {
	return slices.Equal(a.Communities, b.Communities) && slices.Equal(a.LargeCommunities, b.LargeCommunities) &&
		(a.Communities == nil) == (b.Communities == nil) && (a.LargeCommunities == nil) == (b.LargeCommunities == nil) &&
		samePointer(a.MED, b.MED) && samePointer(a.LocalPref, b.LocalPref)
}

// empty tells whether a changes nothing.
func (a Attributes) empty() bool { return a.Equal(Attributes{}) }

// prepend is how often our ASN is prepended.
func (a Attributes) prepend() uint8 {
	if a.Prepend == nil {
		return 0
	}
	return *a.Prepend
}

// draining are the attributes of a prefix that is about to be withdrawn:
// GRACEFUL_SHUTDOWN for external peers, and LOCAL_PREF 0 for internal ones (RFC
// 8326 4.2).
func (a Attributes) draining() Attributes {
	a.Communities = append(slices.Clone(a.Communities), GracefulShutdown)
	a.LocalPref = new(uint32)
	return a.normalised()
}

// drainingOverride keeps a peer's override from undoing draining.
func (a Attributes) drainingOverride() Attributes {
	a.LocalPref = nil
	if a.Communities != nil {
		a.Communities = append(slices.Clone(a.Communities), GracefulShutdown)
	}
	return a.normalised()
}

func (a Attributes) validate() []error {
	var errs []error
	if len(a.Communities) > maxCommunities || len(a.LargeCommunities) > maxCommunities {
		errs = append(errs, fmt.Errorf("more than %d communities", maxCommunities))
	}
	if n := a.prepend(); n > maxPrepend {
		errs = append(errs, fmt.Errorf("prepend %d is more than %d", n, maxPrepend))
	}
	return errs
}
