// Command egret is the egress router: the daemon and the tools around it.
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=...).
var version string

func main() {
	if err := rootCommand().Execute(); err != nil {
		var code exitCode
		if errors.As(err, &code) {
			os.Exit(int(code))
		}
		fmt.Fprintln(os.Stderr, "egret: "+err.Error())
		os.Exit(1)
	}
}

// exitCode ends the process with a code after everything has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "egret",
		Short:         "Egress router: external networks in VRFs, BGP inside each, policy and pools",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), checkCommand(), planCommand(), statusCommand(), eventsCommand(), explainCommand(), bgpCommand(),
		drainCommand(), undrainCommand(), teardownCommand(),
		bfdServerCommand(), controllerCommand(), gatewayCommand(), agentCommand(), referenceCommand(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "egret", buildVersion()) },
	}
}

// buildVersion is the linker's version, else the module's or the commit's.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version
}

// logFlags are the logging options of commands that log.
type logFlags struct{ level, format string }

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&f.format, "log-format", "text", "text or json")
}

func (f *logFlags) logger() (*slog.Logger, error) { return f.loggerTo(os.Stderr) }

func (f *logFlags) loggerTo(out io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", f.level)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(out, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: use text or json", f.format)
}

// needRoot explains what is missing instead of letting netlink say EPERM.
func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("this command changes or reads the kernel's network state: run it as root (CAP_NET_ADMIN, CAP_NET_RAW)")
	}
	return nil
}
