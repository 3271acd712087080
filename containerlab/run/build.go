package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// cacheDir is where everything that can be rebuilt is kept, keyed by content.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	dir := filepath.Join(base, "egret", "containerlab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	return dir, nil
}

// contentKey names what is made from the given files with the given options.
func contentKey(options []string, files ...string) (string, error) {
	h := sha256.New()
	for _, o := range options {
		fmt.Fprintf(h, "%d:%s", len(o), o)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("read build input: %w", err)
		}
		fmt.Fprintf(h, "%d:", len(data))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// once returns dir/name, made by create if it does not exist yet. Runs at the
// same time may both make it; the last one to finish wins, with equal content.
func once(dir, name string, create func(path string) error) (string, error) {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	work, remove, err := workDir(dir)
	if err != nil {
		return "", err
	}
	made := filepath.Join(work, name)
	err = create(made)
	if err == nil {
		err = os.Rename(made, path)
	}
	return path, errors.Join(err, remove())
}

// workDir makes a directory for this run alone within the cache, and clears
// away what runs that were killed more than a day ago left there.
func workDir(cache string) (dir string, remove func() error, err error) {
	old, err := filepath.Glob(filepath.Join(cache, "work-*"))
	if err != nil {
		return "", nil, err
	}
	for _, o := range old {
		if info, err := os.Stat(o); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			if err := os.RemoveAll(o); err != nil {
				return "", nil, fmt.Errorf("clear cache: %w", err)
			}
		}
	}
	dir, err = os.MkdirTemp(cache, "work-")
	if err != nil {
		return "", nil, fmt.Errorf("create work directory: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// buildContainerlab builds the containerlab of tools/go.mod, or finds it in the
// cache. The first build takes one to four minutes.
func buildContainerlab(ctx context.Context, root, cache string) (string, error) {
	tools := filepath.Join(root, "containerlab", "tools")
	modFile := filepath.Join(tools, "go.mod")
	version, err := requiredVersion(modFile, "github.com/srl-labs/containerlab")
	if err != nil {
		return "", err
	}
	flags := []string{"-trimpath", "-ldflags", "-s -w -X github.com/srl-labs/containerlab/cmd.version=" + strings.TrimPrefix(version, "v")}
	key, err := contentKey(append(flags, runtime.Version(), runtime.GOARCH), modFile, filepath.Join(tools, "go.sum"))
	if err != nil {
		return "", err
	}
	return once(cache, "containerlab-"+key, func(path string) error {
		return goBuild(ctx, tools, path, "github.com/srl-labs/containerlab", flags...)
	})
}

// requiredVersion finds a module's version in a go.mod.
func requiredVersion(modFile, module string) (string, error) {
	data, err := os.ReadFile(modFile)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(words) >= 2 && words[0] == module && strings.HasPrefix(words[1], "v") {
			return words[1], nil
		}
	}
	return "", fmt.Errorf("%q does not require %q", modFile, module)
}

// goBuild makes a static program: CGO off, so that it runs in any image.
func goBuild(ctx context.Context, dir, output, pkg string, flags ...string) error {
	args := append([]string{"build", "-o", output}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %q: %w\n%s", pkg, err, out)
	}
	return nil
}
