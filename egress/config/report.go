package config

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/egret-router/egret/egress"
)

// maxPrinted bounds how many problems Error prints; Error.Problems has all.
const maxPrinted = 200

// Error is a configuration that was refused. It has at least one Problem.
type Error struct {
	// Path is the file's name as it was given to Load or Read.
	Path string
	// Problems are all mistakes found, in the order of the file.
	Problems []egress.Problem
	// Lines has the line of each Problem, counted from 1; 0 is not known.
	Lines []int
}

// Error prints one problem per line, "path:line: field: message".
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxPrinted {
			fmt.Fprintf(&b, "%s: and %d more problems", e.Path, len(e.Problems)-i)
			break
		}
		b.WriteString(e.Path)
		b.WriteByte(':')
		if e.Lines[i] > 0 {
			fmt.Fprintf(&b, "%d:", e.Lines[i])
		}
		b.WriteByte(' ')
		b.WriteString(p.String())
	}
	return b.String()
}

// path is the path of a field, as the user would write it: networks[1].bgp.asn.
type path string

func (p path) key(k string) path {
	if !plainKey(k) {
		k = strconv.Quote(shorten(k))
	}
	if p == "" {
		return path(k)
	}
	return p + "." + path(k)
}

func (p path) index(i int) path { return p + path("["+strconv.Itoa(i)+"]") }

func plainKey(k string) bool {
	if k == "" || len(k) > maxQuoted {
		return false
	}
	for _, c := range k {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// parents calls visit for p and everything p is inside of, innermost first.
func (p path) parents(visit func(path)) {
	for p != "" {
		visit(p)
		p = p[:max(strings.LastIndexAny(string(p), ".["), 0)]
	}
}

// finding is a Problem on its way to the user.
type finding struct {
	at      path
	message string
	// line is 0 when it has to be looked up by the path.
	line int
	// needs is the part of the file this finding was judged against, when that
	// is not the field itself: a dangling name needs the list it was looked up in.
	needs path
	// covers is the field whose value is unreliable because of this finding; "" is at.
	covers path
}

// report collects findings. Methods that check a value add a finding and
// return false when it is bad.
type report struct{ findings []finding }

func (r *report) add(at path, format string, args ...any) {
	r.findings = append(r.findings, finding{at: at, message: fmt.Sprintf(format, args...)})
}

// dangling adds a finding that is only to be believed when needs is sound.
func (r *report) dangling(needs, at path, format string, args ...any) {
	r.findings = append(r.findings, finding{at: at, message: fmt.Sprintf(format, args...), needs: needs})
}

func (r *report) problems() []egress.Problem {
	var problems []egress.Problem
	for _, f := range r.findings {
		problems = append(problems, egress.Problem{Field: string(f.at), Message: f.message})
	}
	return problems
}

// withoutConsequences drops those later findings that a first finding explains:
// on the same field, inside it, around it, or judged against it.
func withoutConsequences(first, later []finding) []finding {
	covered, around := map[path]bool{}, map[path]bool{}
	for _, f := range first {
		at := f.at
		if f.covers != "" {
			at = f.covers
		}
		covered[at] = true
		at.parents(func(p path) { around[p] = true })
	}
	kept := first
	for _, f := range later {
		explained := around[f.at] || f.needs != "" && around[f.needs]
		f.at.parents(func(p path) { explained = explained || covered[p] })
		if !explained {
			kept = append(kept, f)
		}
	}
	return kept
}

// newError sorts findings by line. Every finding must have its line by now.
func newError(name string, findings []finding) *Error {
	sort.SliceStable(findings, func(i, j int) bool { return findings[i].line < findings[j].line })
	e := &Error{Path: name}
	for _, f := range findings {
		e.Problems = append(e.Problems, egress.Problem{Field: string(f.at), Message: f.message})
		e.Lines = append(e.Lines, f.line)
	}
	return e
}
