package egret_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/egret-router/egret/egress/config"
)

var (
	linkPattern    = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	targetPattern  = regexp.MustCompile("(?m)(?:`|^\\s*|\\$ )make ([a-z-]+)")
	rulePattern    = regexp.MustCompile(`(?m)^([a-z][a-z -]*):`)
	commandPattern = regexp.MustCompile("(?m)(?:`|^\\s*|\\$ )egret ([a-z]+)")
	usePattern     = regexp.MustCompile(`Use:\s+"([a-z]+)`)
	yamlPattern    = regexp.MustCompile("(?s)```yaml\n(.*?)```")
)

// TestDocuments holds that links lead somewhere, and that the targets of make
// and the subcommands which a document names exist.
func TestDocuments(t *testing.T) {
	makefile := read(t, "Makefile")
	targets, commands := map[string]bool{}, map[string]bool{}
	for _, m := range rulePattern.FindAllStringSubmatch(makefile, -1) {
		for name := range strings.FieldsSeq(m[1]) {
			targets[name] = true
		}
	}
	sources, err := fs.Glob(os.DirFS("."), "cmd/egret/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		for _, m := range usePattern.FindAllStringSubmatch(read(t, name), -1) {
			commands[m[1]] = true
		}
	}
	for _, doc := range documents(t) {
		text := read(t, doc)
		for _, m := range linkPattern.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(path.Join(path.Dir(doc), m[1])); err != nil {
				t.Errorf("%s: link to %q: %v", doc, m[1], err)
			}
		}
		for _, m := range targetPattern.FindAllStringSubmatch(text, -1) {
			if !targets[m[1]] {
				t.Errorf("%s: make has no target %q", doc, m[1])
			}
		}
		for _, m := range commandPattern.FindAllStringSubmatch(text, -1) {
			if !commands[m[1]] {
				t.Errorf("%s: egret has no command %q", doc, m[1])
			}
		}
	}
}

// TestExamples holds that the configurations of the documents are valid.
func TestExamples(t *testing.T) {
	found := 0
	for _, doc := range documents(t) {
		for _, m := range yamlPattern.FindAllStringSubmatch(read(t, doc), -1) {
			if !strings.Contains(m[1], "networks:") {
				continue
			}
			found++
			if _, err := config.Read("example.yaml", []byte(m[1])); err != nil {
				t.Errorf("%s: the example\n%s\n%v", doc, m[1], err)
			}
		}
	}
	if found == 0 {
		t.Error("no document shows a configuration")
	}
}

// documents are the Markdown files that are for our users and contributors.
func documents(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{"*.md", "docs/*.md", "containerlab/*.md", "lab/*.md"} {
		names, err := fs.Glob(os.DirFS("."), pattern)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, names...)
	}
	return list
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
