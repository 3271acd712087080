package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	env := map[string]string{"EGRET_VM_MEM": "4G", "EGRET_VM_SMP": "2", "EGRET_VM_TIMEOUT": "3m", "EGRET_VM_ACCEL": "kvm"}
	o, err := parseOptions([]string{"-smp", "3", "-rw", "/a", "-rw", "/b", "prog", "-v"}, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if want := (machine{accel: "kvm", memory: "4G", cpus: 3, timeout: 3 * time.Minute}); o.machine != want {
		t.Errorf("machine %+v, want %+v", o.machine, want)
	}
	if !slices.Equal(o.args, []string{"prog", "-v"}) || !slices.Equal(o.rw, []string{"/a", "/b"}) || o.verbose {
		t.Errorf("options %+v", o)
	}
	o, err = parseOptions([]string{"prog"}, func(string) string { return "" })
	if want := (machine{accel: "tcg", memory: "2G", cpus: 1, timeout: 15 * time.Minute}); err != nil || o.machine != want {
		t.Errorf("defaults %+v, %v, want %+v", o.machine, err, want)
	}
	o, err = parseOptions([]string{"-icount", "prog"}, func(string) string { return "" })
	if args := strings.Join(qemuArgs(o, new(job), images{}, "", "", ""), " "); err != nil || !o.machine.icount || !strings.Contains(args, "-icount shift=0") {
		t.Errorf("-icount: %v, %s", err, args)
	}
	for _, bad := range []struct {
		args []string
		env  string
	}{{args: nil}, {args: []string{"-icount", "-smp", "2", "prog"}}, {args: []string{"-icount", "-accel", "kvm", "prog"}}, {args: []string{"-batch", "f", "prog"}}, {args: []string{"-batch", "f", "-shell"}}, {[]string{"prog"}, "x"}} {
		_, err := parseOptions(append([]string{}, bad.args...), func(string) string { return bad.env })
		if err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                       nil,
		"  a\tb  ":               {"a", "b"},
		`a 'b c' "d 'e" f''g`:    {"a", "b c", "d 'e", "fg"},
		`'' x`:                   {"", "x"},
		"a # comment":            {"a"},
		"a#b":                    {"a#b"},
		`-run "TestA|TestB" 'x'`: {"-run", "TestA|TestB", "x"},
	} {
		if got, err := splitWords(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q = %q, %v, want %q", line, got, err, want)
		}
	}
	if _, err := splitWords("a 'b"); err == nil {
		t.Error("an unclosed quote is accepted")
	}
}

func FuzzSplitWords(f *testing.F) {
	f.Add(`a 'b c' "d" # e`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err != nil || strings.ContainsAny(line, `'"#`+"\n\r\v\f\u0085\u00a0") || !isPlain(line) {
			return
		}
		if want := strings.Fields(line); !slices.Equal(words, want) {
			t.Errorf("%q = %q, want %q", line, words, want)
		}
	})
}

func isPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 126 })
}

func TestParseBatch(t *testing.T) {
	got, err := parseBatch(strings.NewReader("# tests\n./vrf /tmp/vrf.test -test.v\n\n/abs prog\n"), "/work")
	want := []program{{Dir: "/work/vrf", Path: "/tmp/vrf.test", Args: []string{"-test.v"}}, {Dir: "/abs", Path: "prog", Args: []string{}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("programs %+v, %v, want %+v", got, err, want)
	}
	for text, say := range map[string]string{"": "no programs", "\nx": "line 2", "x 'y": "line 1"} {
		if _, err := parseBatch(strings.NewReader(text), "/"); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v, want %q", text, err, say)
		}
	}
}

func TestGuestEnv(t *testing.T) {
	environ := []string{"PATH=/bin", "HOME=/root", "EGRET_X=1", "GOCOVERDIR=/c", "SECRET=s", "EGRET_VM=always", "EXTRA=e", "TMPDIR=/x"}
	got := guestEnv(environ, []string{"EXTRA", "NEW=n"}, true)
	want := []string{"PATH=/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "EGRET_X=1", "GOCOVERDIR=/c",
		"EXTRA=e", "NEW=n", "EGRET_VM=1", "EGRET_LAB_REQUIRE=1"}
	if !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
	for _, env := range [][]string{guestEnv(nil, nil, false), guestEnv([]string{"EGRET_LAB_REQUIRE=0"}, nil, true)} {
		if slices.Contains(env, "EGRET_LAB_REQUIRE=1") {
			t.Errorf("%q requires features", env)
		}
	}
}

func TestShares(t *testing.T) {
	root := t.TempDir() // in a volatile directory
	for _, dir := range []string{"module/pkg", "build", "cover", "repository/.git", "repository/dir"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "module/go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(root, name) }
	programs := []program{
		{Dir: path("module/pkg"), Path: path("build/pkg.test")},
		{Dir: path("repository/dir"), Path: "/bin/true"},
		{Dir: "/", Path: "/bin/true"},
	}
	got, err := sharesFor(programs, []string{path("module")}, []string{"GOCOVERDIR=" + path("cover")})
	want := []share{
		{Tag: "share0", Path: path("build"), Private: true},
		{Tag: "share1", Path: path("cover")},
		{Tag: "share2", Path: path("module")},
		{Tag: "share3", Path: path("repository")},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("shares %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"/", "/tmp", path("module/go.mod"), path("nothing")} {
		if _, err := sharesFor(nil, []string{bad}, nil); err == nil {
			t.Errorf("%q may be shared", bad)
		}
	}
}

func TestModuleOrder(t *testing.T) {
	x, err := parseModulesDep(strings.NewReader("kernel/a-b.ko.xz: kernel/c.ko kernel/d.ko\nkernel/c.ko: kernel/d.ko\nkernel/d.ko:\n"))
	if err != nil {
		t.Fatal(err)
	}
	x.builtin["e"] = true
	got, err := x.loadOrder([]string{"c", "e", "a_b"})
	if want := []string{"kernel/d.ko", "kernel/c.ko", "kernel/a-b.ko.xz"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("order %q, %v, want %q", got, err, want)
	}
	if _, err := x.loadOrder([]string{"z"}); err == nil {
		t.Error("an unknown module is found")
	}
}

func TestCompareVersions(t *testing.T) {
	names := []string{"vmlinuz-6.1.0-9-amd64", "vmlinuz-6.10.0-1-amd64", "vmlinuz-6.1.0-56-amd64", "vmlinuz-5.10.0-8-amd64"}
	slices.SortFunc(names, compareVersions)
	want := []string{"vmlinuz-5.10.0-8-amd64", "vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-56-amd64", "vmlinuz-6.10.0-1-amd64"}
	if !slices.Equal(names, want) {
		t.Errorf("order %q", names)
	}
}

func TestMissingKernelSaysWhatToInstall(t *testing.T) {
	_, err := findKernel(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("error %v", err)
	}
}

func FuzzUnpackKernel(f *testing.F) {
	image := make([]byte, 4096)
	copy(image[0x202:], "HdrS")
	image[0x1f1] = 1
	image[0x24c] = 100
	f.Add(image)
	copy(image[1024:], "\x1f\x8b")
	f.Add(image)
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) > 1030 && (bytes.HasPrefix(b[1024:], []byte("\xfd7zXZ")) || bytes.HasPrefix(b[1024:], []byte("\x28\xb5"))) {
			return // no processes while fuzzing
		}
		_, _ = unpackKernel(b)
	})
}

func TestFrames(t *testing.T) {
	var line bytes.Buffer
	w := &frameWriter{w: &line}
	long := strings.Repeat("x", maxFrame+100)
	if _, err := io.WriteString(w.stream(frameStdout), long); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w.stream(frameStderr), "complaint"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.exit(0, 3), w.exit(1, -1)); err != nil {
		t.Fatal(err)
	}
	unfinished := bytes.Clone(line.Bytes())
	if err := w.write(frameDone, nil); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	got, err := readFrames(&line, &stdout, &stderr)
	if want := (result{codes: map[int]int{0: 3, 1: -1}, done: true}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("result %+v, %v, want %+v", got, err, want)
	}
	if stdout.String() != long || stderr.String() != "complaint" {
		t.Errorf("stdout of %d bytes, stderr %q", stdout.Len(), stderr.String())
	}
	if got, err := readFrames(bytes.NewReader(unfinished[:len(unfinished)-3]), io.Discard, io.Discard); err != nil || got.done || len(got.codes) != 1 {
		t.Errorf("a guest that died: %+v, %v", got, err)
	}
}

func FuzzReadFrames(f *testing.F) {
	f.Add([]byte("o\x00\x00\x00\x02hid\x00\x00\x00\x00"))
	f.Add([]byte("x\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var stdout bytes.Buffer
		if _, err := readFrames(bytes.NewReader(b), &stdout, io.Discard); err == nil && stdout.Len() > len(b) {
			t.Errorf("%d bytes out of %d", stdout.Len(), len(b))
		}
	})
}

func TestExitCodes(t *testing.T) {
	two := make([]program, 2)
	for _, c := range []struct {
		j    job
		res  result
		code int
		ok   bool
	}{
		{job{Programs: two[:1]}, result{map[int]int{0: 7}, true}, 7, true},
		{job{Programs: two[:1]}, result{map[int]int{0: 0}, false}, 0, false},
		{job{Programs: two, Batch: true}, result{map[int]int{0: 0, 1: 0}, true}, 0, true},
		{job{Programs: two, Batch: true}, result{map[int]int{0: 0, 1: 9}, true}, exitFailed, true},
		{job{Programs: two, Batch: true}, result{map[int]int{0: 0}, true}, 0, false},
	} {
		if code, ok := exitCode(&c.j, c.res); code != c.code || ok != c.ok {
			t.Errorf("%+v: %d, %t, want %d, %t", c.res, code, ok, c.code, c.ok)
		}
	}
}

func TestPruneCacheKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"k-a", "k-b", "k-c", "other"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := pruneCache(dir, "k-", 2); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if want := []string{filepath.Join(dir, "k-b"), filepath.Join(dir, "k-c"), filepath.Join(dir, "other")}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left %q, %v", left, err)
	}
}
