// Package egret_test holds what is true of the repository as a whole: who may
// import what, how large a file may be, which versions are too old, and that
// the documents speak of things that exist.
package egret_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	module       = "github.com/egret-router/egret"
	maxFileLines = 400
)

// rooms says which other rooms each room may import. A folder belongs to the
// longest room that contains it, and always may import its own room. A folder
// of no room is a problem: new rooms are decided here and in ARCHITECTURE.md.
var rooms = map[string][]string{
	".":              {"egress/config"}, // these tests
	"vrf":            {},
	"bgp":            {},
	"probes":         {},
	"probes/bfd":     {},
	"egress/nat":     {},
	"egress/sysctl":  {},
	"egress/flows":   {},
	"egress/drain":   {},
	"egress":         leaves,
	"egress/config":  append([]string{"egress"}, leaves...),
	"egress/metrics": append([]string{"egress"}, leaves...),
	"control":        append([]string{"egress"}, leaves...),
	"probes/echo":    {},
	// Kubernetes: the cluster as values, the data plane of client nodes, the API.
	"egress/cluster": append([]string{"egress", "egress/config", "egress/steer"}, leaves...),
	"egress/steer":   {"vrf", "egress/nat", "egress/sysctl", "egress/flows"},
	"egress/crd":     append([]string{"egress", "egress/config", "egress/cluster", "egress/steer"}, leaves...),
	"cmd/egret":      append([]string{"egress", "egress/config", "egress/metrics", "control", "egress/cluster", "egress/steer", "egress/crd", "probes/echo"}, leaves...),
	"acceptance":     append([]string{"egress", "control"}, leaves...),
	"lab":            {anyRoom},
	"containerlab":   {anyRoom},
}

// leaves are the rooms that import nothing of ours.
var leaves = []string{"vrf", "bgp", "probes", "probes/bfd", "egress/nat", "egress/sysctl", "egress/flows", "egress/drain"}

const anyRoom = "*"

// testRooms may be imported by every test.
var testRooms = []string{"lab"}

// confined names the room that may import a library, in tests as well.
// The lab stands outside: it builds the networks that the rooms are tested in.
var confined = []struct{ library, room string }{
	{"github.com/vishvananda/netlink", "vrf"},
	{"github.com/mdlayher/netlink", "vrf"},
	{"github.com/osrg/gobgp", "bgp"},
	{"sigs.k8s.io/knftables", "egress/nat"},
	{"github.com/google/nftables", "egress/nat"},
	{"github.com/ti-mo/conntrack", "egress/flows"},
	{"github.com/spf13/viper", "egress/config"},
	{"github.com/spf13/cobra", "cmd/egret"},
	{"github.com/prometheus/client_golang", "egress/metrics"},
	{"k8s.io", "egress/crd"},
	{"sigs.k8s.io/controller-runtime", "egress/crd"},
}

var unconfined = []string{"lab", "containerlab"}

// vague names say nothing about what a package is for.
var vague = []string{"util", "utils", "common", "types", "helper", "helpers", "manager", "managers", "misc", "shared"}

func TestLayering(t *testing.T) {
	sources, err := readSources(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 50 {
		t.Fatalf("found only %d Go files: is this the module's root?", len(sources))
	}
	for _, problem := range problems(sources) {
		t.Error(problem)
	}
}

// A source is one Go file of this module.
type source struct {
	path    string // relative to the module's root
	name    string // of the package
	imports []string
	inits   int
	lines   int
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// readSources parses every Go file, whatever its build tags say. It leaves out
// what the go command leaves out: testdata, hidden folders, other modules.
func readSources(root fs.FS) ([]source, error) {
	var sources []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(root, name)
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		s, err := readSource(root, name)
		sources = append(sources, s)
		return err
	})
	return sources, err
}

func enter(root fs.FS, dir string) error {
	if dir == "." {
		return nil
	}
	base := path.Base(dir)
	if base == "testdata" || base == "bin" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if _, err := fs.Stat(root, path.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func readSource(root fs.FS, name string) (source, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return source{}, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution|parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	s := source{path: name, name: file.Name.Name, lines: strings.Count(string(text), "\n")}
	if ast.IsGenerated(file) {
		s.lines = 0 // nobody reads it for its subject
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("import %s of %q: %w", spec.Path.Value, name, err)
		}
		s.imports = append(s.imports, imported)
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			s.inits++
		}
	}
	return s, nil
}

// problems lists every broken rule, in the order of the files.
func problems(sources []source) []string {
	var list []string
	add := func(s source, format string, args ...any) {
		list = append(list, s.path+": "+fmt.Sprintf(format, args...))
	}
	for _, s := range sources {
		room := roomOf(s.dir())
		if room == "" {
			add(s, "folder %q belongs to no room (see the table in layering_test.go)", s.dir())
			continue
		}
		for _, imported := range s.imports {
			if wrong := checkImport(s, room, imported); wrong != "" {
				add(s, "%s", wrong)
			}
		}
		for _, part := range append(strings.Split(s.dir(), "/"), strings.TrimSuffix(s.name, "_test")) {
			if slices.Contains(vague, part) {
				add(s, "%q says nothing about what the package is for", part)
				break
			}
		}
		if s.inits > 0 && !s.isTest() {
			add(s, "has an init function: construct in main, in the order of the dependencies")
		}
		if s.lines > maxFileLines && !s.isTest() {
			add(s, "has %d lines, more than %d: is there a second subject in it?", s.lines, maxFileLines)
		}
	}
	return list
}

// checkImport returns what is wrong with an import, or "".
func checkImport(s source, room, imported string) string {
	if ours, ok := within(imported, module); ok {
		target := roomOf(ours)
		allowed := rooms[room]
		if s.isTest() {
			allowed = slices.Concat(allowed, testRooms)
		}
		if target == room || slices.Contains(allowed, target) || slices.Contains(allowed, anyRoom) {
			return ""
		}
		return fmt.Sprintf("room %q must not import %q", room, imported)
	}
	for _, c := range confined {
		if _, ok := within(imported, c.library); ok && c.room != room && !slices.Contains(unconfined, room) {
			return fmt.Sprintf("imports %q, which belongs into %q only", imported, c.room)
		}
	}
	return ""
}

// within returns the rest of a path below a folder, "." for the folder itself.
func within(p, folder string) (string, bool) {
	if p == folder || folder == "." {
		return ".", p == folder
	}
	return strings.CutPrefix(p, folder+"/")
}

// roomOf is the longest room that contains the folder, or "".
func roomOf(dir string) string {
	for d := dir; ; d = path.Dir(d) {
		if _, ok := rooms[d]; ok && (d != "." || dir == ".") {
			return d
		}
		if d == "." {
			return ""
		}
	}
}

// TestLayeringFindsEverything proves that each rule can fail, and that what is
// allowed passes.
func TestLayeringFindsEverything(t *testing.T) {
	long := strings.Repeat("\n", maxFileLines+1)
	own := `import "` + module + "/"
	cases := []struct{ file, text, want string }{
		{"vrf/a.go", "package vrf\n" + own + `bgp"`, `room "vrf" must not import`},
		{"vrf/sub/a.go", "package sub\n" + own + `egress"`, `room "vrf" must not import`},
		{"egress/a.go", "package egress\n" + own + `egress/config"`, `room "egress" must not import`},
		{"egress/config/a.go", "package config\n" + own + `control"`, `room "egress/config" must not import`},
		{"cmd/egret/a.go", "package main\n" + own + `lab"`, `room "cmd/egret" must not import`},
		{"probes/a.go", "package probes\n" + own + `lab"`, `room "probes" must not import`},
		{"bgp/a_test.go", "package bgp\n" + own + `vrf"`, `room "bgp" must not import`},
		{"egress/a.go", `package egress; import "github.com/vishvananda/netlink/nl"`, `belongs into "vrf" only`},
		{"egress/a_test.go", `package egress; import "github.com/osrg/gobgp/v4/api"`, `belongs into "bgp" only`},
		{"egress/nat/a.go", `package nat; import n "github.com/mdlayher/netlink"`, `belongs into "vrf" only`},
		{"vrf/a.go", `package vrf; import "sigs.k8s.io/knftables"`, `belongs into "egress/nat" only`},
		{"egress/a.go", `package egress; import "github.com/ti-mo/conntrack"`, `belongs into "egress/flows" only`},
		{"egress/flows/a.go", "package flows\n" + own + `egress/nat"`, `room "egress/flows" must not import`},
		{"control/a.go", `package control; import _ "github.com/spf13/viper"`, `belongs into "egress/config" only`},
		{"control/a.go", `package control; import "k8s.io/client-go/rest"`, `belongs into "egress/crd" only`},
		{"fresh/a.go", "package fresh", `belongs to no room`},
		{"egress/common/a.go", "package common", `"common" says nothing`},
		{"vrf/links/a.go", "package helpers", `"helpers" says nothing`},
		{"vrf/a.go", "package vrf\nfunc init() {}", `has an init function`},
		{"vrf/a.go", "package vrf" + long, `has 401 lines`},

		{"vrf/a.go", "package vrf\n" + own + `vrf/sub"`, ""},
		{"vrf/a_test.go", "package vrf_test\n" + own + `lab"` + long, ""},
		{"vrf/a.go", `package vrf; import "github.com/vishvananda/netlink"`, ""},
		{"egress/a.go", "package egress\n" + own + `vrf"`, ""},
		{"cmd/egret/a.go", "package main\n" + own + `egress/config"`, ""},
		{"lab/demo/a.go", "package main\n" + own + `control"`, ""},
		{"lab/a.go", `package lab; import "github.com/vishvananda/netlink"`, ""},
		{"vrf/testdata/a.go", "not Go", ""},
		{"lab/tools/a.go", "package common", ""}, // another module
		{"vrf/a.go", "package vrf\nfunc (t T) init() {}\ntype T int", ""},
	}
	for _, c := range cases {
		tree := fstest.MapFS{c.file: {Data: []byte(c.text)}, "lab/tools/go.mod": {}}
		sources, err := readSources(tree)
		if err != nil {
			t.Errorf("%s %q: %v", c.file, c.text, err)
			continue
		}
		got := problems(sources)
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s %.60q: unexpected %q", c.file, c.text, got)
		case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
			t.Errorf("%s %.60q: got %q, want one problem with %q", c.file, c.text, got, c.want)
		}
	}
}
