package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// useColors resolves the flag -color. Without a wish it follows no-color.org:
// colours on terminals, unless NO_COLOR is set and not empty.
func useColors(wish string, f *os.File, getenv func(string) string) bool {
	switch wish {
	case "always":
		return true
	case "never":
		return false
	}
	if getenv("NO_COLOR") != "" || getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// A screen writes the story: numbered steps with indented lines below them.
type screen struct {
	out    io.Writer
	colors bool
	steps  int
	began  time.Time
	// now is the clock, which tests set.
	now  func() time.Time
	step time.Time // when the present step began
}

func newScreen(out io.Writer, colors bool) *screen {
	return &screen{out: out, colors: colors, began: time.Now(), now: time.Now}
}

// The colours in use, as parameters of SGR (ECMA-48 8.3.117).
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
)

func (s *screen) paint(sgr, text string) string {
	if !s.colors || text == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// network paints the name of a network in its colour.
func (s *screen) network(name string) string {
	return s.paint(map[string]string{"red": red, "blue": blue}[name], name)
}

// start begins a step.
func (s *screen) start(title string) {
	s.steps++
	s.step = s.now()
	fmt.Fprintf(s.out, "\n%s  %s\n", s.paint(bold, fmt.Sprintf("%2d", s.steps)), s.paint(bold, title))
}

// done ends a step: what was seen, and how long it took.
func (s *screen) done(format string, args ...any) {
	took := fmt.Sprintf(" (%.1f s)", s.now().Sub(s.step).Seconds())
	fmt.Fprintf(s.out, "    %s  %s%s\n", s.paint(green, "ok"), fmt.Sprintf(format, args...), s.paint(dim, took))
}

// line writes a line of the story.
func (s *screen) line(format string, args ...any) {
	fmt.Fprintf(s.out, "    %s\n", fmt.Sprintf(format, args...))
}

// quote writes what a program has printed.
func (s *screen) quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintln(s.out, strings.TrimRight("    "+s.paint(dim, "|")+" "+line, " "))
	}
}

// table writes aligned columns.
func (s *screen) table(rows ...[]string) {
	for _, line := range align(rows) {
		s.line("%s", line)
	}
}

func (s *screen) failed(err error) {
	fmt.Fprintf(s.out, "    %s  %s\n\n", s.paint(red, "FAILED"), err)
}

func (s *screen) end() {
	fmt.Fprintf(s.out, "\n%s in %.0f s. make demo-shell leaves the same lab up to play in.\n",
		s.paint(green, fmt.Sprintf("All %d steps were seen", s.steps)), s.now().Sub(s.began).Seconds())
}

// align pads all cells but the last of a row to the widest of their column,
// with two blanks between. Escape sequences have no width.
func align(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(cell))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-width(cell)+2))
			}
		}
		lines = append(lines, b.String())
	}
	return lines
}

// width counts the characters that are seen.
func width(text string) int {
	n := 0
	for {
		before, rest, found := strings.Cut(text, "\x1b[")
		n += utf8.RuneCountInString(before)
		if !found {
			return n
		}
		_, text, _ = strings.Cut(rest, "m")
	}
}
