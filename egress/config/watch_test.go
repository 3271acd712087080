package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
)

// calls records what a watch tells, one line each.
type calls struct {
	mu    sync.Mutex
	lines []string
}

func (c *calls) onSpec(s *egress.Spec) { c.add("spec " + s.Settings.Resync.String()) }
func (c *calls) onError(err error)     { c.add("error " + err.Error()) }

func (c *calls) add(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, line)
}

func (c *calls) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines...)
}

// want waits until the calls are exactly these, an error by a part of it. The
// real clock only bounds a failure.
func (c *calls) want(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		got := c.all()
		if len(got) >= len(want) || time.Now().After(deadline) {
			compareCalls(t, got, want)
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

func compareCalls(t *testing.T, got, want []string) {
	t.Helper()
	same := len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = got[i] == want[i] || strings.HasPrefix(want[i], "error ") && strings.HasPrefix(got[i], "error ") &&
			strings.Contains(got[i], strings.TrimPrefix(want[i], "error "))
	}
	if !same {
		t.Fatalf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// watching starts a real watch on a file that was loaded, and ends it with the
// test.
func watching(t *testing.T, file string) (*File, *calls) {
	t.Helper()
	log := &messages{}
	f := NewFile(file, slog.New(slog.NewTextHandler(log, nil)))
	if _, err := f.Load(); err != nil {
		t.Fatal(err)
	}
	c := &calls{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Watch(ctx, c.onSpec, c.onError) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("watch ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("watch did not end with its context")
		}
	})
	// From here on it is an event that tells of a change, not the look at the start.
	f.Reload()
	for deadline := time.Now().Add(30 * time.Second); !log.contain("unchanged"); {
		if time.Now().After(deadline) {
			t.Fatal("the watch did not start")
		}
		<-time.After(time.Millisecond)
	}
	return f, c
}

// messages is a log.
type messages struct {
	mu   sync.Mutex
	text []byte
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text = append(m.text, p...)
	return len(p), nil
}

func (m *messages) contain(s string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Contains(m.text, []byte(s))
}

func resync(n int) string { return fmt.Sprintf("resync: %ds\n", n) }

// replace writes a file beside it and renames it over, as editors do.
func replace(t *testing.T, file, content string) {
	t.Helper()
	write(t, file+".new", content)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// overwrite changes a file in place in one step, without emptying it first.
func overwrite(t *testing.T, file, content string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func TestWatchWritesAndRenames(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "egret.yaml")
	write(t, file, resync(1))
	_, c := watching(t, file)
	replace(t, file, resync(2))
	c.want(t, "spec 2s")
	overwrite(t, file, resync(3))
	c.want(t, "spec 2s", "spec 3s")
	// The same content again: nothing is told of it.
	overwrite(t, file, resync(3))
	write(t, filepath.Join(filepath.Dir(file), "other.yaml"), "not: ours\n")
	replace(t, file, resync(4))
	c.want(t, "spec 2s", "spec 3s", "spec 4s")
}

func TestWatchKeepsWhatRuns(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "egret.yaml")
	write(t, file, resync(1))
	f, c := watching(t, file)
	replace(t, file, "resync: never\n")
	c.want(t, `error egret.yaml:1: resync: "never" is not a duration`)
	// The same bad file is told once, unless asked for.
	f.Reload()
	c.want(t, "error never", "error never")
	replace(t, file, "")
	c.want(t, "error never", "error never", "error the file is empty")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.want(t, "error never", "error never", "error empty", "error no such file")
	// What ran before is told again: it ends the state of error.
	replace(t, file, resync(1))
	c.want(t, "error never", "error never", "error empty", "error no such file", "spec 1s")
}

// TestWatchConfigMap changes the file as the kubelet does: the file is a link
// through a link to a directory, which is switched.
func TestWatchConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "egret.yaml")
	version := func(n int) {
		data := filepath.Join(dir, fmt.Sprintf("..version-%d", n))
		if err := os.Mkdir(data, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(data, "egret.yaml"), resync(n))
		link(t, filepath.Base(data), filepath.Join(dir, "..data"))
		if n > 1 {
			if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..version-%d", n-1))); err != nil {
				t.Fatal(err)
			}
		}
	}
	version(1)
	link(t, "..data/egret.yaml", file)
	_, c := watching(t, file)
	want := []string{}
	for n := 2; n <= 4; n++ {
		version(n)
		want = append(want, fmt.Sprintf("spec %ds", n))
		c.want(t, want...)
	}
}

// TestWatchLinkElsewhere changes the target of a link, in another directory.
func TestWatchLinkElsewhere(t *testing.T) {
	t.Parallel()
	target, file := filepath.Join(t.TempDir(), "target.yaml"), filepath.Join(t.TempDir(), "egret.yaml")
	write(t, target, resync(1))
	link(t, target, file)
	_, c := watching(t, file)
	replace(t, target, resync(2))
	c.want(t, "spec 2s")
	other := filepath.Join(t.TempDir(), "other.yaml")
	write(t, other, resync(3))
	link(t, other, file)
	c.want(t, "spec 2s", "spec 3s")
	replace(t, other, resync(4))
	c.want(t, "spec 2s", "spec 3s", "spec 4s")
}

// TestWatchDirectoryReplaced moves the whole directory away, where no event of
// the new one can come: the poll finds it.
func TestWatchDirectoryReplaced(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir, file := filepath.Join(root, "etc"), filepath.Join(root, "etc", "egret.yaml")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, file, resync(1))
	next := filepath.Join(root, "next")
	if err := os.Mkdir(next, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(next, "egret.yaml"), resync(2))
	link(t, dir, filepath.Join(root, "link"))
	_, c := watching(t, filepath.Join(root, "link", "egret.yaml"))
	link(t, next, filepath.Join(root, "link"))
	c.want(t, "spec 2s")
	replace(t, filepath.Join(next, "egret.yaml"), resync(3))
	c.want(t, "spec 2s", "spec 3s")
}

func TestReloadDoesNotWait(t *testing.T) {
	f := NewFile("nowhere", slog.New(slog.DiscardHandler))
	for range 3 {
		f.Reload() // nobody listens
	}
}

func TestDirectories(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link(t, "../b/y", filepath.Join(root, "a", "x"))
	link(t, filepath.Join(root, "c", "z"), filepath.Join(root, "b", "y"))
	link(t, "loop", filepath.Join(root, "a", "loop"))
	for path, want := range map[string]string{"a/x": "a b c", "a/loop": "a", "a/none": "a", "none/x": ""} {
		var got []string
		for _, dir := range directories(filepath.Join(root, path)) {
			got = append(got, filepath.Base(dir))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s leads through %v, want %s", path, got, want)
		}
	}
}

func TestSameState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if !sameState(stat(file), nil) {
		t.Error("a file that is not there has a state")
	}
	write(t, file, "a")
	before := stat(file)
	if !sameState(before, stat(file)) || sameState(before, nil) || sameState(nil, before) {
		t.Error("an unchanged file")
	}
	for what, change := range map[string]func() error{
		"size": func() error { return os.WriteFile(file, []byte("ab"), 0o644) },
		"time": func() error { return os.Chtimes(file, time.Time{}, before.ModTime().Add(time.Second)) },
		"inode": func() error {
			return errors.Join(os.WriteFile(file+"2", []byte("a"), 0o644), os.Rename(file+"2", file), os.Chtimes(file, time.Time{}, before.ModTime()))
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if sameState(before, stat(file)) {
			t.Errorf("another %s is not noticed", what)
		}
		before = stat(file)
	}
}
