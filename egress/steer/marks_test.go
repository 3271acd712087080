package steer

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/vrf"
)

// TestMarks: numbers and codes are told apart, within the mask, whatever it is.
func TestMarks(t *testing.T) {
	masks := []uint32{DefaultMarkMask, 0x40000fff, 0x307f, 0x10003f00, 0xffff3fff, 0x0fff2000, 0x8000001f}
	g := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		if mask := g.Uint32(); CheckMarkMask(mask) == nil {
			masks = append(masks, mask)
		}
	}
	for _, mask := range masks {
		if err := CheckMarkMask(mask); err != nil {
			t.Fatal(err)
		}
		m := marksOf(mask)
		if m.ours&freeMarks == 0 || m.mask&^mask != 0 || m.highest < 28 || m.highest > maxNumber {
			t.Fatalf("mask %#x: %+v", mask, m)
		}
		seen := map[uint32]bool{}
		for n := range m.nothing {
			mark := m.of(n + 1)
			if mark&^m.mask != 0 || mark&m.ours == 0 || seen[mark] || m.number(mark|^m.mask) != n+1 {
				t.Fatalf("mask %#x: number %d is mark %#x, which is number %d", mask, n+1, mark, m.number(mark))
			}
			seen[mark] = true
		}
		if m.of(codeNormal) != m.ours || m.highest >= m.unknown || m.unknown >= m.blocked || m.blocked >= m.nothing {
			t.Fatalf("mask %#x: %+v", mask, m)
		}
	}
	if DefaultMarkMask&(0xc000|0xf00|0xffff0000) != 0 {
		t.Errorf("the default mask %#x meets others", DefaultMarkMask)
	}
}

func TestCheckMarkMask(t *testing.T) {
	for mask, want := range map[uint32]string{
		0x0000f0ff: "kube-proxy", 0x00004fff | 0x3000: "kube-proxy",
		0x0fff0fff: "none of the bits 0xc0003000", 0: "none of the bits",
		0x0000300f: "",
		0x00003007: "5 bits, at least 6",
	} {
		err := CheckMarkMask(mask)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("mask %#x: %v, want %q", mask, err, want)
		}
	}
	cfg := node()
	cfg.MarkMask = 0xffff
	if d := Decide(cfg, Observed{}); len(d.Problems) != 1 || d.marks.mask != DefaultMarkMask {
		t.Errorf("a wrong mask: %v, %#x is used", d.Problems, d.marks.mask)
	}
}

var (
	settingMark = regexp.MustCompile(`mark set (?:meta|ct) mark & (0x[0-9a-f]+)(?: \| (0x[0-9a-f]+))?`)
	anyMark     = regexp.MustCompile(`(?:meta|ct) mark set `)
)

// TestMarksOfOthers: marks are changed within the mask only, and looked up by it; but for
// what a gateway here sends into the tunnel, which has no marks of others.
func TestMarksOfOthers(t *testing.T) {
	for _, mask := range []uint32{0, 0x40000fff, 0x307f, 0x10003f00} {
		cfg := node()
		cfg.MarkMask = mask
		if mask == 0 {
			mask = DefaultMarkMask
		}
		d := Decide(cfg, Observed{Health: ready("a", "b", "c"), Former: []uint32{0x80000000}})
		set, whole := 0, 0
		for name, chain := range d.Filter.Chains {
			for _, line := range chain.Lines {
				m := settingMark.FindStringSubmatch(line.Text)
				if m == nil {
					if anyMark.MatchString(line.Text) {
						whole++
						if name != chainUnmark || line.Text != "oifname @ways meta mark set 0" {
							t.Errorf("mask %#x: %s: %s", mask, name, line.Text)
						}
					}
					continue
				}
				set++
				kept, _ := strconv.ParseUint(m[1], 0, 32)
				put, _ := strconv.ParseUint("0"+strings.TrimPrefix(m[2], "0"), 0, 32)
				if ^uint32(kept) != mask || uint32(put)&^mask != 0 {
					t.Errorf("mask %#x: %s: %s", mask, name, line.Text)
				}
			}
		}
		if set < 10 || whole != 1 {
			t.Errorf("mask %#x: %d rules set marks within it, %d whole ones", mask, set, whole)
		}
		for _, r := range d.Kernel.Rules {
			if uint32(r.Mask)&^mask != 0 && r.Mask != 0x80000000 || r.Mark&^r.Mask != 0 {
				t.Errorf("mask %#x: %+v", mask, r)
			}
		}
	}
}

// TestMaskChanges: flows that have marks of another mask are neither normal traffic nor
// of any set. They are dropped until a sweep has ended them, also by a new agent; flows
// of others with that bit are left alone.
func TestMaskChanges(t *testing.T) {
	w := newWorld(t)
	cfg := node()
	cfg.Policies[0].Rules[0].MaxNextHops = 1
	cfg.MarkMask = 0x40000fff
	w.settle(cfg, ready("a", "b", "c"))
	old := w.set("a", "b", "c").Mark
	ours := flows.Flow{Mark: old, Src: addr("10.244.1.2"), SrcPort: 1}
	others := flows.Flow{Mark: old, Src: addr("198.51.100.1"), SrcPort: 2}
	w.flows.Add(ours, others)
	before := gatewaysOf(w.agent.prev)

	drops := func() (n int) {
		for _, line := range w.agent.prev.Filter.Chains[chainKeep].Lines {
			if strings.Contains(line.Text, "0x40000000 != 0") && strings.Contains(line.Text, "drop") {
				n++
			}
		}
		return n
	}
	catches := func() map[vrf.Mark]int {
		out := map[vrf.Mark]int{}
		for _, r := range w.snapshot().Config.Rules {
			if r.Priority == prioCatch {
				out[r.Mark]++
			}
		}
		return out
	}
	cfg.MarkMask = 0
	for range 2 {
		w.settle(cfg, ready("a", "b", "c"))
		if got := catches(); drops() != 1 || got[0x40000000] != 2 || got[0x2000] != 2 {
			t.Fatalf("%d rules drop former flows, %v catch packets", drops(), got)
		}
		w.restart()
	}
	w.settle(cfg, ready("a", "b", "c"))
	w.agent.Sweep(t.Context())
	w.settle(cfg, ready("a", "b", "c"))
	if got := catches(); drops() != 0 || len(got) != 1 {
		t.Errorf("after the sweep %d rules drop former flows, %v catch packets", drops(), got)
	}
	left := map[uint16]bool{}
	if _, err := w.flows.Sweep(t.Context(), old, old, func(f flows.Flow) bool { left[f.SrcPort] = true; return false }); err != nil {
		t.Fatal(err)
	}
	if left[1] || !left[2] {
		t.Errorf("flows from these ports are left: %v", left)
	}
	if after := gatewaysOf(w.agent.prev); len(after) == 0 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("clients had %v and have %v", before, after)
	}
	// Back again: it has to be done again.
	w.flows.Add(flows.Flow{Mark: 0x2001, Src: addr("10.244.1.2"), SrcPort: 3})
	cfg.MarkMask = 0x40000fff
	w.settle(cfg, ready("a", "b", "c"))
	if got := catches(); got[0x2000] != 2 {
		t.Errorf("%v catch packets", got)
	}
}

// TestFewNumbers: with a narrow mask, sets that no client needs go without a number
// before those that one needs.
func TestFewNumbers(t *testing.T) {
	cfg, health := bounded(5, 1, 60)
	cfg.MarkMask = 0x300f // 28 sets
	d := Decide(cfg, Observed{Health: health})
	if len(d.Problems) > 0 || len(d.Sets) != 28 {
		t.Errorf("%d sets, %v", len(d.Sets), d.Problems)
	}
	for a, set := range gatewaysOf(&d) {
		if len(set) != 1 {
			t.Errorf("%s has %v", a, set)
		}
	}
	cfg, health = bounded(40, 1, 60)
	cfg.MarkMask = 0x300f
	d = Decide(cfg, Observed{Health: health})
	if len(d.Problems) != 1 || len(d.Sets) != 28 {
		t.Errorf("%d sets, %v", len(d.Sets), d.Problems)
	}
}
