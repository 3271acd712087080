package main

import (
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/flows"
	"github.com/egret-router/egret/egress/nat"
	"github.com/egret-router/egret/egress/sysctl"
	"github.com/egret-router/egret/vrf"
)

// machine is this network namespace's kernel, as the commands that read or
// change it need it.
type machine struct {
	kernel  *vrf.Kernel
	filter  *nat.Table
	sysctls *sysctl.Store
	flows   *flows.Table
	// bfdSocket is that of the process with the BFD sessions, if it runs.
	bfdSocket string
}

// openMachine needs root. The record of kernel settings lies in the run
// directory.
func openMachine(s egress.Settings, log *slog.Logger) (*machine, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	kernel, err := vrf.Open(s.Ownership.Owner(), log)
	if err != nil {
		return nil, err
	}
	filter, err := nat.Open(log)
	if err != nil {
		kernel.Close()
		return nil, err
	}
	conntrack, err := flows.Open(log)
	if err != nil {
		kernel.Close()
		return nil, err
	}
	return &machine{kernel, filter, sysctl.Open("/proc/sys", filepath.Join(s.RunDir, "sysctl.json"), log), conntrack, bfdSocket(s.RunDir)}, nil
}

func (m *machine) Close() error { return errors.Join(m.kernel.Close(), m.flows.Close()) }
