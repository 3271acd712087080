package flows

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"golang.org/x/sys/unix"
)

const (
	markRed   = 0x10010001
	markBlue  = 0x10020001
	zoneRed   = 40001
	zoneBlue  = 40002
	maskAll   = 0x10000000
	maskHop   = 0x1fff0000
	otherMark = 0x20000000
)

func newTable(t *testing.T) (*lab.NS, *Table) {
	t.Helper()
	lab.Require(t, lab.Nft, lab.Conntrack)
	ns := lab.New(t).MustNamespace("gw")
	return ns, openIn(t, ns)
}

// everyProto has, for each protocol in both families, two clients with one source port to
// one destination through one pool address, in two networks, and the same tuples in
// other zones, with a mark of ours and without.
func everyProto() []made {
	var list []made
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE,
		unix.IPPROTO_GRE, unix.IPPROTO_ESP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		for _, ipv6 := range []bool{false, true} {
			if ipv6 && proto == unix.IPPROTO_ICMP || !ipv6 && proto == unix.IPPROTO_ICMPV6 {
				continue
			}
			a, b, dst, pool := "10.0.0.1", "10.0.0.2", "192.0.2.1", "198.51.100.1"
			if ipv6 {
				a, b, dst, pool = "fd00::1", "fd00::2", "2001:db8::1", "2001:db8:e::1"
			}
			m := made{mark: markRed, replyZone: zoneRed, proto: proto, src: a, dst: dst, pool: pool, srcPort: 5000, dstPort: 443, poolPort: 1024}
			switch proto {
			case unix.IPPROTO_ICMP:
				m.dstPort = 8 << 8
			case unix.IPPROTO_ICMPV6:
				m.dstPort = 128 << 8
			case unix.IPPROTO_ESP:
				m.srcPort, m.dstPort, m.poolPort = 0, 0, 0
			}
			other := m
			other.mark, other.replyZone, other.src = markBlue, zoneBlue, b
			both, orig, foreign := m, m, m
			both.replyZone, both.both = 0, 9
			orig.replyZone, orig.origZone = 0, 7
			foreign.replyZone, foreign.both, foreign.mark = 0, 11, otherMark
			list = append(list, m, other, both, orig, foreign)
		}
	}
	return list
}

// flow is what a sweep has to say about the entry.
func (m made) flow() Flow {
	f := Flow{
		Mark: m.mark, Zone: m.both | m.replyZone, Proto: m.proto,
		Src: netip.MustParseAddr(m.src), Dst: netip.MustParseAddr(m.dst), SrcPort: m.srcPort, DstPort: m.dstPort,
		Address: netip.MustParseAddr(m.pool), Port: m.poolPort,
	}
	return f
}

// Every entry can be ended alone: what conntrack(8) lists afterwards lacks
// exactly that line.
func TestKernelCutsExactlyOne(t *testing.T) {
	ns, table := newTable(t)
	ctx := t.Context()
	all := everyProto()
	if err := table.create(ctx, all...); err != nil {
		t.Fatal(err)
	}
	before := listed(t, ns)
	if len(before) != len(all) {
		t.Fatalf("conntrack lists %d entries, not %d:\n%s", len(before), len(all), strings.Join(before, "\n"))
	}
	var seen []Flow
	r, err := table.Sweep(ctx, maskAll, maskAll, func(f Flow) bool {
		f.Timeout = 0
		seen = append(seen, f)
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	ours := slices.DeleteFunc(slices.Clone(all), func(m made) bool { return m.mark == otherMark })
	if r.Seen != len(ours) || r.Cut != 0 || r.ByMark[markRed] != len(ours)*3/4 || r.ByMark[markBlue] != len(ours)/4 {
		t.Errorf("%d entries of ours, but %+v", len(ours), r)
	}
	for _, m := range ours {
		if !slices.Contains(seen, m.flow()) {
			t.Errorf("not seen: %+v", m.flow())
		}
	}
	rest := before
	for _, m := range ours {
		rest = cutOne(t, ns, table, m, rest)
	}
	if len(rest) != len(all)-len(ours) {
		t.Errorf("left are:\n%s", strings.Join(rest, "\n"))
	}
}

// cutOne ends the entry and returns what conntrack(8) lists then.
func cutOne(t *testing.T, ns *lab.NS, table *Table, m made, before []string) []string {
	t.Helper()
	r, err := table.Sweep(t.Context(), m.mark&maskHop, maskHop, func(f Flow) bool {
		f.Timeout = 0
		return f == m.flow()
	})
	if err != nil || r.Cut != 1 {
		t.Errorf("cut %+v: %+v, %v", m, r, err)
	}
	after := listed(t, ns)
	gone := slices.DeleteFunc(slices.Clone(before), func(line string) bool { return slices.Contains(after, line) })
	if len(gone) != 1 {
		t.Fatalf("cut %+v ended %q", m, gone)
	}
	for _, want := range m.words() {
		if !strings.Contains(gone[0]+" ", want+" ") {
			t.Errorf("cut %+v ended %q, which has no %q", m, gone[0], want)
		}
	}
	return after
}

// words are how conntrack(8) shows what tells the entry from all others.
func (m made) words() []string {
	list := []string{fmt.Sprint(m.proto), "src=" + m.src, fmt.Sprintf("mark=%d", m.mark)}
	for name, zone := range map[string]uint16{"zone": m.both, "zone-orig": m.origZone, "zone-reply": m.replyZone} {
		if zone != 0 {
			list = append(list, fmt.Sprintf("%s=%d", name, zone))
		}
	}
	return list
}

// An entry that ended meanwhile is no error; a new one with its tuple is spared.
func TestKernelSparesReusedTuple(t *testing.T) {
	ns, table := newTable(t)
	old := made{mark: markRed, replyZone: zoneRed, proto: unix.IPPROTO_UDP, src: "10.0.0.1", dst: "192.0.2.1",
		pool: "198.51.100.1", srcPort: 5000, dstPort: 53, poolPort: 5000}
	if err := table.create(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	id := entryID(t, ns)
	var meanwhile func()
	sweep := func() Result {
		r, err := table.Sweep(t.Context(), markRed&maskHop, maskHop, func(f Flow) bool {
			if f.SrcPort == old.srcPort {
				meanwhile()
			}
			return f.SrcPort == old.srcPort
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	filler := old
	filler.srcPort, filler.poolPort = 6000, 6000
	meanwhile = func() {
		// The kernel may put the new entry where the old one was; then both have one
		// id. Others that take that place come in between until it is not so.
		for {
			ns.Must("conntrack", "-D", "-p", "udp", "--sport", "5000")
			filler.srcPort, filler.poolPort = filler.srcPort+1, filler.poolPort+1
			if err := table.create(t.Context(), filler, old); err != nil {
				t.Fatal(err)
			}
			if entryID(t, ns) != id {
				return
			}
		}
	}
	if r := sweep(); r.Cut != 0 {
		t.Errorf("the new entry was ended: %+v", r)
	}
	meanwhile = func() { ns.Must("conntrack", "-D", "-p", "udp", "--sport", "5000") }
	if r := sweep(); r.Cut != 0 {
		t.Errorf("an entry ended twice: %+v", r)
	}
	if lines := listed(t, ns); len(lines) != int(filler.srcPort)-6000 {
		t.Errorf("left are %q", lines)
	}
}

func entryID(t *testing.T, ns *lab.NS) string {
	t.Helper()
	line := ns.Must("conntrack", "-L", "-o", "id", "-p", "udp", "--sport", "5000")
	_, id, ok := strings.Cut(line, " id=")
	if !ok {
		t.Fatalf("no id in %q", line)
	}
	return strings.Fields(id)[0]
}

// many are n flows of one address.
func many(n int) []made {
	list := make([]made, n)
	for i := range list {
		src := netip.AddrFrom4([4]byte{10, 1, byte(i >> 14), byte(i >> 6)})
		list[i] = made{mark: markRed + uint32(i%7)<<16, replyZone: zoneRed, proto: unix.IPPROTO_UDP, src: src.String(),
			dst: "192.0.2.1", pool: "198.51.100.1", srcPort: uint16(5000 + i&63), dstPort: uint16(i>>15) + 53, poolPort: uint16(1024 + i&32767)}
	}
	return list
}

// More entries than fit into the buffer for what is to be ended.
func TestKernelCutsMany(t *testing.T) {
	_, table := newTable(t)
	const n = 15000
	if size := n * len(appendDelete(nil, &entry{tuple: make([]byte, 48), id: make([]byte, 4)})); size <= cutBuffer {
		t.Fatalf("%d entries need %d bytes only", n, size)
	}
	if err := table.create(t.Context(), many(n)...); err != nil {
		t.Fatal(err)
	}
	r, err := table.Sweep(t.Context(), maskAll, maskAll, func(Flow) bool { return true })
	if err != nil || r.Cut != n || r.Seen < n {
		t.Errorf("seen %d, cut %d, %v", r.Seen, r.Cut, err)
	}
	if s, err := table.Stats(t.Context()); err != nil || s.Count != 0 {
		t.Errorf("left are %d, %v", s.Count, err)
	}
}

// Some of those that are to be ended, in the middle of batches, are gone by then.
func TestKernelCutsWhatIsLeft(t *testing.T) {
	ns, table := newTable(t)
	other := openIn(t, ns)
	const n = 300
	if err := table.create(t.Context(), many(n)...); err != nil {
		t.Fatal(err)
	}
	seen, gone := 0, 0
	r, err := table.Sweep(t.Context(), maskAll, maskAll, func(Flow) bool {
		if seen++; seen == n {
			r, err := other.Sweep(t.Context(), maskAll, maskAll, func(f Flow) bool { return f.SrcPort%3 == 0 })
			if err != nil {
				t.Error(err)
			}
			gone = r.Cut
		}
		return true
	})
	if err != nil || gone < n/4 || r.Cut != n-gone {
		t.Errorf("%d of %d went before, then %+v, %v", gone, n, r, err)
	}
	if s, err := table.Stats(t.Context()); err != nil || s.Count != 0 {
		t.Errorf("left are %d, %v", s.Count, err)
	}
}

// A sweep that is broken off in the middle says what it did, and does not
// disturb the next one.
func TestKernelSweepEndsWithItsContext(t *testing.T) {
	_, table := newTable(t)
	const n = 3000
	if err := table.create(t.Context(), many(n)...); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		count := 0
		r, err := table.Sweep(ctx, maskAll, maskAll, func(Flow) bool {
			if count++; count == 500 {
				cancel()
			}
			return false
		})
		if !errors.Is(err, context.Canceled) || r.Seen < 500 || r.Seen >= n {
			t.Errorf("canceled: %+v, %v", r, err)
		}
		ctx, cancel = context.WithDeadline(t.Context(), time.Unix(1, 0))
		if _, err := table.Sweep(ctx, maskAll, maskAll, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("late: %v", err)
		}
		cancel()
		if i == 1 { // without a sweep that reads the rest
			continue
		}
		if r, err := table.Sweep(t.Context(), maskAll, maskAll, nil); err != nil || r.Seen != n || len(r.ByMark) != 7 {
			t.Errorf("afterwards: %+v, %v", r, err)
		}
	}
}

// A sweep holds neither Stats up, nor, beyond its context, another sweep.
func TestKernelConcurrentUse(t *testing.T) {
	_, table := newTable(t)
	if err := table.create(t.Context(), many(10)...); err != nil {
		t.Fatal(err)
	}
	asked := false
	_, err := table.Sweep(t.Context(), maskAll, maskAll, func(Flow) bool {
		if asked {
			return false
		}
		asked = true
		if s, err := table.Stats(t.Context()); err != nil || s.Count != 10 {
			t.Errorf("%+v, %v", s, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := table.Sweep(ctx, maskAll, maskAll, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("second sweep: %v", err)
		}
		return false
	})
	if err != nil || !asked {
		t.Error(err)
	}
	if err := table.Close(); err != nil {
		t.Error(err)
	}
	if _, err := table.Sweep(t.Context(), maskAll, maskAll, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("sweep after close: %v", err)
	}
	if _, err := table.Stats(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("stats after close: %v", err)
	}
}

func TestKernelRefusesWideSweep(t *testing.T) {
	_, table := newTable(t)
	for _, mark := range []uint32{0, markRed} {
		if _, err := table.Sweep(t.Context(), mark, 0, func(Flow) bool { return true }); err == nil {
			t.Errorf("mark %#x without mask passed", mark)
		}
	}
}
