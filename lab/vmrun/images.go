package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// images are the two files that QEMU boots.
type images struct {
	kernel    string
	initramfs string
}

// buildImages makes the images, or finds them in the cache, where their names
// are hashes of what they are made of.
func buildImages(cache string, k *kernel) (images, error) {
	initramfs, err := buildInitramfs(cache, k)
	if err != nil {
		return images{}, fmt.Errorf("build initramfs for kernel %s: %w", k.version, err)
	}
	return images{kernel: unpackedKernel(cache, k), initramfs: initramfs}, nil
}

// unpackedKernel is the path of the kernel's ELF image, or of its bzImage if the former
// cannot be had: that is only slower.
func unpackedKernel(cache string, k *kernel) string {
	if !k.pvh() {
		return k.image
	}
	packed, err := os.ReadFile(k.image)
	if err != nil {
		return k.image
	}
	path := filepath.Join(cache, "vmlinux-"+digest(packed))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	unpacked, err := unpackKernel(packed)
	if err == nil {
		err = writeCached(cache, "vmlinux-", path, unpacked)
	}
	if err != nil {
		return k.image
	}
	return path
}

func buildInitramfs(cache string, k *kernel) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := isStatic(self); err != nil {
		return "", err
	}
	init, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	order, err := k.modules.loadOrder(bootModules)
	if err != nil {
		return "", err
	}
	var archive cpio
	archive.dir("dev")
	archive.device("dev/console", 0o600, 5, 1)
	for _, dir := range []string{"proc", "sys", "mnt", "modules"} {
		archive.dir(dir)
	}
	archive.file("init", 0o755, init)
	for i, file := range order {
		module, err := k.modules.moduleBytes(file)
		if err != nil {
			return "", err
		}
		archive.file(fmt.Sprintf("modules/%02d-%s", i, moduleName(file)), 0o644, module)
	}
	content := archive.bytes()
	path := filepath.Join(cache, "initramfs-"+digest(content))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, writeCached(cache, "initramfs-", path, content)
}

// isStatic makes sure that this program can be the first one of the guest.
func isStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("vmrun must be linked statically, since it is the guest's init: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// writeCached puts a file in place in one step, since several runs may build
// it at once, and removes all but the newest few of its kind.
func writeCached(cache, kind, path string, content []byte) error {
	tmp, err := os.CreateTemp(cache, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(content); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return pruneCache(cache, kind, 4)
}

func pruneCache(cache, kind string, keep int) error {
	paths, err := filepath.Glob(filepath.Join(cache, kind+"*"))
	if err != nil {
		return err
	}
	age := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(paths, func(a, b string) int { return int(min(1, max(-1, age(b)-age(a)))) })
	var errs []error
	for _, path := range paths[min(keep, len(paths)):] {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// cpio builds an archive in the "newc" format which the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	buf   bytes.Buffer
	inode int
}

func (c *cpio) dir(name string)                      { c.entry(name, 0o040755, 0, 0, nil) }
func (c *cpio) file(name string, mode int, b []byte) { c.entry(name, 0o100000|mode, 0, 0, b) }
func (c *cpio) device(name string, mode, major, minor int) {
	c.entry(name, 0o020000|mode, major, minor, nil)
}

func (c *cpio) entry(name string, mode, major, minor int, content []byte) {
	c.inode++
	fmt.Fprintf(&c.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	c.buf.WriteString(name + "\x00")
	c.pad()
	c.buf.Write(content)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}

func (c *cpio) bytes() []byte {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	return c.buf.Bytes()
}
