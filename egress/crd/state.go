package crd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/egret-router/egret/egress/cluster"
)

const (
	// stateVersion is that of the file's content: of cluster.Snapshot, and of all in
	// it. What another version wrote is not used.
	stateVersion = 1
	// maxState bounds the file, in bytes: a cluster of 100,000 pods has a tenth.
	maxState = 256 << 20
)

// savedState is the last good Snapshot on the disk. It has passwords.
type savedState struct {
	Version  int
	Role     Role
	Node     string
	Written  time.Time
	Snapshot cluster.Snapshot
	Problems []cluster.Problem
}

// writeState replaces the file at once, or not at all.
func writeState(path string, state savedState) (err error) {
	state.Version = stateVersion
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = errors.Join(json.NewEncoder(f).Encode(state), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func readState(path string) (savedState, error) {
	f, err := os.Open(path)
	if err != nil {
		return savedState{}, err
	}
	defer f.Close()
	var state savedState
	if err := json.NewDecoder(io.LimitReader(f, maxState)).Decode(&state); err != nil {
		return savedState{}, fmt.Errorf("read %q: %w", path, err)
	}
	if state.Version != stateVersion {
		return savedState{}, fmt.Errorf("%q is of version %d, not %d", path, state.Version, stateVersion)
	}
	return state, nil
}
