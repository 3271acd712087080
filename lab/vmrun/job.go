package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A job is what the guest is asked to do. The host writes it as JSON to a file
// which the guest reads through its view of the host's root.
type job struct {
	Programs []program `json:"programs"`
	Env      []string  `json:"env"`
	Shares   []share   `json:"shares"`
	Modules  []string  `json:"modules"`
	// Network says that there is a device to reach ports of the host.
	Network bool      `json:"network,omitempty"`
	Shell   bool      `json:"shell,omitempty"`
	Rows    uint16    `json:"rows,omitempty"`
	Columns uint16    `json:"columns,omitempty"`
	Batch   bool      `json:"batch,omitempty"`
	Verbose bool      `json:"verbose,omitempty"`
	Started time.Time `json:"started"`
}

type program struct {
	Dir  string   `json:"dir"`
	Path string   `json:"path"`
	Args []string `json:"args"` // without the program's own name
}

// A share is a directory of the host that the guest mounts read-write at the
// same path. Private shares belong to this run alone (go test's work
// directory) and may be cached by the guest; others may change under it.
type share struct {
	Tag     string `json:"tag"`
	Path    string `json:"path"`
	Private bool   `json:"private,omitempty"`
}

// volatile directories of the host are hidden by a tmpfs in the guest.
var volatile = []string{"/tmp", "/run"}

func newJob(o options, cwd string, environ []string) (*job, error) {
	j := &job{Shell: o.shell, Batch: o.batch != "", Verbose: o.verbose, Started: time.Now(), Network: len(o.ports) > 0}
	j.Env = guestEnv(environ, o.env, o.require)
	for m := range strings.SplitSeq(o.modules, ",") {
		if m = strings.TrimSpace(m); m != "" {
			j.Modules = append(j.Modules, m)
		}
	}
	switch {
	case o.batch != "":
		programs, err := readBatch(o.batch, cwd)
		if err != nil {
			return nil, err
		}
		j.Programs = programs
	case len(o.args) > 0:
		j.Programs = []program{{Dir: cwd, Path: o.args[0], Args: o.args[1:]}}
	default:
		j.Programs = []program{{Dir: cwd, Path: "/bin/bash", Args: []string{"-i"}}}
	}
	for i := range j.Programs {
		p := &j.Programs[i]
		path, err := lookPath(p.Path, p.Dir)
		if err != nil {
			return nil, err
		}
		p.Path = path
	}
	shares, err := sharesFor(j.Programs, o.rw, environ)
	j.Shares = shares
	return j, err
}

// lookPath resolves a program as a shell in dir would.
func lookPath(name, dir string) (string, error) {
	if !strings.Contains(name, "/") {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("find program %q: %w", name, err)
		}
		return filepath.Abs(path)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("find program: %w", err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("find program: %q is not executable", name)
	}
	return name, nil
}

func readBatch(name, cwd string) ([]program, error) {
	var r io.Reader = os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read batch: %w", err)
		}
		defer f.Close()
		r = f
	}
	programs, err := parseBatch(r, cwd)
	if err != nil {
		return nil, fmt.Errorf("read batch %q: %w", name, err)
	}
	return programs, nil
}

// parseBatch reads one program per line: directory, program, arguments.
// A relative directory is relative to cwd, a relative program to its directory.
func parseBatch(r io.Reader, cwd string) ([]program, error) {
	var programs []program
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		words, err := splitWords(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(words) == 0 {
			continue
		}
		if len(words) < 2 {
			return nil, fmt.Errorf("line %d: want a directory and a program", n)
		}
		dir := words[0]
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(cwd, dir)
		}
		programs = append(programs, program{Dir: dir, Path: words[1], Args: words[2:]})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(programs) == 0 {
		return nil, errors.New("no programs")
	}
	return programs, nil
}

// splitWords splits a line at blanks. Quotes ' and " keep blanks, there is no
// escape character, and # at the start of a word ends the line.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case c == '#' && !inWord:
			return words, nil
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unclosed quote %c", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// guestEnv selects what the guest inherits.
func guestEnv(environ, extra []string, require bool) []string {
	var env []string
	has := func(name string) bool {
		return slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "EGRET_VM": // tells guest and host apart
		case name == "PATH":
			env = append(env, "PATH="+value+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
		case strings.HasPrefix(name, "EGRET_"), strings.HasPrefix(name, "GO"), strings.HasPrefix(name, "LC_"),
			slices.Contains([]string{"HOME", "USER", "LOGNAME", "LANG", "TERM", "TZ", "CI", "NO_COLOR", "COLORTERM"}, name),
			slices.Contains(extra, name):
			env = append(env, kv)
		}
	}
	for _, kv := range extra {
		if strings.Contains(kv, "=") {
			env = append(env, kv)
		}
	}
	env = append(env, "EGRET_VM=1")
	if require && !has("EGRET_LAB_REQUIRE") {
		env = append(env, "EGRET_LAB_REQUIRE=1")
	}
	return env
}

// sharesFor collects the directories that the guest must be able to write to,
// or could not see otherwise. A directory within another share is left out.
func sharesFor(programs []program, rw, environ []string) ([]share, error) {
	private := map[string]bool{}
	add := func(dir string, isPrivate bool) error {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			return fmt.Errorf("share %q: not a directory", dir)
		}
		if dir == "/" || slices.Contains(volatile, dir) {
			return fmt.Errorf("share %q: it would hide the guest's own", dir)
		}
		was, known := private[dir]
		private[dir] = isPrivate && (was || !known)
		return nil
	}
	var errs []error
	for _, dir := range rw {
		errs = append(errs, add(dir, false))
	}
	for _, kv := range environ {
		if dir, ok := strings.CutPrefix(kv, "GOCOVERDIR="); ok && dir != "" {
			errs = append(errs, add(dir, false))
		}
	}
	for _, p := range programs {
		if root := projectRoot(p.Dir); root != "" {
			errs = append(errs, add(root, false))
		} else if hidden(p.Dir) {
			errs = append(errs, add(p.Dir, false))
		}
		if dir := filepath.Dir(p.Path); hidden(dir) && !slices.Contains(volatile, dir) {
			errs = append(errs, add(dir, true))
		}
	}
	return nested(private), errors.Join(errs...)
}

// nested drops directories that lie within another one and numbers the rest.
func nested(private map[string]bool) []share {
	var dirs []string
	for dir := range private {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	var shares []share
	for _, dir := range dirs {
		inside := slices.ContainsFunc(shares, func(s share) bool { return within(dir, s.Path) })
		if !inside {
			shares = append(shares, share{Tag: fmt.Sprintf("share%d", len(shares)), Path: dir, Private: private[dir]})
		}
	}
	return shares
}

func hidden(dir string) bool {
	return slices.ContainsFunc(volatile, func(v string) bool { return within(dir, v) })
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// projectRoot is the nearest directory upwards with a go.mod, else with a .git.
func projectRoot(dir string) string {
	for _, marker := range []string{"go.mod", ".git"} {
		for d := dir; d != "/" && d != "."; d = filepath.Dir(d) {
			if _, err := os.Stat(filepath.Join(d, marker)); err == nil && !slices.Contains(volatile, d) {
				return d
			}
		}
	}
	return ""
}
