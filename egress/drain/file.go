package drain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

const (
	fileVersion = 1
	// fileName is the record's in the run directory.
	fileName = "drain.json"
	// maxFile bounds the file, in bytes: 4095 networks take below 2 MB.
	maxFile = 4 << 20
)

// ErrCorrupt is a file that cannot be understood.
var ErrCorrupt = errors.New("record of drains is corrupt")

// Records are all drains.
type Records struct {
	// Gateway is there while the whole gateway is drained: networks that are added
	// are drained as well.
	Gateway *Order `json:"gateway,omitempty"`
	// Networks are the drains by the networks' names.
	Networks map[string]Record `json:"networks,omitempty"`
}

// Clone is a copy to change.
func (r Records) Clone() Records {
	if r.Gateway != nil {
		o := *r.Gateway
		r.Gateway = &o
	}
	r.Networks = maps.Clone(r.Networks)
	return r
}

func (r Records) empty() bool { return r.Gateway == nil && len(r.Networks) == 0 }

// content is the file's.
type content struct {
	Version int `json:"version"`
	Records
}

// File holds Records in a run directory.
type File struct{ path string }

// InDir is the file in a run directory.
func InDir(runDir string) File { return File{filepath.Join(runDir, fileName)} }

// Load reads the file; none is no drains. An error matches ErrCorrupt if the
// content is wrong.
func (f File) Load() (Records, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Records{}, nil
	}
	if err != nil {
		return Records{}, fmt.Errorf("read record of drains: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return Records{}, fmt.Errorf("read record of drains: %w", err)
	}
	r, err := parse(b)
	if err != nil {
		return Records{}, fmt.Errorf("read %q: %w", f.path, err)
	}
	return r, nil
}

// parse reads strictly: whatever Save would not write is corrupt.
func parse(b []byte) (Records, error) {
	if len(b) > maxFile {
		return Records{}, fmt.Errorf("%w: larger than %d bytes", ErrCorrupt, maxFile)
	}
	var c content
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Records{}, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Records{}, fmt.Errorf("%w: data after its end", ErrCorrupt)
	}
	if c.Version != fileVersion {
		return Records{}, fmt.Errorf("%w: version %d, not %d", ErrCorrupt, c.Version, fileVersion)
	}
	if c.Gateway != nil {
		if err := c.Gateway.Check(); err != nil {
			return Records{}, fmt.Errorf("%w: gateway: %v", ErrCorrupt, err)
		}
	}
	for name, r := range c.Networks {
		if err := r.check(); err != nil {
			return Records{}, fmt.Errorf("%w: network %q: %v", ErrCorrupt, name, err)
		}
	}
	return c.Records, nil
}

func (r Record) check() error {
	switch r.Stage {
	case Lowered, Refusing, Withdrawn:
	default:
		return fmt.Errorf("stage %q", r.Stage)
	}
	switch {
	case r.Since.IsZero() || r.RefuseAt.Before(r.Since) || r.Deadline.Before(r.RefuseAt):
		return errors.New("times out of order")
	case r.Begun < 0 || r.Left < 0:
		return errors.New("negative number of flows")
	}
	return nil
}

// Save puts the records in the file's place as a whole: after a crash at any
// point it is the old or the new one. No drains are no file.
func (f File) Save(r Records) error {
	if r.empty() {
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete record of drains: %w", err)
		}
		return nil
	}
	b, err := json.MarshalIndent(content{fileVersion, r}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record of drains: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return fmt.Errorf("make directory of the record of drains: %w", err)
	}
	if err := replace(f.path, append(b, '\n')); err != nil {
		return fmt.Errorf("write record of drains: %w", err)
	}
	return nil
}

// replace writes a file beside and renames it.
func replace(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+fileName+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
