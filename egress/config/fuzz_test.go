package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress"
)

// FuzzRead feeds anything to Read, as YAML and as TOML: it never panics, refuses
// with problems a person can read, and what it accepts keeps its promises.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data, strings.HasSuffix(a.Files[0].Name, ".toml"))
	}
	f.Add(Reference(), false)
	f.Fuzz(func(t *testing.T, data []byte, toml bool) {
		name := "fuzz.yaml"
		if toml {
			name = "fuzz.toml"
		}
		spec, err := Read(name, data)
		if err != nil {
			checkError(t, err)
			return
		}
		checkSpec(t, spec)
		again, err := Read(name, data)
		if err != nil || dump(t, spec) != dump(t, again) {
			t.Errorf("the second reading differs: %v", err)
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) || len(refused.Problems) == 0 {
		t.Fatalf("not an Error with problems: %v", err)
	}
	for _, p := range refused.Problems {
		if p.Message == "" || strings.ContainsAny(p.String(), "\n\r\x00") || len(p.String()) > 2000 {
			t.Errorf("not a line for people: %q", p.String())
		}
		if strings.Contains(p.Message, "decod") || strings.Contains(p.Message, "mapstructure") {
			t.Errorf("decoding found what the check of the shape did not: %q", p.String())
		}
	}
	if n := len(strings.Split(err.Error(), "\n")); n != min(len(refused.Problems), maxPrinted+1) {
		t.Errorf("%d lines for %d problems", n, len(refused.Problems))
	}
}

// checkSpec checks what the rest of the program relies on.
func checkSpec(t *testing.T, spec *egress.Spec) {
	t.Helper()
	networks := map[string]bool{}
	for _, n := range spec.Networks {
		if networks[n.Name] || len(n.Name) > 15 || len(n.Ports) == 0 {
			t.Errorf("network %+v", n)
		}
		networks[n.Name] = true
		for _, route := range n.StaticRoutes {
			checkPrefix(t, route.Prefix)
			if len(route.NextHops) == 0 {
				t.Errorf("route %v has no next hop", route)
			}
		}
		for _, probe := range n.Probes {
			if err := probe.Validate(); err != nil {
				t.Errorf("probe %q was accepted: %v", probe.Name, err)
			}
		}
		checkSpeaker(t, n)
	}
	pools := map[string]string{}
	for _, pool := range spec.Pools {
		if !networks[pool.Network] || len(pool.Prefixes) == 0 {
			t.Errorf("pool %+v", pool)
		}
		pools[pool.Name] = pool.Network
		for _, p := range pool.Prefixes {
			checkPrefix(t, p)
		}
	}
	for _, policy := range spec.Policies {
		seen := map[netip.Prefix]bool{}
		for _, p := range policy.Clients {
			checkPrefix(t, p)
		}
		for _, rule := range policy.Rules {
			checkPrefix(t, rule.Destination)
			if seen[rule.Destination] {
				t.Errorf("policy %q has %v twice", policy.Name, rule.Destination)
			}
			seen[rule.Destination] = true
			if (rule.Action == egress.ActionNetwork) != (rule.Network != "") || pools[rule.Pool] != rule.Network {
				t.Errorf("rule %+v", rule)
			}
		}
	}
}

func checkPrefix(t *testing.T, p netip.Prefix) {
	t.Helper()
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
		t.Errorf("prefix %v", p)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "egret.yaml")
	if _, err := Load(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory was read")
	}
	write(t, file, "resync: 7s\n")
	spec, err := Load(file)
	if err != nil || spec.Settings.Resync.Seconds() != 7 {
		t.Errorf("%+v, %v", spec, err)
	}
	if err := os.Truncate(file, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("a file that is too large: %v", err)
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkSpeaker asks the speaker itself whether it can run what was accepted.
func checkSpeaker(t *testing.T, n egress.Network) {
	t.Helper()
	if n.BGP == nil {
		return
	}
	c := bgp.Config{Network: n.Name, Device: n.Name, ASN: n.BGP.ASN, RouterID: n.BGP.RouterID, ListenPort: n.BGP.ListenPort,
		Peers: n.BGP.Peers, GracefulRestart: n.BGP.GracefulRestart}
	for _, err := range c.Validate() {
		t.Errorf("the speaker of %q was accepted: %v", n.Name, err)
	}
}
