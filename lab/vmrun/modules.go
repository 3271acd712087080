package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// bootModules are what the guest needs to reach the host's file systems.
var bootModules = []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"}

// defaultModules are loaded before the first program, so that what a test
// finds does not depend on what ran before it. Others are loaded by the kernel
// on demand, from the host's /lib/modules.
var defaultModules = []string{
	"vrf", "veth", "dummy", "bridge", "8021q", "vxlan", "macvlan",
	"nf_conntrack", "nf_conntrack_netlink", "nf_tables", "nft_ct", "nft_chain_nat", "nft_nat", "nft_masq",
	"nft_fib_inet", "nft_reject_inet", "nft_hash", "nft_numgen", "nft_limit", "nft_log", "nft_flow_offload", "nf_flow_table_inet",
	"nf_log_syslog", "sch_netem", "sch_tbf",
}

// A moduleIndex is what depmod knows about a kernel's modules.
type moduleIndex struct {
	dir     string              // /lib/modules/VERSION
	files   map[string]string   // module name -> file relative to dir
	needs   map[string][]string // module name -> files of all its dependencies, in the order of modules.dep
	builtin map[string]bool
}

func readModules(dir string) (*moduleIndex, error) {
	f, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x, err := parseModulesDep(f)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", f.Name(), err)
	}
	x.dir = dir
	if text, err := os.ReadFile(filepath.Join(dir, "modules.builtin")); err == nil {
		for line := range strings.SplitSeq(string(text), "\n") {
			x.builtin[moduleName(line)] = true
		}
	}
	return x, nil
}

// parseModulesDep reads modules.dep(5): "file: dependency dependency...", the
// dependencies in the reverse of the order in which they must be loaded.
func parseModulesDep(r io.Reader) (*moduleIndex, error) {
	x := &moduleIndex{files: map[string]string{}, needs: map[string][]string{}, builtin: map[string]bool{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, deps, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		name := moduleName(file)
		x.files[name] = file
		x.needs[name] = strings.Fields(deps)
	}
	return x, lines.Err()
}

// moduleName makes "kernel/net/9p/9pnet-virtio.ko.xz" to "9pnet_virtio".
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// loadOrder lists the files to insert for the wanted modules, dependencies first.
func (x *moduleIndex) loadOrder(wanted []string) ([]string, error) {
	var order []string
	for _, name := range wanted {
		file, ok := x.files[name]
		if !ok {
			if x.builtin[name] {
				continue
			}
			return nil, fmt.Errorf("kernel %s has no module %q", filepath.Base(x.dir), name)
		}
		chain := slices.Clone(x.needs[name])
		slices.Reverse(chain)
		for _, f := range append(chain, file) {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	return order, nil
}

// moduleBytes reads a module and unpacks it, whatever its compression.
func (x *moduleIndex) moduleBytes(file string) ([]byte, error) {
	path := filepath.Join(x.dir, file)
	packed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var tool []string
	switch filepath.Ext(file) {
	case ".ko":
		return packed, nil
	case ".xz":
		tool = []string{"xz", "-dc"}
	case ".zst":
		tool = []string{"zstd", "-dc"}
	case ".gz":
		tool = []string{"gzip", "-dc"}
	default:
		return nil, fmt.Errorf("unpack module %q: unknown compression", path)
	}
	return filter(tool, packed)
}

// filter runs a program with this input and returns its output.
func filter(tool []string, input []byte) ([]byte, error) {
	cmd := exec.Command(tool[0], tool[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(tool, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}
