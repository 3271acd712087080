package sysctl

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var forward = []Setting{
	{Key: "net.ipv4.conf.all.rp_filter", Value: "0"},
	{Key: "net.ipv4.conf.eth0/100.rp_filter", Value: "0"},
	{Key: "net.ipv4.ip_forward", Value: "1"},
}

func forwardTree(t *testing.T) *tree {
	return newTree(t, map[string]string{
		"net.ipv4.conf.all.rp_filter":      "2",
		"net.ipv4.conf.eth0/100.rp_filter": "0",
		"net.ipv4.ip_forward":              "0",
	})
}

func TestPlanReadsAndChangesNothing(t *testing.T) {
	tr := forwardTree(t)
	got, err := tr.open().Plan(forward)
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{
		{Key: "net.ipv4.conf.all.rp_filter", From: "2", To: "0"},
		{Key: "net.ipv4.ip_forward", From: "0", To: "1"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("plan %v, want %v", got, want)
	}
	if s := got[0].String(); s != `net.ipv4.conf.all.rp_filter: "2" -> "0"` {
		t.Errorf("change prints as %s", s)
	}
	tr.expect("net.ipv4.ip_forward", "0")
	tr.noRecord()
	if _, err := os.Stat(filepath.Dir(tr.record)); !os.IsNotExist(err) {
		t.Errorf("plan made the directory of the record (%v)", err)
	}
}

func TestSetThenRestore(t *testing.T) {
	tr := forwardTree(t)
	planned, err := tr.open().Plan(forward)
	if err != nil {
		t.Fatal(err)
	}
	made, err := tr.open().Set(t.Context(), forward)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(made, planned) {
		t.Errorf("set made %v, plan said %v", made, planned)
	}
	for _, w := range forward {
		tr.expect(w.Key, w.Value)
	}
	// What was right already is not ours to record.
	want := []entry{{"net.ipv4.conf.all.rp_filter", "2"}, {"net.ipv4.ip_forward", "0"}}
	if got := tr.originals(); !slices.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}

	again, err := tr.open().Set(t.Context(), forward)
	if err != nil || len(again) != 0 {
		t.Errorf("second set: %v, %v", again, err)
	}
	if plan, err := tr.open().Plan(forward); err != nil || len(plan) != 0 {
		t.Errorf("plan after set: %v, %v", plan, err)
	}

	if err := tr.open().Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.expect("net.ipv4.conf.all.rp_filter", "2")
	tr.expect("net.ipv4.conf.eth0/100.rp_filter", "0")
	tr.expect("net.ipv4.ip_forward", "0")
	tr.noRecord()
	if err := tr.open().Restore(t.Context()); err != nil {
		t.Errorf("restore without a record: %v", err)
	}
}

func TestSomebodyElseChangesItBack(t *testing.T) {
	tr := forwardTree(t)
	s := tr.open()
	if _, err := s.Set(t.Context(), forward); err != nil {
		t.Fatal(err)
	}
	tr.put("net.ipv4.conf.all.rp_filter", "1")          // had an original: 2
	tr.put("net.ipv4.conf.eth0/100.rp_filter", " \t1 ") // was never changed by us
	made, err := s.Set(t.Context(), forward)
	if err != nil || len(made) != 2 {
		t.Fatalf("set after drift: %v, %v", made, err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.expect("net.ipv4.conf.all.rp_filter", "2")
	tr.expect("net.ipv4.conf.eth0/100.rp_filter", " \t1 ")
}

func TestNoLongerWantedIsRestored(t *testing.T) {
	tr := forwardTree(t)
	s := tr.open()
	if _, err := s.Set(t.Context(), forward); err != nil {
		t.Fatal(err)
	}
	less := forward[1:]
	want := []Change{{Key: "net.ipv4.conf.all.rp_filter", From: "0", To: "2", Restored: true}}
	if plan, err := s.Plan(less); err != nil || !slices.Equal(plan, want) {
		t.Errorf("plan %v, %v; want %v", plan, err, want)
	}
	if made, err := s.Set(t.Context(), less); err != nil || !slices.Equal(made, want) {
		t.Errorf("set %v, %v; want %v", made, err, want)
	}
	tr.expect("net.ipv4.conf.all.rp_filter", "2")
	tr.expect("net.ipv4.ip_forward", "1")
	if got := tr.originals(); !slices.Equal(got, []entry{{"net.ipv4.ip_forward", "0"}}) {
		t.Errorf("recorded %v", got)
	}
	if made, err := s.Set(t.Context(), nil); err != nil || len(made) != 1 {
		t.Errorf("set nothing: %v, %v", made, err)
	}
	tr.noRecord()
}

func TestMissingSettings(t *testing.T) {
	tr := forwardTree(t)
	want := append(slices.Clone(forward),
		Setting{Key: "net.ipv4.conf.gone.rp_filter", Value: "0"},
		Setting{Key: "net.netfilter.nf_conntrack_acct", Value: "1", Optional: true})
	for _, do := range []func() ([]Change, error){
		func() ([]Change, error) { return tr.open().Plan(want) },
		func() ([]Change, error) { return tr.open().Set(t.Context(), want) },
	} {
		changes, err := do()
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"net.ipv4.conf.gone.rp_filter"`) {
			t.Errorf("error does not name the missing key: %v", err)
		}
		if err != nil && (strings.Contains(err.Error(), "nf_conntrack_acct") || strings.Count(err.Error(), "gone") != 2) {
			t.Errorf("one line for the one missing key expected: %v", err)
		}
		if len(changes) != 2 {
			t.Errorf("the other keys: %v", changes)
		}
	}
}

func TestRestoreOfRemovedInterface(t *testing.T) {
	tr := forwardTree(t)
	tr.put("net.ipv4.conf.eth0/100.rp_filter", "1")
	s := tr.open()
	if _, err := s.Set(t.Context(), forward); err != nil {
		t.Fatal(err)
	}
	tr.remove("net.ipv4.conf.eth0/100.rp_filter")
	if err := s.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	tr.expect("net.ipv4.ip_forward", "0")
	tr.noRecord()
}

func TestFailedWritesDoNotStopTheOthers(t *testing.T) {
	for _, broken := range []string{"net/ipv4/conf/all/rp_filter", "net/ipv4/ip_forward"} {
		tr := forwardTree(t)
		s := tr.open()
		readOnly := func(path, value string) error {
			if strings.HasSuffix(path, broken) {
				return &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
			}
			return writeValue(path, value)
		}
		s.write = readOnly
		made, err := s.Set(t.Context(), forward)
		if !errors.Is(err, fs.ErrPermission) || strings.Count(err.Error(), "\n") != 0 {
			t.Errorf("%s: want one permission error, got %v", broken, err)
		}
		if len(made) != 1 {
			t.Errorf("%s: made %v", broken, made)
		}
		s.write = writeValue
		if _, err := s.Set(t.Context(), forward); err != nil {
			t.Errorf("%s: after the repair: %v", broken, err)
		}

		s.write = readOnly
		if err := s.Restore(t.Context()); !errors.Is(err, fs.ErrPermission) || strings.Count(err.Error(), "\n") != 0 {
			t.Errorf("%s: restore: want one permission error, got %v", broken, err)
		}
		if got := tr.originals(); len(got) != 1 {
			t.Errorf("%s: the failed one alone must stay recorded: %v", broken, got)
		}
		s.write = writeValue
		if err := s.Restore(t.Context()); err != nil {
			t.Errorf("%s: restore after the repair: %v", broken, err)
		}
		tr.expect("net.ipv4.conf.all.rp_filter", "2")
		tr.expect("net.ipv4.ip_forward", "0")
		tr.noRecord()
	}
}

func TestUnreadableSettingIsReportedOnce(t *testing.T) {
	tr := forwardTree(t)
	if err := os.MkdirAll(tr.path("net.ipv4.weird"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(forward), Setting{Key: "net.ipv4.weird", Value: "1", Optional: true})
	made, err := tr.open().Set(t.Context(), want)
	if err == nil || strings.Contains(err.Error(), "\n") || len(made) != 2 {
		t.Errorf("made %v, error %v", made, err)
	}
}

// TestNoRecordNoChange: a value that could not be restored is not touched.
func TestNoRecordNoChange(t *testing.T) {
	tr := forwardTree(t)
	if err := os.MkdirAll(tr.record+".tmp", 0o755); err != nil {
		t.Fatal(err)
	}
	made, err := tr.open().Set(t.Context(), forward)
	if err == nil || len(made) != 0 {
		t.Errorf("made %v, error %v", made, err)
	}
	tr.expect("net.ipv4.ip_forward", "0")
	tr.expect("net.ipv4.conf.all.rp_filter", "2")
}

// TestSideEffects has a kernel that, like the real one, rewrites every
// interface's forwarding when the general one is written.
func TestSideEffects(t *testing.T) {
	const all, eth0, eth1 = "net.ipv4.ip_forward", "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.eth1.forwarding"
	tr := newTree(t, map[string]string{all: "0", eth0: "0", eth1: "1"})
	kernel := func(path, value string) error {
		if path == tr.path(all) {
			tr.put(eth0, value)
			tr.put(eth1, value)
		}
		return writeValue(path, value)
	}
	s := tr.open()
	s.write = kernel
	// In this order the first value is undone by the second.
	want := []Setting{{Key: eth1, Value: "0"}, {Key: all, Value: "1"}}
	if _, err := s.Set(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	tr.expect(eth1, "0")
	tr.expect(all, "1")
	// Now the general one goes, which turns eth0 off although it is wanted on.
	want = []Setting{{Key: eth0, Value: "1"}, {Key: eth1, Value: "0"}}
	if _, err := s.Set(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	tr.expect(all, "0")
	tr.expect(eth0, "1")
	tr.expect(eth1, "0")
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.expect(all, "0")
	tr.expect(eth0, "0")
	tr.expect(eth1, "1")
}

func TestKernelKeepsAnotherValue(t *testing.T) {
	tr := forwardTree(t)
	s := tr.open()
	s.write = func(path, value string) error { return writeValue(path, strings.Replace(value, "1", "7", 1)) }
	_, err := s.Set(t.Context(), forward)
	if err == nil || !strings.Contains(err.Error(), `set "net.ipv4.ip_forward" to "1": the kernel keeps "7"`) {
		t.Errorf("error %v", err)
	}
}

func TestWordwiseValues(t *testing.T) {
	const k = "net.ipv4.tcp_rmem"
	tr := newTree(t, map[string]string{k: "4096\t131072\t6291456"})
	s := tr.open()
	if made, err := s.Set(t.Context(), []Setting{{Key: k, Value: "4096 131072  6291456"}}); err != nil || len(made) != 0 {
		t.Errorf("equal values differ: %v, %v", made, err)
	}
	if made, err := s.Set(t.Context(), []Setting{{Key: k, Value: "4096 87380 6291456"}}); err != nil || len(made) != 1 {
		t.Errorf("set: %v, %v", made, err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.expect(k, "4096\t131072\t6291456")
}

func TestWrongWants(t *testing.T) {
	tr := forwardTree(t)
	made, err := tr.open().Set(t.Context(), []Setting{
		{Key: "net.ipv4.ip_forward", Value: "1"},
		{Key: "net/ipv4/ip_forward", Value: "1"},
		{Key: "net.ipv4.ip_forward", Value: "0"},
		{Key: "net..ipv4", Value: "1"},
		{Key: "", Value: "1"},
		{Key: "net.ipv4.conf.all.rp_filter", Value: "0\n1"},
	})
	if len(made) != 1 || made[0].To != "1" {
		t.Errorf("made %v", made)
	}
	if err == nil || strings.Count(err.Error(), "\n") != 3 || !strings.Contains(err.Error(), `wanted as "1" and as "0"`) {
		t.Errorf("error %v", err)
	}
}

func TestEndedContext(t *testing.T) {
	tr := forwardTree(t)
	s := tr.open()
	ctx, cancel := context.WithCancel(t.Context())
	s.write = func(path, value string) error { cancel(); return writeValue(path, value) }
	made, err := s.Set(ctx, forward)
	if !errors.Is(err, context.Canceled) || len(made) != 1 {
		t.Errorf("made %v, error %v", made, err)
	}
	if err := s.Restore(ctx); !errors.Is(err, context.Canceled) || len(tr.originals()) == 0 {
		t.Errorf("restore: %v", err)
	}
	if err := s.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	tr.expect("net.ipv4.conf.all.rp_filter", "2")
	tr.noRecord()
}

func TestKeys(t *testing.T) {
	for in, want := range map[string]string{
		"net.ipv4.ip_forward":               "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/100.rp_filter":  "net/ipv4/conf/eth0.100/rp_filter",
		"net/ipv4/conf/eth0.100/rp_filter":  "net/ipv4/conf/eth0.100/rp_filter",
		"net.ipv4.conf.a/b/c.rp_filter":     "net/ipv4/conf/a.b.c/rp_filter",
		"net.ipv6.conf.wg-x_1:2.forwarding": "net/ipv6/conf/wg-x_1:2/forwarding",
	} {
		k, err := parseKey(in)
		if err != nil || k.path("/r") != "/r/"+want {
			t.Errorf("%q: %q, %v", in, k.path("/r"), err)
		}
		if again, err := parseKey(string(k)); err != nil || again != k {
			t.Errorf("%q: not stable: %q, %v", in, again, err)
		}
	}
	for _, in := range []string{"", ".", "/", "a.", ".a", "a..b", "a//b", "/etc/passwd", "a.//.//.b", "../x", "a/../b",
		"a.//.b", "a./.b", "a b", "a\nb", "a\x00b", "a\xffb", strings.Repeat("a", 257)} {
		if k, err := parseKey(in); err == nil {
			t.Errorf("%q accepted as %q", in, k)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/x", "../../etc/passwd", "a.//.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := parseKey(s)
		if err != nil {
			return
		}
		if p := k.path("/root"); !strings.HasPrefix(p, "/root/") || filepath.Clean(p) != p {
			t.Errorf("%q leaves the tree: %q", s, p)
		}
		if again, err := parseKey(string(k)); err != nil || again != k {
			t.Errorf("%q: %q is read back as %q, %v", s, k, again, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"values":[{"key":"net.ipv4.ip_forward","original":"0"}]}`))
	f.Add([]byte(`{"version":1,"values":[{"key":"a.b","original":"4096\t1"},{"key":"net.ipv4.conf.e/1.x","original":""}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Errorf("not marked as corrupt: %v", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "r.json")
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
		again, err := loadRecord(path)
		if err != nil || !reflect.DeepEqual(append([]entry{}, r.Values...), append([]entry{}, again.Values...)) {
			t.Errorf("%v comes back as %v, %v", r, again, err)
		}
	})
}

// TestAtLeast raises a limit and never lowers one; what nobody may write is
// left alone when it is optional, and reported when it is not.
func TestAtLeast(t *testing.T) {
	const k = "net.netfilter.nf_conntrack_max"
	for _, tt := range []struct {
		have, want string
		changes    int
	}{{"1000", "4096", 1}, {"4096", "4096", 0}, {"10000", "4096", 0}, {"words", "4096", 1}, {"18446744073709551616", "4096", 1}} {
		tr := newTree(t, map[string]string{k: tt.have})
		got, err := tr.open().Set(t.Context(), []Setting{{Key: k, Value: tt.want, AtLeast: true}})
		if err != nil || len(got) != tt.changes {
			t.Errorf("%s, at least %s: %v, %v; want %d changes", tt.have, tt.want, got, err, tt.changes)
		}
	}
	tr := newTree(t, map[string]string{k: "1000"})
	if err := os.Chmod(tr.path(k), 0o444); err != nil {
		t.Fatal(err)
	}
	if got, err := tr.open().Plan([]Setting{{Key: k, Value: "4096", AtLeast: true, Optional: true}}); err != nil || len(got) != 0 {
		t.Errorf("read-only and optional: %v, %v", got, err)
	}
	if got, err := tr.open().Plan([]Setting{{Key: k, Value: "4096", AtLeast: true}}); err != nil || len(got) != 1 {
		t.Errorf("read-only and wanted: %v, %v", got, err)
	}
}
