package lab

import (
	"errors"
	"path/filepath"
)

// An EgretHost is a namespace that Egret runs in.
type EgretHost struct {
	host   *NS
	binary string
}

// HostEgret has Egret run in a namespace.
func HostEgret(ns *NS) *EgretHost { return &EgretHost{host: ns} }

// ConfigPath is the file that StartEgret and WriteConfig write.
func (h *EgretHost) ConfigPath() string { return filepath.Join(h.host.dir, "egret.yaml") }

// WriteConfig replaces Egret's configuration file, as an editor that writes in place does.
func (h *EgretHost) WriteConfig(text string) error { return writeFile(h.ConfigPath(), text) }

// StartEgret writes the configuration and starts "BINARY run --config FILE"
// with these further arguments in the gateway. It does not wait for anything.
func (h *EgretHost) StartEgret(binary, config string, args ...string) (*Proc, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if err := h.WriteConfig(config); err != nil {
		return nil, err
	}
	h.binary = binary
	return h.host.Start("egret", append([]string{binary, "run", "--config", h.ConfigPath()}, args...)...)
}

// Egret runs another command of the binary that was last started, like
// "status", in the gateway, where the daemon's socket has its default path,
// and returns its standard output.
func (h *EgretHost) Egret(args ...string) (string, error) {
	if h.binary == "" {
		return "", errors.New("egret was not started in this lab")
	}
	return h.host.Run(append([]string{h.binary}, args...)...)
}
