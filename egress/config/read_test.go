package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/egret-router/egret/egress"
)

var update = flag.Bool("update", false, "write what the tests find into their golden files")

// archives calls test with each txtar file of a directory in testdata.
func archives(t *testing.T, dir string, atLeast int, test func(t *testing.T, a *txtar.Archive)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	if err != nil || len(files) < atLeast {
		t.Fatalf("%d files in %s, %d expected: %v", len(files), dir, atLeast, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Files) != 2 || a.Files[1].Name != "want" {
				t.Fatalf("%s must have a configuration and a file named want", file)
			}
			got := a.Files[1].Data
			test(t, a)
			if *update && !bytes.Equal(got, a.Files[1].Data) {
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// golden compares got with the archive's file want.
func golden(t *testing.T, a *txtar.Archive, got string) {
	t.Helper()
	if *update {
		a.Files[1].Data = []byte(got)
		return
	}
	if diff := cmp.Diff(string(a.Files[1].Data), got); diff != "" {
		t.Errorf("%s: -want +got:\n%s", a.Files[0].Name, diff)
	}
}

func TestBroken(t *testing.T) {
	archives(t, "broken", 60, func(t *testing.T, a *txtar.Archive) {
		spec, err := Read(a.Files[0].Name, a.Files[0].Data)
		if err == nil {
			t.Fatal("it was accepted")
		}
		if spec != nil {
			t.Error("there is a Spec beside the error")
		}
		var refused *Error
		if !errors.As(err, &refused) || len(refused.Problems) == 0 || len(refused.Lines) != len(refused.Problems) {
			t.Fatalf("not an Error with problems: %#v", err)
		}
		golden(t, a, err.Error()+"\n")
	})
}

func TestGood(t *testing.T) {
	archives(t, "good", 6, func(t *testing.T, a *txtar.Archive) {
		spec, err := Read(a.Files[0].Name, a.Files[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, a, dump(t, spec))
	})
}

func dump(t *testing.T, spec *egress.Spec) string {
	t.Helper()
	text, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}
