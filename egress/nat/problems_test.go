package nat

import (
	"strings"
	"testing"
)

func TestKernelProblems(t *testing.T) {
	k := newKernelTable(t)
	k.become(Render(smallConfig()))
	problems := func() (out []string) {
		k.do(func() error { out = k.Problems(t.Context()); return nil })
		return out
	}
	if err := k.nft("add table inet egret_agent; add chain inet egret_agent identity { type nat hook postrouting priority 90; }"); err != nil {
		t.Fatal(err)
	}
	if found := problems(); len(found) != 0 {
		t.Errorf("problems in a fresh namespace: %q", found)
	}
	if err := k.nft("add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"); err != nil {
		t.Fatal(err)
	}
	if err := k.nft("add table inet early; add chain inet early masq { type nat hook postrouting priority 50; }"); err != nil {
		t.Fatal(err)
	}
	found := strings.Join(problems(), "\n")
	for _, want := range []string{"chain ip filter FORWARD", "chain inet early masq"} {
		if !strings.Contains(found, want) {
			t.Errorf("no word of %s in %q", want, found)
		}
	}
}
