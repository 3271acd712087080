package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// narrator tells the user what happens, each line with the seconds since the
// start. It may be used by several goroutines.
type narrator struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
}

func newNarrator(out io.Writer) *narrator {
	return &narrator{out: out, start: time.Now()}
}

// step begins a stage of the story.
func (n *narrator) step(format string, args ...any) {
	n.line("==> ", fmt.Sprintf(format, args...))
}

// ok reports something that was checked and holds.
func (n *narrator) ok(format string, args ...any) {
	n.line("  ok  ", fmt.Sprintf(format, args...))
}

// quote shows a program's output, indented.
func (n *narrator) quote(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for line := range strings.Lines(text) {
		fmt.Fprintf(n.out, "        | %s\n", strings.TrimRight(line, "\r\n"))
	}
}

func (n *narrator) line(prefix, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.out, "%6.1fs %s%s\n", time.Since(n.start).Seconds(), prefix, text)
}
