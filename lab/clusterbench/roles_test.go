//go:build bench

package clusterbench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/egret-router/egret/egress/steer"
	"github.com/egret-router/egret/lab"
)

// start runs a role of the real binary, which logs each garbage collection: what
// is left then is its heap.
func (w *world) start(ns *lab.NS, role string, args ...string) *lab.Proc {
	w.t.Helper()
	cmd := ns.Command(context.WithoutCancel(w.t.Context()), append([]string{w.binary(), role, "--kubeconfig", w.Kubeconfig("admin")}, args...)...)
	cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	p, err := ns.StartCommand(role, cmd)
	if err != nil {
		w.t.Fatal(err)
	}
	w.lab.Defer(p.Stop) // before the API server, which waits for those who watch
	return p
}

func (w *world) startController() *lab.Proc {
	return w.start(w.cluster, "controller", "--identity", "bench")
}

func (w *world) startAgent() *lab.Proc {
	w.t.Helper()
	return w.start(w.node, "agent", "--node", nodeName(here), "--inside", "10.96.0.0/16,fd00:96::/112",
		"--run-dir", filepath.Join(w.dir, "run"), "--state-dir", filepath.Join(w.dir, "state"))
}

// status is what the agent says of itself.
func (w *world) status() (*steer.Status, error) {
	answer, err := w.get("http://127.0.0.1:9645/v1/status")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return nil, fmt.Errorf("status: %s", answer.Status)
	}
	s := &steer.Status{}
	return s, json.NewDecoder(answer.Body).Decode(s)
}

func (w *world) mustStatus() *steer.Status {
	w.t.Helper()
	s, err := w.status()
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func dialIn(ns *lab.NS) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = ns.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

var collected = regexp.MustCompile(`(?m)^gc \d+ .* \d+->\d+->(\d+) MB,`)

// memory is what a process has and had at most, and the heap that the last collection left.
func memory(pid int, log string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, field := range []string{"VmRSS", "VmHWM"} {
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == field+":" {
				kb, _ := strconv.Atoi(f[1])
				out = append(out, fmt.Sprintf("%s %d MiB", field, kb>>10))
			}
		}
	}
	heap := "no collection yet"
	if all := collected.FindAllStringSubmatch(log, -1); len(all) > 0 {
		heap = all[len(all)-1][1] + " MiB"
	}
	return strings.Join(append(out, "live heap "+heap), ", ")
}

// processor is the time that a process has had.
func processor(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // ticks of 100 Hz
}

// waited is how long the threads of a process were ready and had no processor: what other
// work on this machine puts into the figures.
func waited(pid int) time.Duration {
	var sum time.Duration
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is right
	for _, file := range files {
		text, err := os.ReadFile(file)
		if f := strings.Fields(string(text)); err == nil && len(f) > 1 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}

// pressure is the part of the last minute in which something had no processor.
func pressure() string {
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return err.Error()
	}
	return regexp.MustCompile(`avg60=\S+`).FindString(string(text)) + " %"
}

var counted = regexp.MustCompile(`^apiserver_request_total\{(.*)\} (\S+)$`)
var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// requestsIn reads the server's metrics.
func requestsIn(text string) map[string]int {
	out := map[string]int{}
	for scan := bufio.NewScanner(strings.NewReader(text)); scan.Scan(); {
		m := counted.FindStringSubmatch(scan.Text())
		if m == nil {
			continue
		}
		is := map[string]string{}
		for _, l := range label.FindAllStringSubmatch(m[1], -1) {
			is[l[1]] = l[2]
		}
		n, err := strconv.ParseFloat(m[2], 64)
		if err == nil {
			out[strings.TrimSuffix(is["verb"]+" "+is["resource"]+"/"+is["subresource"], "/")] += int(n)
		}
	}
	return out
}

// more is what came between two counts.
func more(before, after map[string]int) string {
	var out []string
	for k, n := range after {
		if d := n - before[k]; d > 0 {
			out = append(out, fmt.Sprintf("%s %d", k, d))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
