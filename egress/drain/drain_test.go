package drain

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

// TestStages walks drains through time and counts.
func TestStages(t *testing.T) {
	type step struct {
		at    float64
		count Count
		want  Stage
	}
	order := Order{Delay: time.Second, Deadline: 10 * time.Second}
	known := func(n int) Count { return Count{Known: true, Flows: n} }
	for name, tt := range map[string]struct {
		order       Order
		steps       []step
		begun, left int
		counted     bool
	}{
		"flows end": {order, []step{
			{0, known(0), Lowered}, {0.9, Count{}, Lowered}, {1, known(0), Refusing}, {1.1, Count{}, Refusing},
			{2, known(7), Refusing}, {3, known(2), Refusing}, {4, known(0), Withdrawn}, {5, known(3), Withdrawn}}, 7, 0, true},
		"deadline": {order, []step{
			{1, Count{}, Refusing}, {2, known(7), Refusing}, {9.9, known(3), Refusing}, {10, Count{}, Withdrawn}, {11, known(0), Withdrawn}}, 7, 3, true},
		"never counted":    {order, []step{{1, Count{}, Refusing}, {10, Count{}, Withdrawn}}, 0, 0, false},
		"one stage a time": {order, []step{{3600, known(0), Refusing}, {3600, known(0), Withdrawn}}, 0, 0, true},
		"deadline before the delay's end": {Order{Delay: 5 * time.Second}, []step{
			{4.9, Count{}, Lowered}, {5, Count{}, Refusing}, {5, known(4), Withdrawn}}, 4, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := tt.order.Begin(start)
			for _, s := range tt.steps {
				if r = r.Next(at(s.at), s.count); r.Stage != s.want {
					t.Fatalf("at %gs: %s, want %s", s.at, r.Stage, s.want)
				}
			}
			if r.Begun != tt.begun || r.Left != tt.left || r.Counted != tt.counted || r.Gone() != tt.begun-tt.left {
				t.Errorf("%+v, want begun %d, left %d", r, tt.begun, tt.left)
			}
			if r.Ended.IsZero() || !r.Wake().IsZero() || r.Waits() || !r.Refuses() {
				t.Errorf("at the end %+v", r)
			}
		})
	}
}

// Stages never go back, whatever happens, and Wake is when the next one begins.
func TestStagesOnlyGoForward(t *testing.T) {
	rank := map[Stage]int{Lowered: 1, Refusing: 2, Withdrawn: 3}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		o := Order{Delay: time.Duration(rng.IntN(5)) * time.Second, Deadline: time.Duration(rng.IntN(20)) * time.Second}
		r, now := o.Begin(start), start
		for range 30 {
			before := r
			if wake := r.Wake(); !wake.IsZero() && rng.IntN(2) == 0 {
				now = latest(now, wake)
				if r.Next(now, Count{}).Stage == r.Stage {
					t.Fatalf("%+v: nothing happens at %s", r, now)
				}
			}
			r = r.Next(now, Count{rng.IntN(3) == 0, rng.IntN(3)})
			if step := rank[r.Stage] - rank[before.Stage]; step < 0 || step > 1 {
				t.Fatalf("%s after %s", r.Stage, before.Stage)
			}
			if err := r.check(); err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
			now = now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
			if rng.IntN(9) == 0 {
				r = r.Amend(o, now)
			}
		}
	}
}

func TestAmend(t *testing.T) {
	r := Order{Delay: time.Second, Deadline: 10 * time.Second}.Begin(start).Next(at(1), Count{})
	r = r.Amend(Order{Deadline: time.Minute, Cut: true}, at(5))
	if r.Stage != Refusing || !r.Deadline.Equal(at(65)) || !r.Cut || !r.Since.Equal(start) {
		t.Errorf("%+v", r)
	}
}

func TestOrderCheck(t *testing.T) {
	for _, o := range []Order{{Delay: -1}, {Deadline: -1}, {Delay: MaxDelay + 1}, {Deadline: MaxDeadline + 1}} {
		if o.Check() == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if err := (Order{}).Check(); err != nil {
		t.Error(err)
	}
}

func TestFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	f := InDir(dir)
	if r, err := f.Load(); err != nil || !r.empty() {
		t.Fatalf("no file: %+v, %v", r, err)
	}
	want := Records{Gateway: &Order{Delay: 1, Deadline: 2, Cut: true}, Networks: map[string]Record{
		"red":  Order{Delay: time.Second, Deadline: time.Minute}.Begin(start),
		"blue": {Stage: Withdrawn, Since: start, RefuseAt: at(1), Deadline: at(9), Ended: at(8), Counted: true, Begun: 9, Left: 2},
	}}
	if err := f.Save(want); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v came back as %+v, %v", want, got, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if err := f.Save(Records{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no drains left a file: %v", err)
	}
	if err := f.Save(Records{}); err != nil {
		t.Errorf("no drains twice: %v", err)
	}
}

// A file that Save did not write is corrupt.
func TestCorruptFile(t *testing.T) {
	f := InDir(t.TempDir())
	good := Records{Networks: map[string]Record{"red": Order{}.Begin(start)}}
	if err := f.Save(good); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, bad := range map[string]string{
		"empty":          "",
		"half":           text[:len(text)/2],
		"two":            text + text,
		"version":        strings.Replace(text, `"version": 1`, `"version": 2`, 1),
		"no version":     strings.Replace(text, `"version": 1,`, "", 1),
		"unknown field":  strings.Replace(text, `"version"`, `"what": 1, "version"`, 1),
		"stage":          strings.Replace(text, `"lowered"`, `"gone"`, 1),
		"times":          strings.Replace(text, `"deadline": "2024`, `"deadline": "2023`, 1),
		"delay":          strings.Replace(text, `"networks"`, `"gateway": {"delayNanoseconds": -1, "deadlineNanoseconds": 0}, "networks"`, 1),
		"negative flows": strings.Replace(text, `"stage"`, `"left": -1, "stage"`, 1),
		"large":          text + strings.Repeat(" ", maxFile),
	} {
		if bad == text {
			t.Fatalf("%s: nothing was replaced", name)
		}
		if err := os.WriteFile(f.path, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if r, err := f.Load(); !errors.Is(err, ErrCorrupt) || !r.empty() {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// A write that fails leaves the old file.
func TestFailedSave(t *testing.T) {
	dir := t.TempDir()
	f := InDir(filepath.Join(dir, "file", "below"))
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(Records{Gateway: &Order{}}); err == nil {
		t.Error("saved below a file")
	}
}
