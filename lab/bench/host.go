package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// quickCases are those of -quick.
const quickCases = `^(vrf-masquerade|egret-p1-n1|egret-p1000-n1|egret-p1-n1-ft)$`

// host runs the VMs and writes the report.
func host(ctx context.Context, o options, out io.Writer) error {
	egret, err := filepath.Abs(o.egret)
	if err != nil {
		return err
	}
	flowtable, err := knowsFlowtable(egret)
	if err != nil {
		return err
	}
	pattern := o.cases
	if pattern == "" && o.quick {
		pattern = quickCases
	}
	cases, err := withVariants(allCases(flowtable), o.variants)
	if err != nil {
		return err
	}
	if cases, err = selectCases(cases, pattern); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ask := guestOptions{Cases: append([]benchCase{generatorCase, wireCase}, cases...), Packets: o.packets, Rounds: o.rounds, Egret: egret}
	counted, err := o.boot(ctx, self, ask, "-icount")
	if err != nil {
		err = fmt.Errorf("count instructions: %w", err)
		r, reportErr := newReport(measuredCases(cases, counted), counted)
		if reportErr != nil {
			return errors.Join(err, reportErr)
		}
		return errors.Join(err, r.write(out, o.json))
	}
	r, err := newReport(cases, counted)
	if err != nil {
		return err
	}
	r.FlowtableKnown = flowtable
	if o.pps && !o.quick {
		ask.Together = true
		timed, err := o.boot(ctx, self, ask)
		if err != nil {
			return fmt.Errorf("measure packets per second: %w", err)
		}
		if err := r.addRates(timed); err != nil {
			return err
		}
	}
	return r.write(out, o.json)
}

// boot runs a binary of ours in a VM, for the guest's part, and reads its
// measurements, also those before a failure.
func (o options) boot(ctx context.Context, self string, ask guestOptions, flags ...string) ([]measurement, error) {
	text, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	args := append(flags, "-timeout", "30m", self, "-guest", string(text))
	cmd := exec.CommandContext(ctx, o.vmrun, args...)
	// The runner ends its guest on SIGTERM.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var lines bytes.Buffer
	cmd.Stdout, cmd.Stderr = &lines, os.Stderr
	runErr := cmd.Run()
	if runErr != nil {
		runErr = fmt.Errorf("%s: %w", o.vmrun, runErr)
	}
	all, err := readMeasurements(&lines)
	return all, errors.Join(runErr, err)
}

// measuredCases are those of which everything was measured, after a failure.
func measuredCases(cases []benchCase, all []measurement) []benchCase {
	return slices.DeleteFunc(slices.Clone(cases), func(c benchCase) bool {
		return len(byCell(all, c.Name)) < len(reported())
	})
}

// readMeasurements reads the guest's lines.
func readMeasurements(r io.Reader) ([]measurement, error) {
	var out []measurement
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var m measurement
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, fmt.Errorf("read measurement %q: %w", lines.Text(), err)
		}
		out = append(out, m)
	}
	return out, lines.Err()
}
