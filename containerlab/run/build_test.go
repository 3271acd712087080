package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRequiredVersion(t *testing.T) {
	got, err := requiredVersion("../tools/go.mod", "github.com/srl-labs/containerlab")
	if err != nil || got != "v0.59.0" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := requiredVersion("../tools/go.mod", "example.com/absent"); err == nil {
		t.Error("no error for a module that is not required")
	}
}

func TestContentKey(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(options ...string) string {
		t.Helper()
		k, err := contentKey(options, a, b)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	write(a, "one")
	write(b, "two")
	first := key("x", "y")
	if key("x", "y") != first {
		t.Error("equal inputs, different keys")
	}
	if key("xy") == first {
		t.Error("other options, equal keys")
	}
	write(a, "onet")
	write(b, "wo")
	if key("x", "y") == first {
		t.Error("bytes that moved from one file to the next, equal keys")
	}
	if _, err := contentKey(nil, filepath.Join(dir, "absent")); err == nil {
		t.Error("no error for an absent file")
	}
}

func TestOnce(t *testing.T) {
	cache := t.TempDir()
	made := 0
	create := func(path string) error {
		made++
		return os.WriteFile(path, []byte("made"), 0o600)
	}
	failed := errors.New("no")
	if _, err := once(cache, "thing", func(string) error { return failed }); !errors.Is(err, failed) {
		t.Fatalf("error %v, want %v", err, failed)
	}
	for range 2 {
		path, err := once(cache, "thing", create)
		if err != nil || path != filepath.Join(cache, "thing") {
			t.Fatalf("got %q, %v", path, err)
		}
	}
	if made != 1 {
		t.Errorf("made %d times, want once", made)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "work-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestWorkDirClearsOldOnes(t *testing.T) {
	cache := t.TempDir()
	old, recent := filepath.Join(cache, "work-old"), filepath.Join(cache, "work-recent")
	for _, dir := range []string{old, recent} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	yesterday := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	dir, remove, err := workDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{old: false, recent: true, dir: false} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%q exists: %v, want %v", name, err == nil, want)
		}
	}
}
