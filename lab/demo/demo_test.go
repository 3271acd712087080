package main

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/config"
	"github.com/egret-router/egret/lab"
)

// TestConfiguration holds that the first configuration a user sees is valid,
// fits the lab, and that networks overlap in it as the story says.
func TestConfiguration(t *testing.T) {
	spec, err := config.Read("egret.yaml", []byte(configuration))
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Networks) != 2 || len(spec.Policies) != 2 || len(spec.Pools) != 2 {
		t.Fatalf("%d networks, %d policies, %d pools, want two of each", len(spec.Networks), len(spec.Policies), len(spec.Pools))
	}
	accepted := map[string][]string{"red": {lab.RedPool4, lab.RedPool6}, "blue": {lab.BluePool4, lab.BluePool6}}
	for _, p := range spec.Pools {
		for _, prefix := range p.Prefixes {
			if !slices.ContainsFunc(accepted[p.Network], func(s string) bool { return netip.MustParsePrefix(s).Overlaps(prefix) }) {
				t.Errorf("pool %s: %s's router would refuse %s", p.Name, p.Network, prefix)
			}
		}
	}
	for i, n := range spec.Networks {
		if len(n.Probes) != 2 || n.BGP == nil || len(n.BGP.Peers) != 2 {
			t.Errorf("network %s does not have two probes and two peers", n.Name)
		}
		for _, port := range n.Ports {
			if len(port.Addresses) != 2 || !slices.Equal(port.Addresses, spec.Networks[0].Ports[0].Addresses) {
				t.Errorf("network %d does not overlap: %v", i, port.Addresses)
			}
		}
	}
	for i, team := range teams() {
		for _, c := range team.clients() {
			if !contains(spec.Policies[i].Clients, c) || spec.Policies[i].Rules[0].Network != team.network {
				t.Errorf("%s of %s is not led to %s by policy %s", c, team.name, team.network, spec.Policies[i].Name)
			}
		}
	}
}

// TestMistake holds that the broken file of the story is broken where the story says.
func TestMistake(t *testing.T) {
	broken := strings.Replace(configuration, mistakeOf, mistake, 1)
	_, err := config.Read("egret.yaml", []byte(broken))
	if broken == configuration || err == nil || !strings.Contains(err.Error(), mistakeField) {
		t.Errorf("the broken configuration gives %v", err)
	}
}

func TestScreen(t *testing.T) {
	at := time.Unix(0, 0)
	tell := func(colors bool) string {
		var b bytes.Buffer
		s := newScreen(&b, colors)
		s.now = func() time.Time { at = at.Add(1500 * time.Millisecond); return at }
		s.start("Pools")
		s.table([]string{s.network("red") + " router", "RIB"}, []string{"blue router", "empty"})
		s.quote("$ a\n\nb  \n")
		s.done("seen %d", 2)
		return b.String()
	}
	want := ` 1  Pools
    red router   RIB
    blue router  empty
    | $ a
    |
    | b
    ok  seen 2 (1.5 s)
`
	if got := tell(false); got != "\n"+want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	colored := tell(true)
	if !strings.Contains(colored, "\x1b[31mred\x1b[0m router   RIB\n") || !strings.Contains(colored, "\x1b[32mok\x1b[0m  seen") {
		t.Errorf("colours are wrong or break the columns: %q", colored)
	}
}

func TestUseColors(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	env := func(string) string { return "" }
	for wish, want := range map[string]bool{"always": true, "never": false, "auto": false} {
		if got := useColors(wish, file, env); got != want {
			t.Errorf("%s: colours for a file %t, want %t", wish, got, want)
		}
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals:", err)
	}
	defer terminal.Close()
	for value, want := range map[string]bool{"": true, "1": false} {
		if got := useColors("auto", terminal, func(name string) string {
			if name == "NO_COLOR" {
				return value
			}
			return ""
		}); got != want {
			t.Errorf("NO_COLOR=%q: colours on a terminal %t, want %t", value, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	able := func() error { return nil }
	unable := func() error { return errors.New("missing vrf: not supported\nmissing root: not root") }
	for _, c := range []struct {
		vm    string
		check func() error
		here  bool
		say   string
	}{
		{"", able, true, "of this machine"},
		{"", unable, false, "missing vrf: not supported; missing root"},
		{"always", able, false, "EGRET_VM=always"},
		{"1", unable, true, ""},
	} {
		p := choose(c.vm, c.check)
		if p.here != c.here || !strings.Contains(p.say, c.say) || c.say == "" && p.say != "" || strings.Contains(p.say, "\n") {
			t.Errorf("EGRET_VM=%q: %+v, want here %t, saying %q in one line", c.vm, p, c.here, c.say)
		}
	}
}

func TestExcerpts(t *testing.T) {
	status := "egret v1, up 3s\n\nNETWORK  PHASE\nred      Up\n\nNETWORK  PEER\nred      ::1\n\nPOOL  NETWORK\np     red\n\nPOLICY  CLIENTS\n"
	if got, want := tables(status, "NETWORK PHASE", "POOL"), "NETWORK  PHASE\nred      Up\n\nPOOL  NETWORK\np     red"; got != want {
		t.Errorf("tables: got %q, want %q", got, want)
	}
	plan := "add table inet egret\nadd element inet egret m { 1 : 2 }\n# network \"red\": x\n\nsysctl a: \"0\" -> \"1\"\nip link add red type vrf table 5\nip -6 rule add pref 1\n"
	total, kinds := planCount(plan)
	if total != 5 || kinds != "1 nft, 1 nft elements, 1 sysctl, 2 ip" {
		t.Errorf("planCount: %d, %q", total, kinds)
	}
	if got := firstWith("a 1\nb\na 2\nc", "c", "a", "x"); !slices.Equal(got, []string{"a 1", "c"}) {
		t.Errorf("firstWith: %q", got)
	}
	for body, want := range map[string]string{"red saw 198.51.100.3:40000\n": "red 198.51.100.3:40000", "blue saw [2001:db8::1]:1": "blue [2001:db8::1]:1"} {
		if name, client, err := parseAnswer(body); err != nil || name+" "+client.String() != want {
			t.Errorf("parseAnswer(%q) = %q, %s, %v", body, name, client, err)
		}
	}
	for _, body := range []string{"", "red", "red saw nobody"} {
		if _, _, err := parseAnswer(body); err == nil {
			t.Errorf("parseAnswer(%q) gives no error", body)
		}
	}
}

func TestInSync(t *testing.T) {
	good := egress.NetworkStatus{Name: "red", Phase: egress.PhaseUp, LearnedRoutes: 2}
	if err := inSync(&egress.Status{Networks: []egress.NetworkStatus{good}}); err != nil {
		t.Error(err)
	}
	stale, down, poor := good, good, good
	stale.Stale, down.Phase, poor.LearnedRoutes = true, egress.PhaseDown, 1
	for _, bad := range []*egress.Status{{}, {Networks: []egress.NetworkStatus{good, stale}}, {Networks: []egress.NetworkStatus{down}}, {Networks: []egress.NetworkStatus{poor}}} {
		if inSync(bad) == nil {
			t.Errorf("in sync: %+v", bad)
		}
	}
}

// TestCommandScripts runs the commands of the shell with programs that print
// how they were called.
func TestCommandScripts(t *testing.T) {
	dir := t.TempDir()
	printer := filepath.Join(dir, "it's a program")
	if err := os.WriteFile(printer, []byte("#!/bin/sh\necho \"${0##*/} $*\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	enter := map[string]string{}
	for _, name := range []string{"client", "gw", "red-router", "blue-router"} {
		enter[name] = "env IN=" + name
	}
	scripts := commandScripts(enter, map[string]string{"egret": printer, "egretlab": printer, "demo": printer, "vtysh": printer, "birdc": printer, "cut": printer}, "/s")
	for _, c := range []struct{ command, args, want string }{
		{"gw", "sh -c 'echo $IN $PWD'", "gw " + dir},
		{"egret", "status -o 'a b'", "it's a program status -o a b"},
		{"vtysh", "-c show", "it's a program -c show"},
		{"birdc", "show status", "it's a program -s /run/bird.ctl show status"},
		{"fetch", "a", "it's a program fetch -source 10.244.1.10 http://10.0.0.5/"},
		{"fetch", "b 6", "it's a program fetch -source fd00:244:2::10 http://[fd00:10::5]/"},
		{"cut", "red", "it's a program -tell /s cut red"},
		{"cut", "-c 1", "it's a program -c 1"},
		{"heal", "red", "it's a program -tell /s heal red"},
		{"daemon", "kill", "it's a program -tell /s daemon kill"},
	} {
		file := filepath.Join(dir, c.command)
		if err := os.WriteFile(file, []byte("#!/bin/bash\n"+scripts[c.command]), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("bash", "-c", "./"+c.command+" "+c.args)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != c.want {
			t.Errorf("%s %s: %v, %q, want %q", c.command, c.args, err, out, c.want)
		}
	}
	file := filepath.Join(dir, "fetch")
	if out, err := exec.Command(file, "c").CombinedOutput(); err == nil {
		t.Errorf("fetch c is accepted: %s", out)
	}
}

func TestTell(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go (&demo{}).listen(t.Context(), listener)
	var out bytes.Buffer
	if err := tell(socket, []string{"cut", "green"}, &out); err == nil || !strings.Contains(err.Error(), "usage: cut") || out.Len() > 0 {
		t.Errorf("an unknown wish gives %v, %q", err, &out)
	}
	listener.Close()
	if err := tell(socket, []string{"cut", "red"}, &out); err == nil || !strings.Contains(err.Error(), "the lab is gone") {
		t.Errorf("without a demo: %v", err)
	}
}

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"-tell", "/s", "cut", "red"})
	if err != nil || o.socket != "/s" || !slices.Equal(o.words, []string{"cut", "red"}) {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parseOptions([]string{"-shell", "-color=never"}); err != nil || !o.shell || o.color != "never" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestVerdicts(t *testing.T) {
	s := &egress.Status{Networks: []egress.NetworkStatus{{Name: "blue"}, {Name: "red", Probes: []egress.ProbeStatus{
		{Name: "red/icmp0", Targets: []egress.ProbeTargetStatus{{Target: "10.0.0.5", Verdict: "down", LastError: "no reply"}}}}}}}
	rows := verdicts(s, "red")
	if len(rows) != 1 || !slices.Equal(rows[0], []string{"probe red/icmp0", "10.0.0.5 is down", "no reply"}) {
		t.Errorf("%q", rows)
	}
}
