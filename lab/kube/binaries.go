package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
)

// program is what is built, by the name it is installed under.
type program struct{ name, pkg string }

// The programs of the two build modules. Helm has one of its own: its libraries
// are of other versions, and a newer Helm is no reason to build an API server.
var (
	serverPrograms = []program{
		{"etcd", "go.etcd.io/etcd/server/v3"},
		{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
		{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
	}
	helmPrograms = []program{{"helm", "helm.sh/helm/v3/cmd/helm"}}
)

// Binaries is a directory that has programs, once they are built.
type Binaries struct {
	// Dir is in the user's cache directory, named by what the programs are built from.
	Dir      string
	tools    string // the folder of the build module
	flags    []string
	programs []program
}

// FindBinaries says where etcd, kube-apiserver and kubectl are to be; Check
// whether they are there. It must be called from within this module's folders.
func FindBinaries() (Binaries, error) {
	return find("tools", "k8s.io/kubernetes", serverPrograms)
}

// FindHelm is FindBinaries for helm.
func FindHelm() (Binaries, error) { return find("helm", "", helmPrograms) }

// find looks at a build module. The version of one of its modules is told to
// the programs.
func find(folder, versioned string, programs []program) (Binaries, error) {
	root, err := moduleRoot()
	if err != nil {
		return Binaries{}, err
	}
	tools := filepath.Join(root, "lab", "kube", folder)
	mod, err := os.ReadFile(filepath.Join(tools, "go.mod"))
	if err != nil {
		return Binaries{}, fmt.Errorf("read build module: %w", err)
	}
	sum, err := os.ReadFile(filepath.Join(tools, "go.sum"))
	if err != nil {
		return Binaries{}, fmt.Errorf("read build module: %w", err)
	}
	flags := []string{"-trimpath", "-ldflags", "-s -w"}
	if versioned != "" {
		version := requiredVersion(string(mod), versioned)
		if version == "" {
			return Binaries{}, fmt.Errorf("%q does not require %s", tools, versioned)
		}
		// Without a version, kubectl and the API server refuse one another.
		flags[2] += " -X k8s.io/component-base/version.gitVersion=" + version
	}
	key := sha256.New()
	fmt.Fprintf(key, "%q %s %s %d:%s", flags, runtime.GOOS, runtime.GOARCH, len(mod), mod)
	key.Write(sum)
	base, err := os.UserCacheDir()
	if err != nil {
		return Binaries{}, fmt.Errorf("find cache directory: %w", err)
	}
	dir := filepath.Join(base, "egret", "kube", hex.EncodeToString(key.Sum(nil))[:16])
	return Binaries{Dir: dir, tools: tools, flags: flags, programs: programs}, nil
}

// Check returns an error that says how to get what is missing.
func (b Binaries) Check() error {
	for _, p := range b.programs {
		if _, err := os.Stat(b.Path(p.name)); err != nil {
			return fmt.Errorf("no %s yet (run: go run ./lab/kube/build): %w", p.name, err)
		}
	}
	return nil
}

// Path is where a program is.
func (b Binaries) Path(program string) string { return filepath.Join(b.Dir, program) }

// Build makes what is not there yet, one program after the other: the API
// server alone takes minutes and 2 GB of memory. Builds at the same time may
// both make a program; the last to finish wins, with equal content.
func (b Binaries) Build(ctx context.Context, say func(string)) error {
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return fmt.Errorf("create cache: %w", err)
	}
	for _, p := range b.programs {
		if _, err := os.Stat(b.Path(p.name)); err == nil {
			continue
		}
		say("building " + p.name)
		if err := b.build(ctx, p.name, p.pkg); err != nil {
			return err
		}
	}
	return nil
}

func (b Binaries) build(ctx context.Context, name, pkg string) error {
	made := fmt.Sprintf("%s.%d", b.Path(name), os.Getpid())
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", made}, b.flags...), pkg)...)
	cmd.Dir = b.tools
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("build %q: %w\n%s", pkg, err, out), os.RemoveAll(made))
	}
	return os.Rename(made, b.Path(name))
}

// Require skips the test if the programs are not built, or fails it if
// EGRET_LAB_REQUIRE is set.
func Require(tb testing.TB) Binaries {
	tb.Helper()
	return require(tb, FindBinaries)
}

// RequireHelm is Require for helm, and returns where it is.
func RequireHelm(tb testing.TB) string {
	tb.Helper()
	return require(tb, FindHelm).Path("helm")
}

func require(tb testing.TB, find func() (Binaries, error)) Binaries {
	tb.Helper()
	b, err := find()
	if err == nil {
		err = b.Check()
	}
	if err != nil {
		if lab.Required() {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	return b
}

// requiredVersion finds a module's version in the text of a go.mod.
func requiredVersion(mod, module string) string {
	for line := range strings.Lines(mod) {
		words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(words) >= 2 && words[0] == module && strings.HasPrefix(words[1], "v") {
			return words[1]
		}
	}
	return ""
}

// moduleRoot is the innermost folder around the working directory that has this module's go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if text, err := os.ReadFile(filepath.Join(d, "go.mod")); err == nil && strings.HasPrefix(string(text), "module github.com/egret-router/egret\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%q is not inside the module", dir)
		}
	}
}
