package nat

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/egret-router/egret/lab"
)

// What is sent without nft is what nft would send: after the same random edits
// two tables are equal, down to how nft lists them.
func TestKernelTakesMessages(t *testing.T) {
	lab.Require(t, lab.Nft)
	l := lab.New(t)
	direct, byNft := tableIn(t, l.MustNamespace("direct")), tableIn(t, l.MustNamespace("nft"))
	rng := rand.New(rand.NewPCG(uint64(*edits), 9))
	cfg, have := actionsConfig(), Ruleset{}
	sent := map[string]int{}
	for step := range 2 * *edits {
		mutate(rng, &cfg)
		cfg.Exits = uniqueMarks(cfg.Exits)
		want := renderFew(cfg)
		plan := Diff(have, want)
		if batch, ok := encode(plan); ok && !plan.Empty() {
			direct.do(func() error { return direct.send(t.Context(), batch) })
			for _, op := range plan.Ops {
				sent[op.Verb+" "+op.Kind]++
			}
		} else {
			direct.apply(plan)
		}
		byNft.do(func() error {
			_, err := byNft.run(t.Context(), true, plan.script(), "-f", "-")
			return err
		})
		have = want
		if a, b := listed(t, direct), listed(t, byNft); a != b {
			t.Fatalf("step %d: after\n%s\nsent by us the table is\n%s\nby nft\n%s", step, plan, a, b)
		}
	}
	direct.is(have)
	t.Log(sent)
	for _, kind := range []string{"add element", "delete element"} {
		if sent[kind] < 5 {
			t.Errorf("only %d of %s", sent[kind], kind)
		}
	}
	if strings.Contains(direct.logged.String(), "refused") {
		t.Error(direct.logged)
	}
}

func listed(t *testing.T, k kernelTable) string {
	t.Helper()
	cmd := k.ns.Command(t.Context(), "nft", "list", "ruleset")
	out, err := k.ns.RunCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Every kind of set takes our elements as nft writes them.
func TestKernelTakesEveryKindOfElement(t *testing.T) {
	k := newKernelTable(t)
	cfg := dualConfig()
	cfg.DropUnmatched = true
	cfg.Policies[0].Rules = append(cfg.Policies[0].Rules, rule("255.0.0.0/8", Drop, ""), rule("0.0.0.0/1", Drop, ""),
		rule("ff00::/9", Drop, ""), rule("ffff::/16", Reject, ""), rule("::ffff:10.0.0.0/104", Drop, ""))
	full := renderFew(cfg)
	k.become(full)
	bare := full.Clone()
	for name, s := range full.Sets {
		clear(bare.Sets[name].Elements)
		if len(s.Elements) == 0 && !strings.HasPrefix(name, "guard_sources") {
			t.Errorf("%s is empty", name)
		}
	}
	half := full.Clone()
	for _, s := range half.Sets {
		for i, key := range sortedKeys(s) {
			if i%2 == 0 {
				delete(s.Elements, key)
			}
		}
	}
	have := full
	for _, next := range []Ruleset{bare, full, half, full, half, bare, half} {
		batch, ok := encode(Diff(have, next))
		if !ok {
			t.Fatalf("cannot be sent:\n%s", Diff(have, next))
		}
		k.do(func() error { return k.send(t.Context(), batch) })
		k.is(next)
		have = next
	}
}

// A batch is all or nothing, and what is wrong with it is said.
func TestSendIsAtomic(t *testing.T) {
	k := newKernelTable(t)
	want := Render(smallConfig())
	k.become(want)
	edit := smallConfig()
	edit.Policies[0].Clients = prefixes("10.244.7.0/24")
	good := Diff(want, Render(edit))
	gone := Op{Verb: verbDelete, Kind: kindElement, Name: mapClients4, Set: want.Sets[mapClients4].bare(), Key: "192.0.2.1"}
	batch, ok := encode(Plan{Ops: append(good.Ops, Op{Verb: verbFlush, Kind: kindChain, Name: chainClients}, gone)})
	if !ok {
		t.Fatal("cannot be sent")
	}
	k.do(func() error {
		err := k.send(t.Context(), batch)
		if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "192.0.2.1") {
			t.Errorf("error: %v", err)
		}
		return nil
	})
	k.is(want)
}

func TestEncodeLeavesTheRestToNft(t *testing.T) {
	elem := Op{Verb: verbAdd, Kind: kindElement, Name: "x"}
	with := func(key, value string, interval bool, k, v string) Op {
		op := elem
		op.Set, op.Key, op.Value = Set{Key: key, Value: value, Interval: interval}, k, v
		return op
	}
	for _, op := range []Op{
		{Verb: verbAdd, Kind: kindTable},
		{Verb: verbAdd, Kind: kindChain, Name: "x", Base: Base{Type: "filter"}},
		{Verb: verbAdd, Kind: kindRule, Name: "x", Line: newLine("accept")},
		{Verb: verbDelete, Kind: "quota", Name: "x"},
		with("ipv4_addr", "verdict", true, "10.0.0.0/8", "accept"),
		with("ipv4_addr", "", true, "fd00::/8", ""),
		with("ipv4_addr", "", true, "10.0.0.1 ", ""),
		with("ipv4_addr", "ipv6_addr", false, "10.0.0.1", "10.0.0.2"),
		with("ifname", "", false, `"0123456789abcdef"`, ""),
		with("ifname", "", false, "eth0", ""),
		with("mark", "", false, "0x100000000", ""),
		with("ether_addr", "", false, "00:11:22:33:44:55", ""),
		elem,
	} {
		if _, ok := encode(Plan{Ops: []Op{op}}); ok {
			t.Errorf("encoded: %s", op)
		}
	}
	var large Plan
	for range maxWireBytes / 16 {
		large.Ops = append(large.Ops, with("mark", "", false, "0x10010001", ""))
	}
	if _, ok := encode(large); ok {
		t.Error("a batch without bounds")
	}
	if w, ok := encode(Plan{Ops: large.Ops[:10000]}); !ok || len(w.ops) < 5 {
		t.Errorf("10000 elements: %t, %d messages", ok, len(w.ops))
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	w, _ := encode(Plan{Ops: []Op{{Verb: verbFlush, Kind: kindChain, Name: "x"}}})
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := w.answer(data); n < 0 || n > len(data)/unix.SizeofNlMsghdr || err != nil && err.Error() == "" {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// A table that somebody else changed makes the plan fail as ever.
func TestApplyExplainsRefusals(t *testing.T) {
	k := newKernelTable(t)
	want := Render(smallConfig())
	k.become(want)
	edit := smallConfig()
	edit.Policies[0].Rules = nil
	plan := Diff(want, Render(edit))
	if _, ok := encode(plan); !ok {
		t.Fatalf("cannot be sent:\n%s", plan)
	}
	if err := k.nft("flush ruleset"); err != nil {
		t.Fatal(err)
	}
	k.do(func() error {
		if err := k.Apply(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "No such file or directory") {
			t.Errorf("error: %v", err)
		}
		return nil
	})
	if !strings.Contains(k.logged.String(), slog.LevelDebug.String()) {
		t.Error("the refusal is not logged")
	}
}

// New sets are declared with their elements; what there is already gets them by
// commands.
func TestScriptDeclaresSets(t *testing.T) {
	set := Set{Key: "ipv4_addr", Interval: true}
	elem := func(name, key string) Op {
		return Op{Verb: verbAdd, Kind: kindElement, Name: name, Set: set, Key: key}
	}
	p := Plan{Ops: []Op{
		{Verb: verbAdd, Kind: "set", Name: "new", Set: set}, {Verb: verbAdd, Kind: "set", Name: "empty", Set: set},
		elem("new", "10.0.0.1"), elem("new", "10.0.0.2"), elem("old", "10.0.0.3"),
	}}
	want := `table inet egret {
set new {
type ipv4_addr
flags interval;
elements = {
10.0.0.1, 10.0.0.2
}
}
set empty {
type ipv4_addr
flags interval;
}
}
add element inet egret old { 10.0.0.3 }
`
	if got := p.script(); got != want {
		t.Errorf("got\n%s", got)
	}
}
