package sysctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const (
	recordVersion = 1
	// maxRecord bounds the file, in bytes.
	maxRecord     = 1 << 20
	corruptSuffix = ".corrupt"
	// maxCorrupt is how many corrupt records are kept before one is overwritten.
	maxCorrupt = 8
)

// errCorrupt is a record that cannot be understood.
var errCorrupt = errors.New("record of original settings is corrupt")

// record holds the values that were there before us, in the order in which
// they were first changed.
type record struct {
	Version int     `json:"version"`
	Values  []entry `json:"values"`
}

type entry struct {
	Key      key    `json:"key"`
	Original string `json:"original"`
}

// parseRecord reads a record strictly: whatever is not exactly what save wrote
// is corrupt.
func parseRecord(b []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("%w: %v", errCorrupt, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return record{}, fmt.Errorf("%w: data after its end", errCorrupt)
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("%w: version %d, not %d", errCorrupt, r.Version, recordVersion)
	}
	seen := make(map[key]bool, len(r.Values))
	for i, e := range r.Values {
		k, err := parseKey(string(e.Key))
		switch {
		case err != nil:
		case k != e.Key:
			err = errors.New("key not in dotted form")
		case seen[k]:
			err = errors.New("key twice")
		default:
			err = checkValue(e.Original)
		}
		if err != nil {
			return record{}, fmt.Errorf("%w: values[%d] %q: %v", errCorrupt, i, e.Key, err)
		}
		seen[k] = true
	}
	return r, nil
}

// loadRecord reads the record at path; none is an empty one. An error matches
// errCorrupt if the content is wrong.
func loadRecord(path string) (record, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("read record: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return record{}, fmt.Errorf("read record %q: %w", path, err)
	}
	if len(b) > maxRecord {
		return record{}, fmt.Errorf("read record %q: %w: larger than %d bytes", path, errCorrupt, maxRecord)
	}
	r, err := parseRecord(b)
	if err != nil {
		return record{}, fmt.Errorf("read record %q: %w", path, err)
	}
	return r, nil
}

// save puts the record on the disk as a whole: after a crash at any point the
// path holds the old or the new one. An empty record is no file.
func (r record) save(path string) error {
	dir := filepath.Dir(path)
	if len(r.Values) == 0 {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("delete record: %w", err)
		}
		return syncDir(dir)
	}
	r.Version = recordVersion
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of the record: %w", err)
	}
	tmp := path + ".tmp"
	if err := writeSynced(tmp, append(b, '\n')); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return syncDir(dir)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a rename or removal in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory of the record: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory of the record %q: %w", dir, err)
	}
	return nil
}

// unwanted are the recorded settings that list does not have.
func (r record) unwanted(list []wanted) []entry {
	want := make(map[key]bool, len(list))
	for _, w := range list {
		want[w.key] = true
	}
	return slices.DeleteFunc(slices.Clone(r.Values), func(e entry) bool { return want[e.Key] })
}

// with is r and the From values of those changes whose keys it does not have.
func (r record) with(changes []Change) record {
	have := make(map[key]bool, len(r.Values))
	for _, e := range r.Values {
		have[e.Key] = true
	}
	out := record{Version: recordVersion, Values: slices.Clone(r.Values)}
	for _, c := range changes {
		if !have[key(c.Key)] {
			out.Values = append(out.Values, entry{Key: key(c.Key), Original: c.From})
		}
	}
	return out
}

// without is r less the keys in gone.
func (r record) without(gone map[key]bool) record {
	keep := slices.DeleteFunc(slices.Clone(r.Values), func(e entry) bool { return gone[e.Key] })
	return record{Version: recordVersion, Values: keep}
}
