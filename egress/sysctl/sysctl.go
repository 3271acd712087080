// Package sysctl owns the kernel settings Egret needs: it records what was
// there, sets what is wanted, notices when somebody changes it back, and
// restores the recorded values at teardown.
//
// There is no event for a changed setting that covers the kernel's own side
// effects (net.ipv4.ip_forward rewrites every interface's forwarding), so
// watching means calling Plan or Set again: a steady Set reads one file per key
// and writes nothing.
//
// Below /proc/sys/net the kernel shows the settings of the network namespace of
// the thread that opens the file (net_ctl_header_lookup), not of the process.
// The package starts no goroutines, so a caller that locked its thread into a
// namespace reads and writes that namespace's settings.
package sysctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Setting is one kernel setting, e.g. {Key: "net.ipv4.ip_forward", Value: "1"}.
// A dot in an interface name is written as a slash, as sysctl(8) does:
// "net.ipv4.conf.eth0/100.rp_filter"; the path form
// "net/ipv4/conf/eth0.100/rp_filter" means the same. Values are compared word
// by word: runs of blanks and tabs are equal.
type Setting struct {
	Key, Value string
	// Optional says that a kernel without this setting is fine: nothing is
	// reported for it. Otherwise a missing key is an error that matches
	// fs.ErrNotExist, and the other keys are set all the same. An optional setting
	// that nobody may write is left alone: the kernel shows some of the first
	// network namespace's read-only in the others (nf_conntrack_max).
	Optional bool
	// AtLeast says that a number that is higher already is fine, too.
	AtLeast bool
}

// Change is one setting that differs (Plan) or that was written (Set).
type Change struct {
	// Key is in dotted form.
	Key string
	// From is what the kernel had, To what it should have.
	From, To string
	// Restored says that the setting is no longer wanted and To is the value
	// that was there before us.
	Restored bool
}

func (c Change) String() string {
	suffix := ""
	if c.Restored {
		suffix = " (as before)"
	}
	return fmt.Sprintf("%s: %q -> %q%s", c.Key, c.From, c.To, suffix)
}

// Store sets kernel settings and remembers, in a file, what they were before.
// One Store, or one process, may use a record at a time; the methods of one
// Store may be called concurrently.
type Store struct {
	root, path string
	log        *slog.Logger
	// write puts a value into a file of the tree; tests make it fail.
	write func(path, value string) error

	mu sync.Mutex
}

// Open makes a Store of the tree at root (normally "/proc/sys") with its record
// at the path record (e.g. "/run/egret/sysctl.json"). It touches nothing: the
// record is read by each method, because the file, not our memory, is the truth.
func Open(root, record string, log *slog.Logger) *Store {
	return &Store{root: root, path: record, log: log, write: writeValue}
}

// Plan reads what Set(want) would change now, without changing anything: first
// the recorded settings that are no longer wanted, then want in its own order.
// Errors (missing keys, a corrupt record) are joined and do not hide the other
// changes.
func (s *Store) Plan(want []Setting) ([]Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := loadRecord(s.path)
	errs := []error{err}
	list, err := parseWant(want)
	errs = append(errs, err)

	failed := make(failures)
	changes := s.restores(rec, list, failed)
	changes = append(changes, s.diff(list, failed)...)
	return changes, errors.Join(append(errs, failed.join())...)
}

// Set makes the kernel have want and returns what it wrote.
//
// The original value of a key reaches the disk before the key's first change
// and is never replaced while it is recorded, so Restore finds it also after a
// kill -9 at any point. If the record cannot be written nothing is changed.
// Recorded keys that want no longer has get their originals back first. The
// order of want is the order of writing: put the general setting before the one
// it overrides ("all" before the interface).
//
// A key that fails does not stop the others; the errors are joined. A corrupt
// record is moved to "<record>.corrupt", logged and reported in the error of
// this call; the settings are made all the same.
func (s *Store) Set(ctx context.Context, want []Setting) ([]Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := loadRecord(s.path)
	if errors.Is(err, errCorrupt) {
		err = s.setAside(err)
		rec = record{}
	} else if err != nil {
		return nil, err
	}
	errs := []error{err}
	list, err := parseWant(want)
	errs = append(errs, err)

	done, err := s.putBack(ctx, &rec, list)
	errs = append(errs, err)
	made, err := s.settle(ctx, &rec, list)
	errs = append(errs, err)
	return append(done, made...), errors.Join(errs...)
}

// Restore puts all recorded values back and deletes the record. A setting that
// is gone (its interface was removed) is fine. What could not be restored stays
// recorded and is reported, and so is a record that an earlier Set found corrupt.
// Restore without a record does nothing.
func (s *Store) Restore(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	aside := s.checkAside()
	rec, err := loadRecord(s.path)
	if err != nil {
		return errors.Join(err, aside)
	}
	_, err = s.putBack(ctx, &rec, nil)
	if len(rec.Values) == 0 {
		err = errors.Join(err, rec.save(s.path))
	}
	return errors.Join(err, aside)
}

// wanted is one parsed Setting.
type wanted struct {
	key      key
	value    string
	optional bool
	atLeast  bool
}

// satisfied reports whether have will do.
func (w wanted) satisfied(have string) bool {
	if equalValue(have, w.value) {
		return true
	}
	if !w.atLeast {
		return false
	}
	is, err := strconv.ParseUint(strings.TrimSpace(have), 10, 64)
	least, err2 := strconv.ParseUint(w.value, 10, 64)
	return err == nil && err2 == nil && is >= least
}

// parseWant checks the keys and values. Those that are wrong, and keys wanted
// with two different values, are reported and left out.
func parseWant(want []Setting) ([]wanted, error) {
	var list []wanted
	var errs []error
	seen := make(map[key]string, len(want))
	for _, w := range want {
		k, err := parseKey(w.Key)
		if err == nil {
			err = checkValue(w.Value)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("parse setting %q: %w", w.Key, err))
			continue
		}
		old, twice := seen[k]
		if twice && !equalValue(old, w.Value) {
			errs = append(errs, fmt.Errorf("parse setting %q: wanted as %q and as %q", w.Key, old, w.Value))
		}
		if twice {
			continue
		}
		seen[k] = w.Value
		list = append(list, wanted{key: k, value: w.Value, optional: w.Optional, atLeast: w.AtLeast})
	}
	return list, errors.Join(errs...)
}

// failures is why keys could not be read or written.
type failures map[key]error

// join is all of them, ordered by key.
func (f failures) join() error {
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(f)) {
		errs = append(errs, f[k])
	}
	return errors.Join(errs...)
}

// diff lists what of list the kernel does not have. It leaves out the keys in
// failed and adds those it cannot read.
func (s *Store) diff(list []wanted, failed failures) []Change {
	var changes []Change
	for _, w := range list {
		if failed[w.key] != nil {
			continue
		}
		have, err := readValue(w.key.path(s.root))
		switch {
		case errors.Is(err, fs.ErrNotExist) && w.optional:
		case err != nil:
			failed[w.key] = fmt.Errorf("read setting %q: %w", w.key, err)
		case !w.satisfied(have) && !(w.optional && readOnly(w.key.path(s.root))):
			changes = append(changes, Change{Key: string(w.key), From: have, To: w.value})
		}
	}
	return changes
}

// restores lists the recorded settings that list does not have and whose value
// is not the original one. Those it cannot read are added to failed; those that
// no longer exist need nothing.
func (s *Store) restores(rec record, list []wanted, failed failures) []Change {
	var changes []Change
	for _, e := range rec.unwanted(list) {
		have, err := readValue(e.Key.path(s.root))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			failed[e.Key] = fmt.Errorf("read setting %q: %w", e.Key, err)
		case !equalValue(have, e.Original):
			changes = append(changes, Change{Key: string(e.Key), From: have, To: e.Original, Restored: true})
		}
	}
	return changes
}
