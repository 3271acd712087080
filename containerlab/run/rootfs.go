package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A rootfs is the file tree of an image, put together from this machine's
// files. The zero value is not usable: see newRootfs.
type rootfs struct {
	entries map[string]entry // by path without the leading slash
}

// entry is a file (from source, or content), a symbolic link, or a directory.
type entry struct {
	kind    byte // tar.TypeReg, tar.TypeSymlink, tar.TypeDir
	mode    int64
	owner   int // uid and gid
	source  string
	content string
	target  string
}

// newRootfs is a tree with the usual directories, /usr merged.
func newRootfs() *rootfs {
	fs := &rootfs{entries: map[string]entry{}}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		fs.entries["usr/"+link] = entry{kind: tar.TypeDir, mode: 0o755}
		fs.entries[link] = entry{kind: tar.TypeSymlink, mode: 0o777, target: "usr/" + link}
	}
	for _, dir := range []string{"dev", "etc", "proc", "root", "run", "srv", "sys", "var"} {
		fs.addDir(dir, 0)
	}
	fs.entries["var/run"] = entry{kind: tar.TypeSymlink, mode: 0o777, target: "../run"}
	for _, dir := range []string{"tmp", "var/tmp"} {
		fs.entries[dir] = entry{kind: tar.TypeDir, mode: 0o1777}
	}
	fs.addContent("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nfrr:x:100:100::/run/frr:/bin/false\n")
	fs.addContent("etc/group", 0o644, "root:x:0:\nfrr:x:100:\nfrrvty:x:101:frr\n")
	fs.addContent("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\n")
	return fs
}

func (r *rootfs) addDir(name string, owner int) {
	r.entries[name] = entry{kind: tar.TypeDir, mode: 0o755, owner: owner}
}

func (r *rootfs) addContent(name string, mode int64, content string) {
	r.entries[name] = entry{kind: tar.TypeReg, mode: mode, content: content}
}

// addFile puts this machine's file source at name, whose directory may be one
// of the merged ones.
func (r *rootfs) addFile(name, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("add %q to image: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("add %q to image: %q is not a regular file", name, source)
	}
	r.entries[merged(name)] = entry{kind: tar.TypeReg, mode: int64(info.Mode().Perm()), source: source}
	return nil
}

// merged is where a path of a system with split /usr lies in a merged one.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean(name), "/")
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains([]string{"bin", "sbin", "lib", "lib64"}, first) {
		return "usr/" + name
	}
	return name
}

// addProgram adds a program of this machine, found in PATH or by its absolute
// path, at its own path, with every shared library it needs.
func (r *rootfs) addProgram(ctx context.Context, program string) error {
	found, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("add program to image: %w", err)
	}
	return r.addWithLibraries(ctx, found)
}

// addPlugin adds a shared object that a program loads by itself: the first file
// of this machine that one of the patterns matches.
func (r *rootfs) addPlugin(ctx context.Context, patterns ...string) error {
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil {
			return err
		}
		if len(files) > 0 {
			return r.addWithLibraries(ctx, files[0])
		}
	}
	return fmt.Errorf("add plugin to image: no file matches %q", patterns)
}

func (r *rootfs) addWithLibraries(ctx context.Context, file string) error {
	libraries, err := sharedLibraries(ctx, file)
	if err != nil {
		return err
	}
	errs := []error{r.addFile(file, file)}
	for _, lib := range libraries {
		errs = append(errs, r.addFile(lib, lib))
	}
	return errors.Join(errs...)
}

// sharedLibraries asks the loader for what a program needs, itself included.
// The list is empty for a static program.
func sharedLibraries(ctx context.Context, program string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "ldd", program)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		return nil, fmt.Errorf("find libraries of %q: %w: %s", program, err, out)
	}
	return parseLibraries(string(out))
}

// parseLibraries reads ldd's output: "name => path (address)" or "path (address)".
func parseLibraries(out string) ([]string, error) {
	var paths []string
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case len(words) >= 3 && words[1] == "=>" && strings.HasPrefix(words[2], "/"):
			paths = append(paths, words[2])
		case len(words) >= 3 && words[1] == "=>":
			return nil, fmt.Errorf("library %q is missing on this machine", words[0])
		case len(words) == 2 && strings.HasPrefix(words[0], "/"):
			paths = append(paths, words[0])
		}
	}
	return paths, nil
}

// addBusybox adds busybox, and every applet of it whose name is still free.
func (r *rootfs) addBusybox(ctx context.Context) error {
	if err := r.addProgram(ctx, "busybox"); err != nil {
		return err
	}
	program, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, program, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("list busybox's applets: %w", err)
	}
	taken := map[string]bool{}
	for name := range r.entries {
		taken[path.Base(name)] = true
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if !taken[path.Base(applet)] {
			r.entries[merged(applet)] = entry{kind: tar.TypeSymlink, mode: 0o777, target: program}
			taken[path.Base(applet)] = true
		}
	}
	for _, needed := range []string{"sh", "ip", "cat", "kill", "sleep"} {
		if !taken[needed] {
			return fmt.Errorf("%q has no applet %q: install the package busybox-static", program, needed)
		}
	}
	return nil
}

// writeTar writes the tree, in an order and with times that depend on nothing
// but its content.
func (r *rootfs) writeTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	r.addParents()
	for _, name := range slices.Sorted(maps.Keys(r.entries)) {
		if err := r.entries[name].write(tw, name); err != nil {
			return fmt.Errorf("write %q: %w", name, err)
		}
	}
	return tw.Close()
}

// addParents adds the directories that are only implied so far.
func (r *rootfs) addParents() {
	for _, name := range slices.Collect(maps.Keys(r.entries)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := r.entries[dir]; !ok {
				r.addDir(dir, 0)
			}
		}
	}
}

func (e entry) write(tw *tar.Writer, name string) error {
	header := &tar.Header{Typeflag: e.kind, Name: name, Mode: e.mode, Uid: e.owner, Gid: e.owner,
		Linkname: e.target, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if e.kind == tar.TypeDir {
		header.Name += "/"
	}
	if e.kind != tar.TypeReg {
		return tw.WriteHeader(header)
	}
	if e.source == "" {
		header.Size = int64(len(e.content))
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.WriteString(tw, e.content)
		return err
	}
	f, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// addTree adds all regular files below a directory of this machine, at their
// own paths. A directory that is absent adds nothing.
func (r *rootfs) addTree(dir string) error {
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return r.addFile(name, name)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
