package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/egret-router/egret/lab"
)

// guestOptions is what the host asks the guest to do, as JSON.
type guestOptions struct {
	Cases   []benchCase `json:"cases"` // the first is the generator alone
	Packets int         `json:"packets"`
	Rounds  int         `json:"rounds"`
	// Together builds all cases before it measures any, and then measures them
	// in turn, round by round: for clocks that the host's load disturbs.
	Together bool   `json:"together"`
	Egret    string `json:"egret"` // the binary; empty without a case of Egret

	egretBinary    string
	flowtableKnown bool
}

// A measurement is one line of what the guest writes: one run of one cell.
type measurement struct {
	Case    string `json:"case"`
	Cell    cell   `json:"cell"`
	Round   int    `json:"round"`
	Sent    int    `json:"sent"`
	Arrived int    `json:"arrived"`
	// Nanos is the time of the processor that generating and forwarding took: of
	// pktgen's threads and of the one for deferred packets.
	Nanos int64 `json:"nanos"`
	// WallNanos is the time until pktgen was done.
	WallNanos int64 `json:"wallNanos"`
}

// guest measures and writes measurements as lines of JSON.
func guest(ctx context.Context, o guestOptions, out, notes io.Writer) error {
	if text, err := exec.Command("modprobe", "pktgen").CombinedOutput(); err != nil {
		return fmt.Errorf("load pktgen: %w: %s", err, text)
	}
	o.egretBinary = o.Egret
	var err error
	if o.Egret != "" {
		if o.flowtableKnown, err = knowsFlowtable(o.Egret); err != nil {
			return err
		}
	}
	m := &meter{guestOptions: o, out: json.NewEncoder(out), notes: notes, began: time.Now()}
	if o.Together {
		return m.together(ctx)
	}
	var errs []error
	for _, c := range o.Cases {
		if err := m.alone(ctx, c); err != nil {
			m.note("%s: %v", c.Name, err)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type meter struct {
	guestOptions
	out     *json.Encoder
	notes   io.Writer
	threads []string // the directories of the measured kernel threads in /proc
	began   time.Time
}

func (m *meter) note(format string, args ...any) {
	fmt.Fprintf(m.notes, "bench: %6.1f s  %s\n", time.Since(m.began).Seconds(), fmt.Sprintf(format, args...))
}

// alone builds, measures and removes one case.
func (m *meter) alone(ctx context.Context, c benchCase) error {
	t, err := m.prepare(ctx, c)
	if err != nil {
		return err
	}
	for _, c := range cells() {
		for round := range m.Rounds {
			if err == nil {
				err = m.measure(t, c, round)
			}
		}
	}
	return errors.Join(err, t.close())
}

// together measures all cases in turn.
func (m *meter) together(ctx context.Context) (err error) {
	var beds []*testbed
	defer func() {
		for _, t := range beds {
			err = errors.Join(err, t.close())
		}
	}()
	for _, c := range m.Cases {
		t, err := m.prepare(ctx, c)
		if err != nil {
			return err
		}
		beds = append(beds, t)
	}
	for round := range m.Rounds {
		for _, c := range cells() {
			for _, t := range beds {
				if err := m.measure(t, c, round); err != nil {
					return err
				}
			}
		}
		m.note("round %d of %d", round+1, m.Rounds)
	}
	return nil
}

// prepare builds a case and establishes its flows: each has seen several
// packets both ways, so that it is confirmed, assured and, where there is a
// flowtable, offloaded.
func (m *meter) prepare(ctx context.Context, c benchCase) (*testbed, error) {
	m.note("%s: building", c.Name)
	t, err := m.build(ctx, c)
	if err != nil {
		return nil, err
	}
	m.note("%s: measuring", c.Name)
	m.threads, err = findThreads("kpktgend_0", "ksoftirqd/0")
	if err := errors.Join(err, t.generators(), m.establish(t)); err != nil {
		return nil, errors.Join(fmt.Errorf("establish the flows of %q: %w", c.Name, err), t.close())
	}
	return t, nil
}

func (m *meter) establish(t *testbed) error {
	for _, f := range lab.Families() {
		for i := range 2 {
			for _, d := range []direction{toNetwork, toClients} {
				s, err := m.run(t, cell{f, d}, flowsPerStream)
				if err != nil {
					return err
				}
				// The very first packets cost what a new flow costs.
				if i == 0 && d == toNetwork {
					s.Cell.Direction = firstOut
					if err := m.out.Encode(s); err != nil {
						return err
					}
				}
				if s.Sent != s.Arrived {
					return fmt.Errorf("%s %s, packet %d of each flow: %d of %d arrived", f, d, i+1, s.Arrived, s.Sent)
				}
			}
		}
	}
	return nil
}

func (m *meter) measure(t *testbed, c cell, round int) error {
	s, err := m.run(t, c, max(1, m.Packets/streams))
	if err != nil {
		return fmt.Errorf("measure %q: %w", t.bench.Name, err)
	}
	s.Round = round
	m.note("%s: %s %s %.0f ns per packet, gross, %.0f by the clock", t.bench.Name, c.Family, c.Direction,
		float64(s.Nanos)/float64(s.Sent), float64(s.WallNanos)/float64(s.Sent))
	return m.out.Encode(s)
}

func (m *meter) run(t *testbed, c cell, each int) (measurement, error) {
	if err := t.gen[c].prepare(each); err != nil {
		return measurement{}, err
	}
	before, err := m.cpuTimes()
	if err != nil {
		return measurement{}, err
	}
	s, err := t.gen[c].run()
	if err != nil {
		return measurement{}, err
	}
	after, err := m.cpuTimes()
	return measurement{Case: t.bench.Name, Cell: c, Sent: s.sent, Arrived: s.arrived, Nanos: ran(before, after), WallNanos: s.took.Nanoseconds()}, err
}

// cpuTimes is how long each of the measured threads has run, in nanoseconds. What
// the kernel does in interrupts belongs to the thread that they interrupt. The
// generator's threads of a namespace that is gone end some time later: they have
// nothing to do with what is measured, and are left out.
func (m *meter) cpuTimes() (map[string]int64, error) {
	out := make(map[string]int64, len(m.threads))
	for _, dir := range m.threads {
		text, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		if out[dir], err = strconv.ParseInt(first, 10, 64); err != nil {
			return nil, fmt.Errorf("read schedstat: %w", err)
		}
	}
	return out, nil
}

// ran adds up what the threads ran between two looks at them.
func ran(before, after map[string]int64) (total int64) {
	for dir, n := range after {
		if was, ok := before[dir]; ok {
			total += n - was
		}
	}
	return total
}

// findThreads finds kernel threads by their names: pktgen has one of the same
// name for each network namespace.
func findThreads(names ...string) ([]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, f := range files {
		// What cannot be read has ended.
		if text, err := os.ReadFile(f); err == nil && slices.Contains(names, strings.TrimSpace(string(text))) {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	return dirs, nil
}

// knowsFlowtable asks Egret whether it has the setting.
func knowsFlowtable(egret string) (bool, error) {
	f, err := os.CreateTemp("", "bench-*.yaml")
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString("flowtable: true\n"); err != nil {
		return false, err
	}
	if err := f.Close(); err != nil {
		return false, err
	}
	out, err := exec.Command(egret, "check", f.Name()).CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return false, fmt.Errorf("ask %q for flowtables: %w", egret, err)
	}
	return !strings.Contains(string(out), "flowtable"), nil
}
