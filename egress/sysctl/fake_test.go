package sysctl

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// tree is a directory that looks like /proc/sys, with a Store on it.
type tree struct {
	t      *testing.T
	root   string
	record string
	log    bytes.Buffer
}

func newTree(t *testing.T, values map[string]string) *tree {
	t.Helper()
	dir := t.TempDir()
	tr := &tree{t: t, root: filepath.Join(dir, "sys"), record: filepath.Join(dir, "run", "sysctl.json")}
	for k, v := range values {
		tr.put(k, v)
	}
	return tr
}

// open is a new Store, as after a restart.
func (tr *tree) open() *Store {
	return Open(tr.root, tr.record, slog.New(slog.NewTextHandler(&tr.log, nil)))
}

func (tr *tree) path(k string) string {
	tr.t.Helper()
	parsed, err := parseKey(k)
	if err != nil {
		tr.t.Fatalf("parse key %q: %v", k, err)
	}
	return parsed.path(tr.root)
}

func (tr *tree) put(k, v string) {
	tr.t.Helper()
	p := tr.path(k)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(v+"\n"), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) remove(k string) {
	tr.t.Helper()
	if err := os.Remove(tr.path(k)); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) expect(k, want string) {
	tr.t.Helper()
	got, err := readValue(tr.path(k))
	if err != nil {
		tr.t.Errorf("read %q: %v", k, err)
	}
	if got != want {
		tr.t.Errorf("%s = %q, want %q", k, got, want)
	}
}

// originals is the record as it is on the disk, in its order.
func (tr *tree) originals() []entry {
	tr.t.Helper()
	r, err := loadRecord(tr.record)
	if err != nil {
		tr.t.Fatalf("load record: %v", err)
	}
	return r.Values
}

func (tr *tree) noRecord() {
	tr.t.Helper()
	if _, err := os.Lstat(tr.record); !os.IsNotExist(err) {
		tr.t.Errorf("the record still exists (%v)", err)
	}
}
