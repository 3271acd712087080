package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A kernel is one that this machine has installed, with modules.
type kernel struct {
	version string
	image   string // /boot/vmlinuz-VERSION
	config  string // /boot/config-VERSION, which may not exist
	modules *moduleIndex
}

const installHint = "install them with: apt-get install --no-install-recommends "

// findKernel chooses the newest installed kernel that has VRFs and the drivers
// which the guest needs. The error says what to install.
func findKernel(root string) (*kernel, error) {
	if _, err := exec.LookPath(qemuProgram); err != nil {
		return nil, fmt.Errorf("%s is missing; %sqemu-system-x86 linux-image-amd64", qemuProgram, installHint)
	}
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(images, func(a, b string) int { return compareVersions(b, a) })
	var rejected []error
	for _, image := range images {
		version := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		modules, err := readModules(filepath.Join(root, "lib", "modules", version))
		if err == nil {
			_, err = modules.loadOrder(append([]string{"vrf"}, bootModules...))
		}
		if err == nil {
			err = readable(image)
		}
		if err != nil {
			rejected = append(rejected, fmt.Errorf("%s: %w", image, err))
			continue
		}
		config := filepath.Join(root, "boot", "config-"+version)
		return &kernel{version: version, image: image, config: config, modules: modules}, nil
	}
	return nil, errors.Join(append(rejected,
		fmt.Errorf("no kernel with VRFs and its modules in /boot and /lib/modules; %slinux-image-amd64", installHint))...)
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// compareVersions orders names by their numbers, as ls -v does: 6.9 before 6.10.
func compareVersions(a, b string) int {
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	}
	x, y := split(a), split(b)
	for i := range min(len(x), len(y)) {
		m, errM := strconv.ParseUint(x[i], 10, 64)
		n, errN := strconv.ParseUint(y[i], 10, 64)
		if errM == nil && errN == nil && m != n {
			if m < n {
				return -1
			}
			return 1
		}
	}
	if d := len(x) - len(y); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

// pvh says whether QEMU can enter the kernel's ELF image directly.
func (k *kernel) pvh() bool {
	text, err := os.ReadFile(k.config)
	return err == nil && bytes.Contains(text, []byte("\nCONFIG_PVH=y\n"))
}

var errNoPayload = errors.New("no payload of a known compression")

// unpackKernel extracts the ELF image from a bzImage: the emulated processor
// would take 1.5 to 3 s for what this one does in 0.2 s. The header's fields are
// those of Documentation/x86/boot.rst, protocol 2.08 and later.
func unpackKernel(image []byte) ([]byte, error) {
	const setupSects, magic, payloadOffset, payloadLength = 0x1f1, 0x202, 0x248, 0x24c
	if len(image) < payloadLength+4 || string(image[magic:magic+4]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	le := binary.LittleEndian
	sects := int(image[setupSects])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*512 + int(le.Uint32(image[payloadOffset:]))
	end := start + int(le.Uint32(image[payloadLength:]))
	if start < 0 || end > len(image) || start >= end {
		return nil, errors.New("payload lies outside of the image")
	}
	payload := image[start:end]
	// Four bytes with the unpacked size follow the compressed stream.
	var tool []string
	switch {
	case bytes.HasPrefix(payload, []byte("\xfd7zXZ\x00")):
		tool = []string{"xz", "--single-stream", "-dc"}
	case bytes.HasPrefix(payload, []byte("\x28\xb5\x2f\xfd")):
		tool, payload = []string{"zstd", "-dc"}, payload[:len(payload)-4]
	case bytes.HasPrefix(payload, []byte("\x1f\x8b")):
		tool, payload = []string{"gzip", "-dc"}, payload[:len(payload)-4]
	default:
		return nil, errNoPayload
	}
	elf, err := filter(tool, payload)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return nil, errors.New("the payload is not an ELF image")
	}
	return elf, nil
}
