package probes_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes"
	"golang.org/x/sys/unix"
)

// processEnv makes the test binary a process with a Prober, as the daemon is
// one, that the tests start inside of a namespace.
const processEnv = "EGRET_PROBES_TEST_PROCESS"

// reportEnv is how long the process pauses between its reports, when nothing
// changes: a duration.
const reportEnv = "EGRET_PROBES_TEST_PAUSE"

func TestMain(m *testing.M) {
	if os.Getenv(processEnv) != "" {
		proberProcess()
		return
	}
	os.Exit(m.Run())
}

// report is what the process tells: the state, and the error of the last Set.
type report struct {
	Sets   int
	Err    string
	States []probes.State
	// At is when, User and System the processor time of the process until then.
	At           time.Time
	User, System time.Duration
	Cost         probes.Cost
}

// proberProcess reads a list of Configs from each line of its standard input,
// and writes a report to file descriptor 3 often.
func proberProcess() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	changed := make(chan struct{}, 1)
	p := probes.New(log, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer p.Close()
	lines := make(chan []byte)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(os.Stdin)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			lines <- append([]byte{}, in.Bytes()...)
		}
	}()
	out := json.NewEncoder(os.NewFile(3, "reports"))
	pause := 50 * time.Millisecond
	if d, err := time.ParseDuration(os.Getenv(reportEnv)); err == nil {
		pause = d
	}
	tick := time.NewTicker(pause)
	var r report
	for {
		select {
		case line, open := <-lines:
			if !open {
				return
			}
			var want []probes.Config
			err := json.Unmarshal(line, &want)
			if err == nil {
				err = p.Set(want)
			}
			r.Err = ""
			if err != nil {
				r.Err = err.Error()
			}
			r.Sets++
		case <-changed:
		case <-tick.C:
		}
		r.States, r.Cost = p.State(), p.Cost()
		r.times()
		if err := out.Encode(r); err != nil {
			return
		}
	}
}

// times fills in how much of a processor the process has used.
func (r *report) times() {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return
	}
	r.At, r.User, r.System = time.Now(), time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
}

// prober is such a process.
type prober struct {
	t    testing.TB
	proc *lab.Proc
	in   *os.File
	sets int

	mu   sync.Mutex
	last report
}

// startProber starts a prober in a namespace, with more environment.
func startProber(t testing.TB, ns *lab.NS, env ...string) *prober {
	t.Helper()
	stdin, in := pipe(t)
	out, reports := pipe(t)
	cmd := ns.Command(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), processEnv+"=1"), env...)
	cmd.Stdin = stdin
	cmd.ExtraFiles = []*os.File{reports}
	proc, err := ns.StartCommand("prober", cmd)
	if err != nil {
		t.Fatal(err)
	}
	_ = stdin.Close()
	_ = reports.Close()
	p := &prober{t: t, proc: proc, in: in}
	go func() {
		d := json.NewDecoder(out)
		for {
			var r report
			if d.Decode(&r) != nil {
				return
			}
			p.mu.Lock()
			p.last = r
			p.mu.Unlock()
		}
	}()
	return p
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// set makes the process run want and waits until it does.
func (p *prober) set(want ...probes.Config) {
	p.t.Helper()
	b, err := json.Marshal(want)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		p.t.Fatal(err)
	}
	p.sets++
	lab.Eventually(p.t, time.Minute, "the prober's answer to set", func() error {
		switch r := p.report(); {
		case r.Sets != p.sets:
			return fmt.Errorf("%d of %d sets", r.Sets, p.sets)
		case r.Err != "":
			return lab.Final(fmt.Errorf("set: %s", r.Err))
		}
		return nil
	})
}

func (p *prober) report() report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *prober) state(name string) probes.State {
	for _, s := range p.report().States {
		if s.Name == name {
			return s
		}
	}
	return probes.State{}
}

// verdict waits for a probe's verdict. Every text must be in the error of one
// of its targets.
func (p *prober) verdict(name string, want probes.Verdict, texts ...string) {
	p.t.Helper()
	lab.Eventually(p.t, 2*time.Minute, fmt.Sprintf("probe %s to be %s %q", name, want, texts), func() error {
		s := p.state(name)
		all := ""
		for _, ts := range s.Targets {
			all += ts.LastError + "\n"
		}
		for _, text := range texts {
			if !strings.Contains(all, text) {
				return fmt.Errorf("state %+v", s)
			}
		}
		if s.Verdict != want {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
}

// attempts waits until every target had n more attempts.
func (p *prober) attempts(name string, n uint64) {
	p.t.Helper()
	before := p.state(name)
	lab.Eventually(p.t, 2*time.Minute, fmt.Sprintf("%d attempts of %s", n, name), func() error {
		now := p.state(name)
		for i, ts := range now.Targets {
			if ts.Attempts < before.Targets[i].Attempts+n {
				return fmt.Errorf("%d attempts at %s", ts.Attempts, ts.Target)
			}
		}
		return nil
	})
}

// icmpProbe and httpProbe are fast, with a timeout that a loaded machine keeps.
func icmpProbe(name, device string, targets ...string) probes.Config {
	c := probes.Config{Name: name, Network: device, Device: device, Type: probes.ICMP, Require: probes.All,
		Interval: 100 * time.Millisecond, AttemptTimeout: 300 * time.Millisecond, Rise: 2, Fall: 3}
	for _, t := range targets {
		c.Targets = append(c.Targets, probes.Target{Address: netip.MustParseAddr(t)})
	}
	return c
}

func httpProbe(name, device string, h probes.HTTPConfig, urls ...string) probes.Config {
	c := icmpProbe(name, device)
	c.Type, c.HTTP, c.AttemptTimeout = probes.HTTP, &h, time.Second
	for _, u := range urls {
		c.Targets = append(c.Targets, probes.Target{URL: u})
	}
	return c
}
