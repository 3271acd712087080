package config

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"
)

// nasty are the values every scalar is replaced with.
func nasty() []string {
	return []string{"", "~", "{}", "[]", "[~]", "[[]]", "{a: b}", "true", "yes", "-1", "0", "1", "65536", "4294967296", "9223372036854775808",
		"1e400", ".inf", ".nan", "0x10", "0o17", "2026-01-01", "!!binary aGk=", "!!str 5", "!foo bar", "!!int '5'", "!!float 5", "!!null x",
		"0.0.0.0/0", "::/0", "255.255.255.255", "ff02::1", "::ffff:10.0.0.1/97", "fe80::1%eth0", "172.16.0.1", "172.16.0.2", "198.51.100.1",
		"10.244.1.1", "-5ms", "9999999h", "1ns", "1s", "red", "blue", "red-pool", "drop", "\"\\0\"", "\"a\\nb\"", "é", "'::'", "http://[::1]:x/",
		"http://172.16.0.2:1/", "HTTPS://10.0.0.5", "icmp", "http"}
}

// TestMutations replaces, drops and doubles parts of a good configuration: what
// comes out is refused with problems, or keeps the promises of a Spec. The full
// number of combinations runs with EGRET_MUTATIONS=0, else as many as it says.
func TestMutations(t *testing.T) {
	rounds := 200
	if s := os.Getenv("EGRET_MUTATIONS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	a, err := txtar.ParseFile("testdata/good/overlap.txtar")
	if err != nil {
		t.Fatal(err)
	}
	nodes := len(flatten(parseYAML(t, a.Files[0].Data)))
	total := nodes * (len(nasty()) + 2)
	random := rand.New(rand.NewPCG(1, 2))
	if rounds == 0 {
		rounds = total
	}
	accepted := 0
	for i := range rounds {
		pick := i
		if rounds < total {
			pick = random.IntN(total)
		}
		document := parseYAML(t, a.Files[0].Data)
		mutate(t, flatten(document)[pick%nodes], pick/nodes)
		data, err := yaml.Marshal(document)
		if err != nil {
			continue // not every tree can be written
		}
		spec, err := Read("mutation.yaml", data)
		if err == nil {
			accepted++
			checkSpec(t, spec)
		} else {
			checkError(t, err)
		}
		if t.Failed() {
			t.Fatalf("with:\n%s", data)
		}
	}
	t.Logf("%d of %d mutations were accepted", accepted, rounds)
	if accepted == 0 || accepted > rounds/2 {
		t.Errorf("%d of %d mutations were accepted: the test tests nothing", accepted, rounds)
	}
}

func parseYAML(t *testing.T, data []byte) *yaml.Node {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	return &document
}

func flatten(n *yaml.Node) []*yaml.Node {
	nodes := []*yaml.Node{n}
	for _, c := range n.Content {
		nodes = append(nodes, flatten(c)...)
	}
	return nodes[:len(nodes):len(nodes)]
}

// mutate changes n by the way'th mutation.
func mutate(t *testing.T, n *yaml.Node, way int) {
	t.Helper()
	values := nasty()
	switch {
	case way < len(values):
		if n.Kind == yaml.ScalarNode {
			*n = *parseYAML(t, []byte("- "+values[way]+"\n")).Content[0].Content[0]
		}
	case len(n.Content) == 0 || n.Kind == yaml.DocumentNode:
	default:
		size := 1
		if n.Kind == yaml.MappingNode {
			size = 2
		}
		if way == len(values) { // drop the first entry or key
			n.Content = n.Content[size:]
		} else { // double the last one
			n.Content = append(n.Content, n.Content[len(n.Content)-size:]...)
		}
	}
}
