package probes

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var (
	errTest = errors.New("no reply")
	epoch   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// play feeds a tracker with attempts, one per second: '+' is a success, '-' a
// failure. It returns the verdict after each as a letter.
func play(t *tracker, attempts string, rise, fall int) string {
	var b strings.Builder
	for i, c := range attempts {
		o := outcome{at: epoch.Add(time.Duration(i+1) * time.Second), rtt: time.Duration(i+1) * time.Millisecond}
		if c == '-' {
			o.err = errTest
		}
		t.observe(o, &Config{Rise: rise, Fall: fall})
		b.WriteByte("?UD"[t.state.Verdict])
	}
	return b.String()
}

func TestTracker(t *testing.T) {
	for _, c := range []struct {
		rise, fall     int
		attempts, want string
	}{
		{1, 1, "+-+-", "UDUD"},
		{3, 2, "+", "?"}, // one success does not lift an Unknown
		{3, 2, "+++", "??U"},
		{3, 2, "--", "?D"},
		{3, 2, "++-+++", "?????U"}, // the failure starts the count anew
		{3, 2, "-+-+-+", "??????"},
		{3, 2, "+++-+--", "??UUUUD"},
		{3, 2, "--++-+++", "?DDDDDDU"},
		{2, 5, "++----+-----", "?UUUUUUUUUUD"},
		{1, 3, "---+---", "??DUUUD"},
	} {
		tr := newTracker("x", epoch)
		if got := play(&tr, c.attempts, c.rise, c.fall); got != c.want {
			t.Errorf("rise %d fall %d: %s gives %s, want %s", c.rise, c.fall, c.attempts, got, c.want)
		}
	}
}

func TestTrackerRecords(t *testing.T) {
	tr := newTracker("x", epoch)
	if s := tr.state; s != (TargetState{Target: "x", Since: epoch}) {
		t.Errorf("at the start: %+v", s)
	}
	play(&tr, "++-", 2, 2)
	want := TargetState{Target: "x", Verdict: Up, Since: epoch.Add(2 * time.Second), LastRTT: 2 * time.Millisecond,
		LastError: "no reply", Attempts: 3, Failures: 1, Changes: 1,
		RTT: RTT{Count: 2, Sum: 3 * time.Millisecond, Min: time.Millisecond, Max: 2 * time.Millisecond, Smoothed: 1125 * time.Microsecond}}
	if tr.state != want {
		t.Errorf("got %+v, want %+v", tr.state, want)
	}
	tr.observe(outcome{at: epoch.Add(time.Hour), rtt: time.Second}, &Config{Rise: 2, Fall: 2})
	if tr.state.LastError != "" || !tr.state.Since.Equal(want.Since) || tr.state.LastRTT != time.Second {
		t.Errorf("after a success: %+v", tr.state)
	}
}

func TestNewThresholdsApplyToTheNextAttempt(t *testing.T) {
	tr := newTracker("x", epoch)
	if got := play(&tr, "+++---", 3, 10); got != "??UUUU" {
		t.Fatal(got)
	}
	if got := play(&tr, "-", 3, 4); got != "D" {
		t.Errorf("four failures in a row with fall 4: %s", got)
	}
}

// TestTrackerProperty compares with a model that remembers everything: the
// verdict is that of the latest run of equal outcomes that was long enough.
func TestTrackerProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		rise, fall := 1+random.IntN(5), 1+random.IntN(5)
		var attempts []byte
		bias := random.Float64()
		for range 60 {
			attempts = append(attempts, map[bool]byte{true: '+', false: '-'}[random.Float64() < bias])
		}
		tr := newTracker("x", epoch)
		got := play(&tr, string(attempts), rise, fall)
		verdict, changes := byte('?'), 0
		for i := range attempts {
			now := verdict
			if strings.HasSuffix(string(attempts[:i+1]), strings.Repeat("+", rise)) {
				now = 'U'
			}
			if strings.HasSuffix(string(attempts[:i+1]), strings.Repeat("-", fall)) {
				now = 'D'
			}
			if now != verdict {
				verdict, changes = now, i+1
			}
			if got[i] != verdict {
				t.Fatalf("rise %d fall %d: %s gives %s, wrong at %d", rise, fall, attempts, got, i)
			}
		}
		if want := epoch.Add(time.Duration(changes) * time.Second); !tr.state.Since.Equal(want) {
			t.Fatalf("rise %d fall %d: %s: since %v, want %v", rise, fall, attempts, tr.state.Since, want)
		}
	}
}

func TestCombine(t *testing.T) {
	for _, c := range []struct{ targets, any, all string }{
		{"", "?", "?"}, {"?", "?", "?"}, {"U", "U", "U"}, {"D", "D", "D"},
		{"UU", "U", "U"}, {"UD", "U", "D"}, {"DD", "D", "D"},
		{"U?", "U", "?"}, {"D?", "?", "D"}, {"??", "?", "?"}, {"UD?", "U", "D"},
	} {
		for require, want := range map[Require]string{Any: c.any, All: c.all} {
			// The order of the targets does not matter.
			for _, targets := range []string{c.targets, reversed(c.targets)} {
				var v []Verdict
				for _, r := range targets {
					v = append(v, Verdict(strings.IndexRune("?UD", r)))
				}
				if got := string("?UD"[combine(require, v)]); got != want {
					t.Errorf("%s of %q: %s, want %s", require, targets, got, want)
				}
			}
		}
	}
}

// TestCombineProperty: over all combinations, any and all are each other's
// mirror image, and resolving an Unknown never contradicts what was decided.
func TestCombineProperty(t *testing.T) {
	mirror := []Verdict{Unknown, Down, Up}
	for n := range 6 {
		total := 1
		for range n {
			total *= 3
		}
		for code := range total {
			v, m := make([]Verdict, n), make([]Verdict, n)
			for i, c := 0, code; i < n; i, c = i+1, c/3 {
				v[i], m[i] = Verdict(c%3), mirror[c%3]
			}
			if combine(Any, v) != mirror[combine(All, m)] {
				t.Fatalf("any %v = %v, but all %v = %v", v, combine(Any, v), m, combine(All, m))
			}
			for _, require := range []Require{Any, All} {
				decided := combine(require, v)
				for i := range v {
					if v[i] != Unknown || decided == Unknown {
						continue
					}
					for _, later := range []Verdict{Up, Down} {
						w := append([]Verdict{}, v...)
						w[i] = later
						if combine(require, w) != decided {
							t.Fatalf("%s %v = %v, but %v = %v", require, v, decided, w, combine(require, w))
						}
					}
				}
			}
		}
	}
}

func TestQuorum(t *testing.T) {
	for _, c := range []struct {
		n             int
		targets, want string
	}{
		{1, "UDD", "U"}, {1, "DDD", "D"}, {2, "UUD", "U"}, {2, "UDD", "D"}, {2, "U?D", "?"}, {2, "UU?", "U"}, {2, "DD?", "D"},
		{3, "UUU", "U"}, {3, "UUD", "D"}, {3, "UU?", "?"}, {4, "UUU", "?"}, {0, "UUU", "?"},
	} {
		var v []Verdict
		for _, r := range c.targets {
			v = append(v, Verdict(strings.IndexRune("?UD", r)))
		}
		if got := string("?UD"[combine(Quorum(c.n), v)]); got != c.want {
			t.Errorf("%d of %q: %s, want %s", c.n, c.targets, got, c.want)
		}
	}
	for n := 1; n < 5; n++ { // any and all are quorums
		if Any.needs(n) != 1 || All.needs(n) != n || Quorum(n).needs(n) != n || Quorum(n+1).needs(n) != 0 || Require("01").needs(n) != 0 {
			t.Errorf("%d targets", n)
		}
	}
}

func reversed(s string) string {
	out := ""
	for _, r := range s {
		out = string(r) + out
	}
	return out
}

func TestErrorTextIsBounded(t *testing.T) {
	for _, s := range []string{"", "a\nb", "\xff\xfe", strings.Repeat("ä", 400), strings.Repeat("x", 299) + "äöü"} {
		got := errorText(errors.New(s))
		if got == "" || len(got) > maxError || !utf8.ValidString(got) || strings.Contains(got, "\n") {
			t.Errorf("%q becomes %q", s, got)
		}
	}
	if got := errorText(fmt.Errorf("dial: %w", errTest)); got != "dial: no reply" {
		t.Errorf("%q", got)
	}
}
