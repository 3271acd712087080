package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/lab/traffic"
)

// Options are what all scripts of a run have in common.
type Options struct {
	// Egret is the program that egret-run starts.
	Egret string
	// Deadline is how long `eventually` waits by default; default one minute.
	Deadline time.Duration
}

// Run runs every script that the pattern matches as a subtest, one after the
// other: each may need the whole machine. It is an error if there is none.
func Run(t *testing.T, pattern string, opts Options) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no scenario matches %q", pattern)
	}
	if opts.Deadline == 0 {
		opts.Deadline = time.Minute
	}
	for _, file := range files {
		// A script is a parallel test, for which its parent waits: the next is not started before.
		t.Run(strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), func(t *testing.T) {
			testscript.Run(t, params(t, file, opts))
		})
	}
}

func params(t *testing.T, file string, opts Options) testscript.Params {
	s := &script{tb: t, opts: opts, routers: map[string]*lab.Router{}, sniffers: map[string]*traffic.Sniffer{}, running: map[string]*running{}}
	p := testscript.Params{
		Files: []string{file},
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"eventually": s.eventually},
		Setup: func(env *testscript.Env) error {
			s.script = env.T()
			// Debian keeps ip, nft and the daemons in sbin.
			env.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
			return nil
		},
	}
	for name, do := range s.commands() {
		p.Cmds[name] = func(ts *testscript.TestScript, neg bool, args []string) { s.call(ts, neg, name, do, args) }
	}
	return p
}

// command does something and returns what it prints.
type command func(ctx context.Context, args []string) (string, error)

// A script is the state of one scenario.
type script struct {
	tb     testing.TB
	script testscript.T
	opts   Options
	mkAbs  func(string) string // resolves the names of the script's files

	lab      *lab.Lab // made by the first command that needs it
	overlap  *lab.Overlap
	routers  map[string]*lab.Router
	egret    *lab.Proc
	sniffers map[string]*traffic.Sniffer
	running  map[string]*running
}

func (s *script) commands() map[string]command {
	all := map[string]command{}
	for _, group := range []map[string]command{s.setupCommands(), s.routerCommands(), s.egretCommands(), s.trafficCommands()} {
		for name, do := range group {
			all[name] = do
		}
	}
	return all
}

// commandTimeout bounds what one command waits for, unless it says otherwise.
const commandTimeout = 2 * time.Minute

func (s *script) call(ts *testscript.TestScript, neg bool, name string, do command, args []string) {
	s.mkAbs = ts.MkAbs
	ctx, cancel := context.WithTimeout(s.tb.Context(), commandTimeout)
	defer cancel()
	out, err := do(ctx, args)
	fmt.Fprint(ts.Stdout(), out)
	var wrong usageError
	switch {
	case errors.As(err, &wrong):
		ts.Fatalf("usage: %s %s", name, wrong)
	case neg && err == nil:
		ts.Fatalf("%s succeeded", name)
	case neg:
		ts.Logf("[%v]", err)
	case err != nil:
		ts.Fatalf("%s: %v", name, err)
	}
}

// usageError is a mistake of the script's author, which ! does not accept.
type usageError string

func (e usageError) Error() string { return string(e) }

// want checks the number of arguments.
func want(args []string, least, most int, usage string) error {
	if len(args) < least || most >= 0 && len(args) > most {
		return usageError(usage)
	}
	return nil
}

// attempt bounds one try of eventually, so that a client which hears nothing is tried again.
const attempt = 5 * time.Second

const eventuallyUsage = "[-for DURATION] [-match REGEXP] [!] COMMAND ARGS..."

func (s *script) eventually(ts *testscript.TestScript, neg bool, args []string) {
	s.mkAbs = ts.MkAbs
	deadline, match, wantFailure := s.opts.Deadline, regexp.MustCompile(""), false
	var err error
	for err == nil && len(args) > 1 && (args[0] == "!" || strings.HasPrefix(args[0], "-")) {
		switch args[0] {
		case "!":
			wantFailure, args = true, args[1:]
			continue
		case "-for":
			deadline, err = time.ParseDuration(args[1])
		case "-match":
			match, err = regexp.Compile("(?m)" + args[1])
		default:
			err = fmt.Errorf("unknown flag %s", args[0])
		}
		args = args[2:]
	}
	if err != nil || neg || len(args) == 0 || s.commands()[args[0]] == nil {
		ts.Fatalf("usage: eventually %s (%v)", eventuallyUsage, err)
	}
	do, out := s.commands()[args[0]], ""
	err = lab.Poll(s.tb.Context(), deadline, strings.Join(args, " "), func() error {
		ctx, cancel := context.WithTimeout(s.tb.Context(), attempt)
		defer cancel()
		var err error
		out, err = do(ctx, args[1:])
		return outcome(out, err, wantFailure, match)
	})
	fmt.Fprint(ts.Stdout(), out)
	ts.Check(err)
}

// outcome is nil if one attempt of eventually was a success.
func outcome(out string, err error, wantFailure bool, match *regexp.Regexp) error {
	if wrong := usageError(""); errors.As(err, &wrong) {
		return lab.Final(fmt.Errorf("usage: %w", err))
	}
	if wantFailure {
		if err == nil {
			return fmt.Errorf("it succeeds: %s", strings.TrimSpace(out))
		}
		return nil
	}
	if err == nil && !match.MatchString(out) {
		return fmt.Errorf("it prints %q", out)
	}
	return err
}

// network is the script's lab.
func (s *script) network() *lab.Lab {
	if s.lab == nil {
		s.lab = lab.New(s.tb)
	}
	return s.lab
}

// topology is the overlap topology, which must have been built.
func (s *script) topology() (*lab.Overlap, error) {
	if s.overlap == nil {
		return nil, usageError("after the command overlap only")
	}
	return s.overlap, nil
}

// namespace finds a namespace of the script by its name.
func (s *script) namespace(name string) (*lab.NS, error) {
	for _, ns := range s.network().Namespaces() {
		if ns.Name == name {
			return ns, nil
		}
	}
	return nil, usageError(fmt.Sprintf("no namespace %q", name))
}

func parsePrefixes(words []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, word := range words {
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, usageError(err.Error())
		}
		list = append(list, p)
	}
	return list, nil
}
