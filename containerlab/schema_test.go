package containerlab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTopologies(t *testing.T) {
	schema, err := readSchema()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.clab.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find topologies: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(schema, text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestBrokenTopologies breaks the real topology in one place at a time.
func TestBrokenTopologies(t *testing.T) {
	schema, err := readSchema()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("egret.clab.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, old, new, want string }{
		{"unknown key", "image-pull-policy: Never", "image-pull-polcy: Never", "image-pull-polcy"},
		{"unknown kind", "kind: linux", "kind: linus", "kind"},
		{"wrong value", "image-pull-policy: Never", "image-pull-policy: perhaps", "image-pull-policy"},
		{"no name", "name: egret\n", "", "name"},
		{"wrong type", `restart-policy: "no"`, "restart-policy: [no]", "got array, want string"},
		{"endpoint grammar", `"red:eth1"`, `"red eth1"`, "red eth1"},
		{"one endpoint", `["red:eth1", "red-server:eth0"]`, `["red:eth1"]`, "endpoints"},
		{"unknown node in a link", `"red:eth1"`, `"rad:eth1"`, `endpoint "rad:eth1" is not an interface`},
		{"endpoint used twice", `"gateway:eth2", "blue:eth0"`, `"gateway:eth1", "blue:eth0"`, `"gateway:eth1" is used twice`},
		{"node without a link", `- endpoints: ["team-a:eth0", "lan:team-a"]`, "", `node "team-a" has no link`},
		{"bind without a file", "red/frr.conf:", "red/absent.conf:", "absent.conf"},
		{"bind of elsewhere", "red/frr.conf:", "../go.mod:", "not a file of this folder"},
		{"image that must be pulled", "egret-lab/frr", "frrouting/frr:v8", "frrouting/frr:v8"},
		{"not YAML", "topology:", "\ttopology:", "yaml"},
	} {
		t.Run(test.name, func(t *testing.T) {
			broken := strings.Replace(string(text), test.old, test.new, 1)
			if broken == string(text) {
				t.Fatalf("%q does not occur in the topology", test.old)
			}
			err := check(schema, []byte(broken))
			if err == nil {
				t.Fatal("found nothing wrong")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error does not mention %q: %v", test.want, err)
			}
		})
	}
}
