package sysctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// passes is how often a list of settings is written: a second time because
// writing one setting can change another (net.ipv4.ip_forward rewrites every
// interface's forwarding, in both directions).
const passes = 2

// settle records and writes what of list differs, until nothing does.
func (s *Store) settle(ctx context.Context, rec *record, list []wanted) ([]Change, error) {
	var made []Change
	failed := make(failures)
	for range passes {
		changes := s.diff(list, failed)
		if len(changes) == 0 {
			return made, failed.join()
		}
		if err := s.remember(rec, changes); err != nil {
			return made, errors.Join(failed.join(), err)
		}
		written, err := s.writeAll(ctx, changes, failed)
		made = merge(made, written)
		if err != nil {
			return made, errors.Join(failed.join(), err)
		}
	}
	for _, c := range s.diff(list, failed) {
		failed[key(c.Key)] = fmt.Errorf("set %q to %q: the kernel keeps %q", c.Key, c.To, c.From)
	}
	return made, failed.join()
}

// remember puts the originals of changes that are not recorded yet on the disk.
func (s *Store) remember(rec *record, changes []Change) error {
	grown := rec.with(changes)
	if len(grown.Values) == len(rec.Values) {
		return nil
	}
	if err := grown.save(s.path); err != nil {
		return fmt.Errorf("record settings before changing them: %w", err)
	}
	*rec = grown
	return nil
}

// writeAll writes changes in their order and returns those that succeeded; the
// others are added to failed. Its error is that of ctx, and ends it early.
func (s *Store) writeAll(ctx context.Context, changes []Change, failed failures) ([]Change, error) {
	var done []Change
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return done, fmt.Errorf("set %q: %w", c.Key, err)
		}
		k := key(c.Key)
		if err := s.write(k.path(s.root), c.To); err != nil {
			failed[k] = fmt.Errorf("set %q to %q: %w", c.Key, c.To, err)
			continue
		}
		s.log.Info("kernel setting changed", "key", c.Key, "from", c.From, "to", c.To)
		done = append(done, c)
	}
	return done, nil
}

// putBack restores the recorded settings that list does not have, in the order
// in which they were recorded, and forgets those that are back or gone.
func (s *Store) putBack(ctx context.Context, rec *record, list []wanted) ([]Change, error) {
	if len(rec.unwanted(list)) == 0 {
		return nil, nil
	}
	var made []Change
	var ended error
	failed := make(failures)
	for range passes {
		// What failed in the first pass is tried again: it may have needed
		// another setting to be back first.
		clear(failed)
		changes := s.restores(*rec, list, failed)
		if len(changes) == 0 {
			break
		}
		var written []Change
		written, ended = s.writeAll(ctx, changes, failed)
		made = merge(made, written)
		if ended != nil {
			break
		}
	}
	return made, errors.Join(ended, s.forget(rec, list, failed))
}

// forget drops from the record the settings that list does not have and that
// have their original value again or no longer exist. The others stay and are
// reported, with the reason in failed if there is one.
func (s *Store) forget(rec *record, list []wanted, failed failures) error {
	gone := make(map[key]bool)
	left := make(failures)
	for _, e := range rec.unwanted(list) {
		have, err := readValue(e.Key.path(s.root))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			s.log.Info("kernel setting is gone, nothing to restore", "key", string(e.Key))
			gone[e.Key] = true
		case err == nil && equalValue(have, e.Original):
			gone[e.Key] = true
		case failed[e.Key] != nil:
			left[e.Key] = failed[e.Key]
		case err != nil:
			left[e.Key] = fmt.Errorf("read setting %q: %w", e.Key, err)
		default:
			left[e.Key] = fmt.Errorf("restore %q to %q: the kernel keeps %q", e.Key, e.Original, have)
		}
	}
	if len(gone) == 0 {
		return left.join()
	}
	less := rec.without(gone)
	if err := less.save(s.path); err != nil {
		return errors.Join(left.join(), err)
	}
	*rec = less
	return left.join()
}

// merge adds changes to made; a key written twice counts once.
func merge(made, changes []Change) []Change {
	for _, c := range changes {
		seen := false
		for i := range made {
			if made[i].Key == c.Key {
				made[i].To, seen = c.To, true
			}
		}
		if !seen {
			made = append(made, c)
		}
	}
	return made
}

// setAside moves a corrupt record out of the way without losing it: an earlier
// one that nobody looked at yet stays, too.
func (s *Store) setAside(cause error) error {
	to := s.path + corruptSuffix
	for n := 2; n <= maxCorrupt; n++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s%s.%d", s.path, corruptSuffix, n)
	}
	if err := os.Rename(s.path, to); err != nil {
		return errors.Join(cause, fmt.Errorf("set corrupt record aside: %w", err))
	}
	s.log.Error("the record of original kernel settings is corrupt: teardown cannot restore what it held",
		"record", s.path, "moved", to, "err", cause)
	return fmt.Errorf("%w (moved to %q; what it held will not be restored)", cause, to)
}

// checkAside reports a corrupt record that was set aside.
func (s *Store) checkAside() error {
	aside := s.path + corruptSuffix
	if _, err := os.Lstat(aside); err != nil {
		return nil
	}
	return fmt.Errorf("restore settings: %w: %q holds originals that could not be read; check them by hand and delete it", errCorrupt, aside)
}
