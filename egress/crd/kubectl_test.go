package crd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/egret-router/egret/lab/kube"
)

// TestDescriptions holds that kubectl explain has something to say of every field.
func TestDescriptions(t *testing.T) {
	files, err := filepath.Glob("manifests/crd/*.yaml")
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	count := 0
	var look func(path string, schema map[string]any)
	look = func(path string, schema map[string]any) {
		if items, ok := schema["items"].(map[string]any); ok {
			look(path+"[]", items)
		}
		properties, _ := schema["properties"].(map[string]any)
		for name, property := range properties {
			at, of := path+"."+name, property.(map[string]any)
			text, _ := of["description"].(string)
			// explain describes metadata by itself.
			if count++; strings.TrimSpace(text) == "" && name != "metadata" {
				t.Errorf("%s has no description", at)
			}
			look(at, of)
		}
	}
	for _, file := range files {
		var crd struct {
			Spec struct {
				Names    struct{ Kind string }
				Versions []struct {
					Schema struct {
						OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
					}
				}
			}
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = yaml.Unmarshal(text, &crd)
		}
		if err != nil || len(crd.Spec.Versions) != 1 {
			t.Fatal(file, err)
		}
		look(crd.Spec.Names.Kind, crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
	}
	if count < 250 {
		t.Errorf("only %d fields", count)
	}
}

// heading is a column of what kubectl get prints, with the space behind it.
var heading = regexp.MustCompile(`\S+\s*`)

// cells are the lines of a table with "|" between columns, and no ages.
func cells(table string) string {
	header, _, _ := strings.Cut(table, "\n")
	var out []string
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(line, "\n")
		var row []string
		for _, at := range heading.FindAllStringIndex(header, -1) {
			end := at[1]
			if end == len(header) {
				end = len(line)
			}
			cell := strings.TrimSpace(line[min(at[0], len(line)):min(end, len(line))])
			if strings.TrimSpace(header[at[0]:at[1]]) == "AGE" {
				cell = strings.Trim(cell, "0123456789ms")
			}
			row = append(row, cell)
		}
		out = append(out, strings.Join(row, "|"))
	}
	return strings.Join(out, "\n")
}

// TestTables holds what kubectl get, describe and explain print, to the letter but for
// ages and the width of columns.
func TestTables(t *testing.T) {
	w := newWorld(t)
	w.node(1)
	w.node(2)
	w.apply(redNetwork, redPool, object("EgressGateway", "red", "{replicas: 2, ipPools: [{name: red}], terminationGracePeriodSeconds: 600}"), redPolicy,
		object("EgressGateway", "lost", "{ipPools: [{name: blue}]}"), object("EgressPool", "blind", "{network: blue, prefixes: [192.0.2.0/28]}"),
		object("EgressGatewayPolicy", "twice", "{rules: [{destination: {cidr: 8.8.8.8}}, {destination: {cidr: 8.8.8.8/32}}]}"),
		object("ExternalNetwork", "wrong", "{table: 254, hosts: [{interfaces: [{name: eth7}]}]}"))
	w.controller("one")
	w.eventually("True", "get", "egw", "red", readyIs)
	table := func(want string, args ...string) {
		t.Helper()
		kube.Eventually(t, time.Minute, fmt.Sprintf("the table of %q", args), func() error {
			got := cells(w.kubectl(append([]string{"get"}, args...)...))
			if got != want {
				return fmt.Errorf("got\n%s\nwant\n%s", got, want)
			}
			return nil
		})
	}
	table(`NAME|POOL|DESIRED|PLACED|NODES|READY|REASON|AGE
lost|blue|1|||False|NotFound|
red|red|2|2|n1, n2|True|Ready|`, "egw")
	table(`NAME|POOL|DESIRED|PLACED|NODES|READY|REASON|AGE|MESSAGE
lost|blue|1|||False|NotFound||spec.ipPools[0].name: there is no pool "blue"`, "egw", "lost", "--output=wide")
	table(`NAME|NETWORK|PREFIXES|ALLOCATED|READY|REASON|AGE|MESSAGE
blind|blue|["192.0.2.0/28"]||False|NotFound||spec.network: there is no network "blue"
red|red|["198.51.100.0/28","2001:db8:100::/120"]|4|True|Ready||`, "epool", "--output=wide")
	table(`NAME|ASN|READY|REASON|AGE|MESSAGE
red|64512|True|Ready||
wrong||False|Invalid||spec.table: 254 is one of the kernel's own tables (253 default, 254 main, 255 local)`, "extnet", "--output=wide")
	table(`NAME|READY|REASON|AGE|MESSAGE
red|True|Ready||
twice|False|Invalid||spec.rules[1].destination: 8.8.8.8/32 is the destination of rules[0] already`, "egp", "--output=wide")
	w.kubectl("cordon", "n1")
	table(`NAME|POOL|DESIRED|PLACED|NODES|READY|REASON|AGE
red|red|2|1|n2, n1 (leaves)|False|Unplaced|`, "egw", "red")

	for _, c := range []struct{ want, command string }{
		{"Message: spec.ipPools[0].name: there is no pool \"blue\"", "describe egw lost"},
		{"Placed On: n2, n1 (leaves)", "describe egw red"},
		{"TerminationGracePeriodSeconds is how long flows may go on after the gateway was told to leave a node.", "explain egw.spec.terminationGracePeriodSeconds"},
		{"MED is the metric that is sent.", "explain epool.spec.med"},
	} {
		if got := w.kubectl(strings.Fields(c.command)...); !strings.Contains(strings.Join(strings.Fields(got), " "), c.want) {
			t.Errorf("kubectl %s says\n%s\nwant %q", c.command, got, c.want)
		}
	}
}
