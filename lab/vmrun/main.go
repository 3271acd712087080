package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Exit codes of our own; all others are the program's.
const (
	exitFailed = 1   // one program of a batch failed
	exitUsage  = 124 // the request could not be started
	exitLost   = 125 // the guest ended without an exit code
)

func main() {
	if os.Getpid() == 1 {
		bootGuest()
		return
	}
	if len(os.Args) == 3 && os.Args[1] == superviseArg {
		superviseGuest(os.Args[2])
		return
	}
	if len(os.Args) == 3 && os.Args[1] == pipeArg {
		if err := pipe(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "vmrun:", err)
			os.Exit(1)
		}
		return
	}
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmrun:", err)
	}
	os.Exit(code)
}

// options are the flags, with their defaults from the environment.
type options struct {
	machine machine
	batch   string
	shell   bool
	require bool
	rw      stringList
	env     stringList
	modules string
	// ports are those of this machine's loopback that the guest may reach.
	ports   portList
	verbose bool
	args    []string
}

// machine describes the hardware of the guest.
type machine struct {
	accel   string
	memory  string
	cpus    int
	icount  bool // virtual time is the count of instructions, 1 ns each
	timeout time.Duration
}

type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, ",") }
func (l *stringList) Set(s string) error { *l = append(*l, s); return nil }

func parseOptions(args []string, getenv func(string) string) (options, error) {
	var o options
	fs := flag.NewFlagSet("vmrun", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: vmrun [flags] program args... | vmrun [flags] -batch FILE | vmrun [flags] -shell [program args...]")
		fs.PrintDefaults()
	}
	cpus, err := strconv.Atoi(or(getenv("EGRET_VM_SMP"), "1"))
	if err != nil || cpus < 1 {
		return o, fmt.Errorf("EGRET_VM_SMP %q is not a number of processors", getenv("EGRET_VM_SMP"))
	}
	timeout, err := time.ParseDuration(or(getenv("EGRET_VM_TIMEOUT"), "15m"))
	if err != nil {
		return o, fmt.Errorf("EGRET_VM_TIMEOUT %q is not a duration", getenv("EGRET_VM_TIMEOUT"))
	}
	fs.StringVar(&o.machine.accel, "accel", or(getenv("EGRET_VM_ACCEL"), "tcg"), "QEMU accelerator, tcg or kvm (EGRET_VM_ACCEL)")
	fs.StringVar(&o.machine.memory, "mem", or(getenv("EGRET_VM_MEM"), "2G"), "guest memory (EGRET_VM_MEM)")
	fs.IntVar(&o.machine.cpus, "smp", cpus, "guest processors (EGRET_VM_SMP)")
	fs.BoolVar(&o.machine.icount, "icount", getenv("EGRET_VM_ICOUNT") == "1",
		"while the processor is busy, let the guest's clock count instructions, 1 ns each, so that times repeat (EGRET_VM_ICOUNT=1)")
	fs.DurationVar(&o.machine.timeout, "timeout", timeout, "end the guest after this time, 0 for never (EGRET_VM_TIMEOUT); -shell has none")
	fs.StringVar(&o.batch, "batch", "", "run the programs listed in this `file` in one boot")
	fs.BoolVar(&o.shell, "shell", false, "interactive: a shell, or the given program, on the guest's console")
	fs.BoolVar(&o.require, "require", true, "set EGRET_LAB_REQUIRE=1 in the guest, so that a missing feature fails")
	fs.Var(&o.rw, "rw", "share this `directory` read-write (repeatable)")
	fs.Var(&o.env, "env", "pass this environment variable `NAME[=VALUE]` (repeatable)")
	fs.StringVar(&o.modules, "modules", strings.Join(defaultModules, ","), "kernel modules to load before the first program")
	fs.Var(&o.ports, "host-port", "let the guest reach this TCP `port` of this machine's loopback at "+hostAddress+" (repeatable)")
	fs.BoolVar(&o.verbose, "v", false, "say on standard error what is started and how long it took")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.args = fs.Args()
	if o.machine.icount && (o.machine.accel != "tcg" || o.machine.cpus != 1) {
		return o, errors.New("-icount needs -accel tcg and -smp 1")
	}
	if o.batch == "" && !o.shell && len(o.args) == 0 {
		return o, errors.New("no program given (see vmrun -help)")
	}
	if o.batch != "" && (o.shell || len(o.args) > 0) {
		return o, errors.New("-batch takes neither -shell nor a program")
	}
	return o, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func run(args []string) (int, error) {
	o, err := parseOptions(args, os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return exitUsage, err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return exitUsage, err
	}
	job, err := newJob(o, cwd, os.Environ())
	if err != nil {
		return exitUsage, err
	}
	kernel, err := findKernel("/")
	if err != nil {
		return exitUsage, err
	}
	cache, err := cacheDir()
	if err != nil {
		return exitUsage, err
	}
	images, err := buildImages(cache, kernel)
	if err != nil {
		return exitUsage, err
	}
	return boot(o, job, images)
}

// cacheDir is where images that can be rebuilt at any time are kept.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("egret-cache-%d", os.Getuid()))
	}
	dir := filepath.Join(base, "egret", "vmrun")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache %q: %w", dir, err)
	}
	return dir, nil
}
