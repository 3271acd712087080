package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egret-router/egret/egress"
)

// TestParse uses the schema without a file, as other sources do.
func TestParse(t *testing.T) {
	asn := int64(64512)
	raw := Raw{
		Networks: []RawNetwork{{
			Name:       "red",
			Interfaces: []RawInterface{{Name: "eth1", Addresses: []string{"172.16.0.1/30"}}},
			BGP:        &RawBGP{ASN: &asn, Peers: []RawPeer{{Address: "172.16.0.2", ASN: &asn, Import: []RawImport{{Prefix: "10.0.0.0/8"}}}}},
		}},
	}
	spec, problems := Parse(raw)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := spec.Networks[0].BGP.Peers[0].Import[0]; got.Min != 8 || got.Max != 32 {
		t.Errorf("import %+v", got)
	}
	raw.Networks[0].Interfaces[0].Name = "eth/1"
	raw.Resync = "1"
	spec, problems = Parse(raw)
	want := []egress.Problem{
		{Field: "resync", Message: `"1" is not a duration: write a number with a unit, such as 300ms, 5s or 1m30s`},
		{Field: "networks[0].interfaces[0].name", Message: `"eth/1" is not a device name: no spaces, slashes, colons, quotes, '*', backslashes or non-ASCII characters`},
	}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Error(diff)
	}
	if spec.Networks != nil || spec.Settings.RunDir != "" {
		t.Errorf("a Spec beside problems: %+v", spec)
	}
}

// TestLimits goes one beyond each bound on numbers and lengths.
func TestLimits(t *testing.T) {
	networks, pools := make([]RawNetwork, MaxNetworks+1), make([]RawPool, MaxPools+1)
	for i := range networks {
		networks[i] = RawNetwork{Name: fmt.Sprintf("n%d", i), Interfaces: []RawInterface{{Name: fmt.Sprintf("eth%d", i)}}}
	}
	for i := range pools {
		pools[i] = RawPool{Name: fmt.Sprintf("p%d", i), Network: "n0", Prefixes: []string{fmt.Sprintf("198.51.%d.%d", i>>8, i&255)}}
	}
	targets := make([]RawTarget, maxTargets+1)
	for i := range targets {
		targets[i].Target = fmt.Sprintf("10.0.%d.%d", i>>8, i&255)
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	networks[0].Probes = []RawProbe{
		{Type: "icmp", Targets: targets},
		{Type: "http", Targets: []RawTarget{{Target: "http://10.0.0.1/" + long(maxURL)}, {Target: "http://10.0.0.1/"}}, HTTP: &RawHTTP{Body: long(maxBody + 1), Host: long(maxHost + 1)}},
		{Name: long(maxName + 1), Type: "icmp", Targets: targets[:1]},
	}
	raw := Raw{
		Clients:  RawClients{Interfaces: []string{"client0"}, Prefixes: []string{"10.244.0.0/16"}},
		Networks: networks, Pools: pools,
		Policies: []RawPolicy{{Name: "a", Clients: []string{"10.244.1.0/24"}, Rules: []RawRule{{Description: long(maxDescription + 1), Action: "drop"}}}},
	}
	_, problems := Parse(raw)
	want := []string{
		"networks: there are 4096 networks, at most 4095 are possible",
		"networks[0].probes[0].targets: there are 257 targets, at most 256 are possible",
		"networks[0].probes[1].targets[0]: is 2064 bytes long, at most 2048 are allowed",
		"networks[0].probes[1].http.host: \"" + long(maxQuoted) + "...\" is not a host name",
		"networks[0].probes[1].http.body: is 1025 bytes long, at most 1024 are allowed",
		"networks[0].probes[2].name: \"" + long(maxName+1) + "\" is 64 characters long, at most 63 are allowed",
		"pools: there are 4096 pools, at most 4095 are possible",
		"policies[0].rules[0].description: is 257 bytes long, at most 256 are allowed",
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestErrorIsBounded prints a part of very many problems, and has them all.
func TestErrorIsBounded(t *testing.T) {
	var text bytes.Buffer
	text.WriteString("clients: {prefixes: [")
	for i := range 1000 {
		fmt.Fprintf(&text, "a%d, ", i)
	}
	text.WriteString("b]}\n")
	_, err := Read("egret.yaml", text.Bytes())
	refused, ok := err.(*Error)
	if !ok || len(refused.Problems) != 1001 {
		t.Fatalf("%v", err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxPrinted+1 || lines[maxPrinted] != "egret.yaml: and 801 more problems" {
		t.Errorf("%d lines, the last is %s", len(lines), lines[len(lines)-1])
	}
}
