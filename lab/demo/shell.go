package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/egret-router/egret/lab"
)

// play brings the lab up, gives a shell on our terminal, and closes the lab
// when the shell ends.
func (d *demo) play() error {
	// An interrupt belongs to the shell's commands; it must not take the lab away from them.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT, syscall.SIGQUIT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	l, err := lab.Start(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = d.serveShell(ctx, l)
	if err != nil {
		l.WriteLogs(os.Stdout, 20)
	}
	return errors.Join(err, l.Close())
}

func (d *demo) serveShell(ctx context.Context, l *lab.Lab) error {
	d.screen.line("bringing up the routers, the servers and egret...")
	if err := d.build(l); err != nil {
		return err
	}
	if err := d.launch(); err != nil {
		return err
	}
	if err := d.waitServing(ctx); err != nil {
		return err
	}
	bin := filepath.Join(l.Dir, "bin")
	socket := filepath.Join(l.Dir, "demo.sock")
	if err := d.writeCommands(bin, socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	go d.listen(ctx, listener)
	rc := filepath.Join(l.Dir, "bashrc")
	if err := os.WriteFile(rc, []byte(bashrc(bin, d.ConfigPath())), 0o644); err != nil {
		return err
	}
	fmt.Fprint(d.screen.out, d.cheatSheet())
	shell := exec.CommandContext(ctx, "bash", "--noprofile", "--rcfile", rc, "-i")
	shell.Stdin, shell.Stdout, shell.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The exit code of a shell is that of its last command, and nothing to complain about.
	err = shell.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && ctx.Err() == nil {
		return nil
	}
	return err
}

// bashrc is the start file of the shell; it comes after nothing, so that every
// machine's shell is the same.
func bashrc(bin, config string) string {
	return strings.Join([]string{
		"PATH=" + bin + ":$PATH",
		"CONFIG=" + config,
		`PS1='egret-lab:\w# '`,
		"HISTFILE=",
		"",
	}, "\n")
}

// cheatSheet is what is printed before the shell.
func (d *demo) cheatSheet() string {
	rows := [][]string{
		{"egret status", "the daemon's view (-o json); also: egret plan -c $CONFIG"},
		{"fetch a | fetch b", "http://10.0.0.5/ as a client of team a, of team b; fetch a 6 by IPv6"},
		{"cut red | heal red", "the link beyond red's router (or blue's)"},
		{"vtysh | birdc", "red's router (FRR), blue's router (BIRD); vtysh -c 'show bgp summary'"},
		{"client | gw", "a shell in the clients' or the gateway's namespace, or a command: gw ip route show vrf red"},
		{"red-router | red-server", "the same in these; and blue-router, blue-server"},
		{"vi $CONFIG", "edit the running configuration; it is reloaded when written"},
		{"daemon log | kill | start", "its log; kill -9; a new one"},
		{"cheat | exit", "this sheet; the end of the lab"},
	}
	var b strings.Builder
	b.WriteString("\n" + topology + "\n")
	for i := range rows {
		rows[i][0] = d.screen.paint(bold, rows[i][0])
	}
	for _, line := range align(rows) {
		b.WriteString("  " + line + "\n")
	}
	b.WriteString("\n")
	return b.String()
}

// writeCommands fills a directory with the shell's commands.
func (d *demo) writeCommands(dir, socket string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	egretlab := filepath.Join(filepath.Dir(self), "egretlab")
	programs := map[string]string{"egret": d.binary, "egretlab": egretlab, "demo": self}
	// With these names in PATH a command must not find itself.
	for _, name := range []string{"vtysh", "birdc", "cut"} {
		if programs[name], err = exec.LookPath(name); err != nil {
			return err
		}
	}
	scripts := commandScripts(d.enterWords(), programs, socket)
	scripts["cheat"] = "cat <<'SHEET'\n" + d.cheatSheet() + "SHEET\n"
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/bash\n"+text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// enterWords are, for each namespace, the words that run the words behind them in it.
func (d *demo) enterWords() map[string]string {
	enter := map[string]string{}
	for _, ns := range d.Namespaces() {
		var words []string
		for _, w := range ns.EnterCommand() {
			words = append(words, quoteWord(w))
		}
		enter[ns.Name] = strings.Join(words, " ")
	}
	return enter
}

// commandScripts are the bodies of the shell's commands. enter has the words
// that enter each namespace, programs the paths of what they run; this process
// listens on socket.
func commandScripts(enter, programs map[string]string, socket string) map[string]string {
	tell := quoteWord(programs["demo"]) + " -tell " + quoteWord(socket)
	program := func(name string) string { return " " + quoteWord(programs[name]) }
	// nsenter forgets the working directory.
	const keep = ` sh -c 'cd "$0" && exec "$@"' "$PWD" `
	scripts := map[string]string{}
	for name, words := range enter {
		scripts[name] = "[[ $# -gt 0 ]] || set -- bash --norc --noprofile\n" +
			"export PS1='" + name + ":\\w# '\nexec " + words + keep + `"$@"` + "\n"
	}
	scripts["egret"] = "exec " + enter["gw"] + keep + program("egret") + ` "$@"` + "\n"
	scripts["vtysh"] = "exec " + enter["red-router"] + program("vtysh") + ` "$@"` + "\n"
	scripts["birdc"] = "exec " + enter["blue-router"] + program("birdc") + ` -s /run/bird.ctl "$@"` + "\n"
	scripts["egretlab"] = "exec " + enter["client"] + program("egretlab") + ` "$@"` + "\n"
	scripts["fetch"] = fetchScript(enter["client"] + program("egretlab"))
	scripts["heal"] = "exec " + tell + ` heal "$@"` + "\n"
	scripts["daemon"] = "exec " + tell + ` daemon "$@"` + "\n"
	// cut(1) is somebody else's command, too.
	scripts["cut"] = `case "$#:$1" in 1:red | 1:blue) exec ` + tell + ` cut "$1" ;; esac` + "\n" + `exec` + program("cut") + ` "$@"` + "\n"
	return scripts
}

func fetchScript(egretlab string) string {
	var b strings.Builder
	b.WriteString("case \"$1:${2:-4}\" in\n")
	for _, t := range teams() {
		letter := strings.TrimPrefix(t.name, "team ")
		fmt.Fprintf(&b, "  %s:4) exec %s fetch -source %s %s ;;\n", letter, egretlab, t.client4, url(server(t.client4)))
		fmt.Fprintf(&b, "  %s:6) exec %s fetch -source %s %s ;;\n", letter, egretlab, t.client6, url(server(t.client6)))
	}
	b.WriteString("esac\necho 'usage: fetch a|b [4|6]' >&2; exit 2\n")
	return b.String()
}

// quoteWord quotes a word for a shell.
func quoteWord(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// listen serves what the shell's commands tell us, one line each.
func (d *demo) listen(ctx context.Context, listener net.Listener) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return // closed
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		line, _ := bufio.NewReader(io.LimitReader(c, 1<<10)).ReadString('\n')
		out, err := d.obey(ctx, strings.Fields(line))
		if err != nil {
			out = "error: " + err.Error() + "\n"
		}
		_, _ = io.WriteString(c, out) // the command may be gone
		c.Close()
	}
}

// obey carries out one of the shell's wishes and returns what to print.
func (d *demo) obey(ctx context.Context, words []string) (string, error) {
	switch text := strings.Join(words, " "); text {
	case "cut red", "cut blue":
		return "", d.CutBeyond(words[1])
	case "heal red", "heal blue":
		return "", d.Heal(words[1])
	case "daemon log":
		return d.daemon.Log(), nil
	case "daemon kill":
		d.daemon.Kill9()
		return "", nil
	case "daemon start":
		if d.daemon.Running() {
			return "", errors.New("the daemon runs (daemon kill)")
		}
		// The user may have changed the file: it stays.
		p, err := d.Gateway.Start("egret", d.binary, "run", "--config", d.ConfigPath())
		if err == nil {
			d.daemon = p
		}
		return "", err
	}
	return "", errors.New("usage: cut|heal red|blue, daemon log|kill|start")
}

// tell tells a running demo something and prints its answer.
func tell(socket string, words []string, out io.Writer) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return fmt.Errorf("the lab is gone: %w", err)
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, strings.Join(words, " ")); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if reason, ok := strings.CutPrefix(string(answer), "error: "); ok {
		return errors.New(strings.TrimSpace(reason))
	}
	_, err = out.Write(answer)
	return err
}
