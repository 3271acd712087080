package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/egret-router/egret/egress"
)

// The times of a watch.
const (
	// quietTime must pass without an event before the file is read, so that a
	// file which is being written is not read half.
	quietTime = 150 * time.Millisecond
	// maxDelay bounds the wait while events keep coming.
	maxDelay = time.Second
	// pollTime is from look to look at the file where no event tells of a change:
	// network file systems, lost events, a directory that is replaced as a whole.
	pollTime = 5 * time.Second
)

// File is a configuration file that is loaded and watched. Its methods may be
// called from several goroutines.
type File struct {
	path   string
	log    *slog.Logger
	reload chan struct{}

	mu   sync.Mutex
	seen content
}

// content identifies what was last found at the path: a file's bytes, or the
// reason why it could not be read.
type content [sha256.Size]byte

// NewFile returns the file at path, which need not exist yet.
func NewFile(path string, log *slog.Logger) *File {
	return &File{path: path, log: log, reload: make(chan struct{}, 1)}
}

// Load is the function Load, and remembers the content, so that Watch speaks
// only of what differs from it.
func (f *File) Load() (*egress.Spec, error) {
	spec, _, err := f.load(true)
	return spec, err
}

// load reads and, if the content differs from what was seen before or with
// always, decodes. Otherwise it returns nothing.
func (f *File) load(always bool) (spec *egress.Spec, changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := f.read()
	now := content(sha256.Sum256(data))
	if err != nil {
		now = sha256.Sum256([]byte("\x00" + err.Error()))
	}
	changed = f.seen != now
	f.seen = now
	switch {
	case !changed && !always:
		return nil, false, nil
	case err != nil:
		return nil, changed, fmt.Errorf("read configuration: %w", err)
	}
	spec, err = Read(f.path, data)
	return spec, changed, err
}

// read reads a regular file only: any other could block for ever.
func (f *File) read() ([]byte, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", f.path)
	}
	return readFile(f.path)
}

// Reload has Watch read the file now, as after SIGHUP. It does not wait. In
// contrast to an event it repeats the error of a bad file that is unchanged.
func (f *File) Reload() {
	select {
	case f.reload <- struct{}{}:
	default: // one is pending, which will do
	}
}

// Watch calls onSpec with every new content of the file that is valid, and
// onError with every one that is not, until ctx ends; then it returns nil. The
// calls come one at a time, from this goroutine. Without a Load before it, the
// content found at the start counts as new. A file that is gone, or empty, is an
// error like any other: what runs is kept.
//
// Files may be written in place, replaced by a rename, or be symbolic links that
// are switched, as Kubernetes does for a ConfigMap.
func (f *File) Watch(ctx context.Context, onSpec func(*egress.Spec), onError func(error)) error {
	path, err := filepath.Abs(f.path)
	if err != nil {
		return fmt.Errorf("watch configuration %q: %w", f.path, err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		f.log.Warn("watching the configuration by polling only", "path", f.path, "period", pollTime, "err", err)
		f.run(ctx, path, nil, func() {}, onSpec, onError)
		return nil
	}
	events := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.forward(watcher, events)
	}()
	defer func() {
		_ = watcher.Close() // ends forward
		<-done
	}()
	f.run(ctx, path, events, func() { f.follow(watcher, path) }, onSpec, onError)
	return nil
}

// forward turns events of the watcher into a trigger, until it is closed. An
// overflow of the kernel's queue is an event like any other.
func (f *File) forward(watcher *fsnotify.Watcher, events chan<- struct{}) {
	for {
		select {
		case event, ok := <-watcher.Events:
			if !ok {
				return
			}
			if event.Op == fsnotify.Chmod {
				continue
			}
		case err, ok := <-watcher.Errors:
			if !ok {
				return
			}
			f.log.Warn("watching the configuration", "path", f.path, "err", err)
		}
		select {
		case events <- struct{}{}:
		default:
		}
	}
}

// run is the loop of Watch. follow is called before each look at the file.
func (f *File) run(ctx context.Context, path string, events <-chan struct{}, follow func(), onSpec func(*egress.Spec), onError func(error)) {
	poll := time.NewTicker(pollTime)
	defer poll.Stop()
	quiet := time.NewTimer(0) // the look at the start
	defer quiet.Stop()
	var before fs.FileInfo
	var first time.Time // the first event not yet answered
	settle := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		quiet.Reset(min(quietTime, max(first.Add(maxDelay).Sub(now), 0)))
	}
	for {
		forced := false
		select {
		case <-ctx.Done():
			return
		case <-events:
			settle()
			continue
		case <-poll.C:
			if first.IsZero() && !sameState(stat(path), before) {
				settle()
			}
			continue
		case <-f.reload:
			forced = true
		case <-quiet.C:
		}
		first = time.Time{}
		follow()
		before = stat(path)
		f.look(forced, onSpec, onError)
	}
}

// look reads the file and tells of what is new.
func (f *File) look(forced bool, onSpec func(*egress.Spec), onError func(error)) {
	spec, changed, err := f.load(forced)
	switch {
	case err != nil:
		onError(err)
	case changed:
		onSpec(spec)
	case forced:
		f.log.Info("the configuration is unchanged", "path", f.path)
	}
}

// stat is the file's state, nil when there is none.
func stat(path string) fs.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

// sameState reports whether nothing tells that the file has changed.
func sameState(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// follow watches the directories that the path leads through, and no others.
// Directories, because a watch on a file ends when the file is replaced.
func (f *File) follow(watcher *fsnotify.Watcher, path string) {
	want := directories(path)
	for _, have := range watcher.WatchList() {
		if !slices.Contains(want, have) {
			_ = watcher.Remove(have) // it may be gone already
		}
	}
	for _, dir := range want {
		// Adding again is harmless, and renews the watch of a directory that was replaced.
		if err := watcher.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.log.Warn("watching the configuration by polling only", "path", f.path, "directory", dir, "err", err)
		}
	}
}

// maxLinks is where the kernel gives up, too (path_resolution(7)).
const maxLinks = 40

// directories are the real directories of path and of each link it leads through.
func directories(path string) []string {
	var dirs []string
	for range maxLinks {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			break
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return dirs
}
