package nat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Table is a table of the network namespace the process (or the calling thread) is
// in: inet egret, unless it was opened under another name. Its methods may be called
// at the same time.
//
// It runs nft itself instead of through sigs.k8s.io/knftables, for three
// reasons: Watch recognises our own transactions by the process that made them,
// which knftables hides; one listing gives everything Snapshot needs, where
// knftables needs one per set and does not read sets of verdicts back; and
// elements go in many to a command, which takes nft less than half the time of
// one command for each.
//
// Edits of policies, pools and clients go to the kernel without nft (wire.go),
// which would read all elements of the table first.
type Table struct {
	name string
	path string
	log  *slog.Logger

	mu  sync.Mutex
	own map[uint32]time.Time // ports (of nft: process ids) of Apply and Delete, and when they ended (zero: running)
}

// killDelay bounds the wait for nft's output after it was killed.
const killDelay = 5 * time.Second

// Open finds nft and checks that it is new enough (1.0.1) and prints JSON.
func Open(log *slog.Logger) (*Table, error) { return OpenTable(tableName, log) }

// OpenTable is Open for another table of the family inet, whose rulesets are the
// caller's own (NewRuleset).
func OpenTable(name string, log *slog.Logger) (*Table, error) {
	path, err := exec.LookPath("nft")
	if err != nil {
		return nil, fmt.Errorf("find nft: %w", err)
	}
	t := &Table{name: name, path: path, log: log, own: map[uint32]time.Time{}}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := t.run(ctx, false, "", "--version")
	if err != nil {
		return nil, err
	}
	if err := checkVersion(string(out)); err != nil {
		return nil, err
	}
	if _, err := t.run(ctx, false, "", "-j", "list", "tables"); err != nil {
		return nil, err
	}
	return t, nil
}

var versionNumber = regexp.MustCompile(`v(\d+)\.(\d+)\.(\d+)`)

func checkVersion(text string) error {
	m := versionNumber.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("check nft: no version in %q", strings.TrimSpace(text))
	}
	n := 0
	for _, part := range m[1:] {
		i, err := strconv.Atoi(part)
		if err != nil || i >= 1000 {
			return fmt.Errorf("check nft: no version in %q", strings.TrimSpace(text))
		}
		n = n*1000 + i
	}
	if n < 1_000_001 {
		return fmt.Errorf("check nft: version is %s, need 1.0.1 or later", m[0])
	}
	return nil
}

// Snapshot reads the table. A missing table is the zero Ruleset. It takes about
// 2 s for 100,000 elements.
func (t *Table) Snapshot(ctx context.Context) (Ruleset, error) {
	out, err := t.run(ctx, false, "", "-j", "list", "table", family, t.name)
	if errors.Is(err, errMissing) {
		return Ruleset{}, nil
	}
	if err != nil {
		return Ruleset{}, fmt.Errorf("read table: %w", err)
	}
	r, err := parseRuleset(out)
	r.Table = t.name
	return r, err
}

// Apply carries out the plan in one transaction: all of it or, with an error,
// nothing. An error is also what a plan made for another state gives; the
// caller reads the state again and plans anew.
func (t *Table) Apply(ctx context.Context, p Plan) error {
	if p.Empty() {
		return nil
	}
	if named(p.Table) != t.name {
		return fmt.Errorf("change table %q: the plan is for %q", t.name, named(p.Table))
	}
	if err := t.apply(ctx, p); err != nil {
		return fmt.Errorf("change table: %w", err)
	}
	t.log.Debug("nftables changed", "operations", len(p.Ops))
	return nil
}

// apply sends simple plans to the kernel itself. If the kernel does not take
// one, nft has a try, and in any case a better explanation.
func (t *Table) apply(ctx context.Context, p Plan) error {
	if batch, ok := encode(p); ok {
		err := t.send(ctx, batch)
		if err == nil {
			return nil
		}
		t.log.Debug("nftables refused", "error", err)
	}
	_, err := t.run(ctx, true, p.script(), "-f", "-")
	return err
}

// Check says whether the kernel would accept the plan. It changes nothing.
func (t *Table) Check(ctx context.Context, p Plan) error {
	if p.Empty() {
		return nil
	}
	if _, err := t.run(ctx, false, p.script(), "--check", "-f", "-"); err != nil {
		return fmt.Errorf("check change of table: %w", err)
	}
	return nil
}

// Delete takes the whole table away, guards included. A missing table is no
// error.
func (t *Table) Delete(ctx context.Context) error {
	both := Plan{Table: t.name, Ops: []Op{{Verb: verbAdd, Kind: kindTable}, {Verb: verbDelete, Kind: kindTable}}}
	if _, err := t.run(ctx, true, both.script(), "-f", "-"); err != nil {
		return fmt.Errorf("delete table: %w", err)
	}
	return nil
}

// Counters reads the counters by name. Without a table there are none. Those of
// another table than egret have their name as the reason.
func (t *Table) Counters(ctx context.Context) (map[string]Counter, error) {
	out, err := t.run(ctx, false, "", "-j", "list", "counters", "table", family, t.name)
	if errors.Is(err, errMissing) {
		return map[string]Counter{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return parseCounters(out, t.name)
}

var errMissing = errors.New("no such object")

// errorBytes bounds what of nft's complaints becomes part of an error.
const errorBytes = 1 << 10

// run runs nft. With own, Watch knows that what the process changes is ours.
func (t *Table) run(ctx context.Context, own bool, stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = killDelay
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := t.start(cmd, own); err != nil {
		return nil, fmt.Errorf("run nft: %w", err)
	}
	err := cmd.Wait()
	if own {
		t.ended(uint32(cmd.Process.Pid))
	}
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("run nft %s: %w", strings.Join(args, " "), ctx.Err())
	}
	complaint := strings.TrimSpace(stderr.String())
	if strings.Contains(complaint, "No such file or directory") && args[0] == "-j" {
		err = errMissing
	}
	if len(complaint) > errorBytes {
		complaint = complaint[:errorBytes] + " ..."
	}
	return nil, fmt.Errorf("run nft %s: %w: %s", strings.Join(args, " "), err, complaint)
}

// start holds the lock until the process is known, so that Watch cannot see
// its changes before.
func (t *Table) start(cmd *exec.Cmd, own bool) error {
	if !own {
		return cmd.Start()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	t.own[uint32(cmd.Process.Pid)] = time.Time{}
	return nil
}

// ownMemory is how long after its end a process is remembered as ours, for
// notifications that are still under way; process ids come back.
const ownMemory = 10 * time.Second

func (t *Table) ended(pid uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.own[pid] = now
	for other, end := range t.own {
		if !end.IsZero() && now.Sub(end) > ownMemory {
			delete(t.own, other)
		}
	}
}

// isOwn says whether a process made a transaction of ours.
func (t *Table) isOwn(pid uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	end, ok := t.own[pid]
	return ok && (end.IsZero() || time.Since(end) <= ownMemory)
}
