package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const bfdLogEnv = "EGRET_BFD_LOG_TEST"

// TestBFDLog: the log of a process is bounded, goes on where an earlier process
// left it, and has what the process says when it crashes.
func TestBFDLog(t *testing.T) {
	if path := os.Getenv(bfdLogEnv); path != "" {
		writeAndCrash(path)
	}
	path := filepath.Join(t.TempDir(), "run", "bfd.log")
	for range 2 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestBFDLog$")
		cmd.Env = append(os.Environ(), bfdLogEnv+"="+path)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr // what testing says of the failure is on the other one
		if err := cmd.Run(); err == nil || stderr.Len() > 0 {
			t.Fatalf("it did not crash in silence: %v\n%s", err, stderr.String())
		}
		now, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(path + ".1")
		if err != nil {
			t.Fatal(err)
		}
		if text := string(now); !strings.Contains(text, "panic: the end") || !strings.Contains(text, "line 99\n") || !strings.HasPrefix(text, "line ") {
			t.Errorf("the log:\n%s", text)
		}
		if len(before) > 500 || len(before) < 400 || !strings.HasSuffix(string(before), "\n") {
			t.Errorf("the log before it has %d bytes:\n%s", len(before), before)
		}
	}
}

func writeAndCrash(path string) {
	l, err := openBoundedLog(path, 500)
	if err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	for i := range 100 {
		fmt.Fprintf(l, "line %d\n", i)
	}
	panic("the end")
}
