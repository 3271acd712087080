package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// A lab is a topology in a Docker.
type lab struct {
	docker, containerlab string // programs
	topology             string // file
}

// container is the name containerlab gives to a node's container.
func (l *lab) container(node string) string { return "clab-egret-" + node }

// deploy brings the topology up; what an earlier run left is removed first.
func (l *lab) deploy(ctx context.Context) error {
	return run1(ctx, l.containerlab, "deploy", "--reconfigure", "--topo", l.topology)
}

// destroy removes the topology and everything that containerlab wrote for it.
func (l *lab) destroy(ctx context.Context) error {
	return run1(ctx, l.containerlab, "destroy", "--cleanup", "--topo", l.topology)
}

// loss makes a node lose this percentage of what it sends by an interface.
func (l *lab) loss(ctx context.Context, node, device string, percent int) error {
	return run1(ctx, l.containerlab, "tools", "netem", "set", "--node", l.container(node), "--interface", device, "--loss", fmt.Sprint(percent))
}

// exec runs a program on a node and returns its standard output.
func (l *lab) exec(ctx context.Context, node string, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.docker, append([]string{"exec", l.container(node)}, command...)...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("on %s, %q: %w: %s", node, strings.Join(command, " "), err, strings.TrimSpace(complaints.String()))
	}
	return string(out), nil
}

// start runs a program on a node in the background.
func (l *lab) start(ctx context.Context, node string, command ...string) error {
	return run1(ctx, l.docker, append([]string{"exec", "--detach", l.container(node)}, command...)...)
}

// containers lists the lab's containers, one line each with name and state.
func (l *lab) containers(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, l.docker, "ps", "--all", "--filter", "label=containerlab=egret", "--format", "{{.Names}} {{.Status}}").Output()
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, nil
}

// logs are the last lines that a node's main program said.
func (l *lab) logs(ctx context.Context, node string) string {
	out, err := exec.CommandContext(ctx, l.docker, "logs", "--tail", "40", l.container(node)).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s(%v)", out, err)
	}
	return string(out)
}
