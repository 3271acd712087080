package nat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func FuzzParseRuleset(f *testing.F) {
	f.Add([]byte(`{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "inet", "name": "egret", "handle": 1}},
{"map": {"family": "inet", "name": "clients4", "table": "egret", "type": "ipv4_addr", "handle": 17, "map": "verdict", "flags": ["interval"], "elem": [[{"range": ["0.0.0.0", "9.255.255.255"]}, {"goto": {"target": "x"}}], [{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"drop": null}], [{"elem": {"val": "11.0.0.1", "comment": "c"}}, {"jump": null}]]}},
{"set": {"name": "s", "type": ["ipv4_addr", "mark"], "flags": ["timeout"], "timeout": 5, "elem": [1, "a", {"concat": ["10.0.0.1", 1]}]}},
{"chain": {"name": "c", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}, {"rule": {"chain": "c", "comment": "abc", "expr": []}}, {"counter": {"name": "n", "packets": 1, "bytes": 2}}, {"quota": {"name": "q"}}, {"flowtable": {"family": "inet", "name": "fast_path", "table": "egret", "handle": 1, "hook": "ingress", "prio": 0, "dev": ["eth0", "eth1"]}}]}`))
	f.Add([]byte(`{"nftables": [{"table": {}}, {"flowtable": {"name": "fast_path", "hook": "ingress", "dev": "eth0"}}, {"flowtable": {"dev": [5]}}, {"map": {"name": "buckets_x", "type": "integer", "map": "verdict", "elem": [[0, {"goto": {"target": "exit_x"}}], [1, {"drop": null}]]}}]}`))
	f.Add([]byte(`{"nftables": [{"table": null}, {"set": {"elem": [null, [], [null, null], "", {}]}}, {"map": {"map": "verdict", "elem": [[null, null], [[], {}], [{}, {"a": {}, "b": {}}]]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRuleset(data)
		if err != nil {
			return
		}
		// A dormant table is woken, whatever is wanted: it is no want.
		if !r.Exists || !r.Dormant && !Diff(r, r).Empty() {
			t.Errorf("%s differs from itself", r)
		}
		want := Render(smallConfig())
		_ = r.String()
		_ = Diff(r, want).script()
		_ = DiffGuards(r, want).script()
		_ = RemoveAllButGuards(r).String()
		_, _ = parseCounters(data, tableName)
		_, _ = chainProblems(data)
	})
}

func TestParseRulesetErrors(t *testing.T) {
	for _, text := range []string{"", "{", `{"nftables": []}`, `{"nftables": [{"chain": 5}]}`, `{"nftables": [{"set": {"name": "s", "elem": 5}}]}`} {
		if r, err := parseRuleset([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "parse nft listing") {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
}

func TestVersion(t *testing.T) {
	for text, ok := range map[string]bool{
		"nftables v1.0.6 (Lester Gooch #5)": true, "nftables v1.0.1 (x)": true, "nftables v1.1.3": true, "nftables v2.0.0": true,
		"nftables v1.0.0 (x)": false, "nftables v0.9.8 (x)": false, "": false, "v1.2": false, "v1.2000.0": false,
	} {
		if err := checkVersion(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLegacyProblems(t *testing.T) {
	if got := legacyProblems("nat\nfilter\n"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if got := legacyProblems("nat\n"); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	op := Op{Verb: verbAdd, Kind: kindElement, Name: "x"}
	var p Plan
	for range 10 * elementsPerLine {
		op.Key = "2001:db8:1234:1234:1234:1234:1234:1234-2001:db8:1234:1234:1234:1234:1234:1239"
		p.Ops = append(p.Ops, op)
	}
	lines := strings.Split(strings.TrimSpace(p.script()), "\n")
	if len(lines) != 10 {
		t.Errorf("%d commands", len(lines))
	}
	for _, l := range lines {
		if len(l) > 20000 {
			t.Errorf("a command of %d bytes", len(l))
		}
	}
}

// message builds a netlink message of nftables.
func message(kind uint16, port uint32, family byte, table string) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+genmsgSize)
	b[unix.SizeofNlMsghdr] = family
	if table != "" {
		b = binary.NativeEndian.AppendUint16(b, uint16(4+len(table)+1))
		b = binary.NativeEndian.AppendUint16(b, 1)
		b = append(append(b, table...), 0)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.NFNL_SUBSYS_NFTABLES<<8|kind)
	binary.NativeEndian.PutUint32(b[12:], port)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func TestWatcher(t *testing.T) {
	const ours, theirs = 10, 20
	gen := func(port uint32) []byte { return message(unix.NFT_MSG_NEWGEN, port, 0, "") }
	table := func(port uint32, name string) []byte {
		return message(unix.NFT_MSG_DELTABLE, port, unix.NFPROTO_INET, name)
	}
	for name, c := range map[string]struct {
		datagrams [][]byte
		want      bool
	}{
		"foreign":              {[][]byte{table(theirs, tableName), gen(theirs)}, true},
		"in one datagram":      {[][]byte{append(table(theirs, tableName), gen(theirs)...)}, true},
		"ours":                 {[][]byte{table(ours, tableName), gen(ours)}, false},
		"other table":          {[][]byte{table(theirs, "egret2"), gen(theirs)}, false},
		"other family":         {[][]byte{message(unix.NFT_MSG_NEWRULE, theirs, unix.NFPROTO_IPV4, tableName), gen(theirs)}, false},
		"not ended":            {[][]byte{table(theirs, tableName)}, false},
		"ours, then foreign":   {[][]byte{table(ours, tableName), gen(ours), table(theirs, tableName), gen(theirs)}, true},
		"foreign, then ours":   {[][]byte{append(append(append(table(theirs, tableName), gen(theirs)...), table(ours, tableName)...), gen(ours)...)}, true},
		"other, between ours":  {[][]byte{table(ours, tableName), gen(ours), table(theirs, "x"), gen(theirs)}, false},
		"cut off":              {[][]byte{table(theirs, tableName)[:18], gen(theirs)}, false},
		"other subsystem":      {[][]byte{make([]byte, 40), gen(theirs)}, false},
		"generation unrelated": {[][]byte{gen(theirs)}, false},
	} {
		w := watcher{isOwn: func(port uint32) bool { return port == ours }}
		got := false
		for _, d := range c.datagrams {
			got = w.receive(d) || got
		}
		if got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func FuzzWatcher(f *testing.F) {
	f.Add(append(message(unix.NFT_MSG_DELTABLE, 1, unix.NFPROTO_INET, tableName), message(unix.NFT_MSG_NEWGEN, 1, 0, "")...))
	f.Add([]byte{3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := watcher{isOwn: func(uint32) bool { return false }}
		w.receive(data)
	})
}

// BenchmarkParse is our part of Snapshot, at 100,000 elements.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	text.WriteString(`{"nftables": [{"table": {"name": "egret"}}`)
	for p := range 1000 {
		fmt.Fprintf(&text, `, {"map": {"family": "inet", "name": "dst4_%d", "table": "egret", "type": "ipv4_addr", "handle": 17, "map": "verdict", "flags": ["interval"], "elem": [["11.0.0.1", {"goto": {"target": "x"}}]`, p)
		for d := range 99 {
			fmt.Fprintf(&text, `, [{"prefix": {"addr": "10.%d.0.0", "len": 16}}, {"goto": {"target": "exit_%d"}}]`, d, d%4)
		}
		text.WriteString("]}}")
	}
	text.WriteString("]}")
	for b.Loop() {
		if _, err := parseRuleset([]byte(text.String())); err != nil {
			b.Fatal(err)
		}
	}
}
