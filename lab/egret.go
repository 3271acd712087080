package lab

import (
	"errors"
	"path/filepath"
)

// ConfigPath is the file that StartEgret and WriteConfig write.
func (o *Overlap) ConfigPath() string { return filepath.Join(o.Gateway.dir, "egret.yaml") }

// WriteConfig replaces Egret's configuration file, as an editor that writes in place does.
func (o *Overlap) WriteConfig(text string) error { return writeFile(o.ConfigPath(), text) }

// StartEgret writes the configuration and starts "BINARY run --config FILE"
// with these further arguments in the gateway. It does not wait for anything.
func (o *Overlap) StartEgret(binary, config string, args ...string) (*Proc, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if err := o.WriteConfig(config); err != nil {
		return nil, err
	}
	o.egretBinary = binary
	return o.Gateway.Start("egret", append([]string{binary, "run", "--config", o.ConfigPath()}, args...)...)
}

// Egret runs another command of the binary that was last started, like
// "status", in the gateway, where the daemon's socket has its default path,
// and returns its standard output.
func (o *Overlap) Egret(args ...string) (string, error) {
	if o.egretBinary == "" {
		return "", errors.New("egret was not started in this lab")
	}
	return o.Gateway.Run(append([]string{o.egretBinary}, args...)...)
}
