package crd

import (
	"testing"
	"time"
)

// run lets changes come at an interval for a while, each View taking so long, and
// tells how many Views there were and how long a change waited at most.
func (p *pace) run(now *time.Time, interval, view, during time.Duration) (views int, longest time.Duration) {
	end := now.Add(during)
	for next := *now; next.Before(end); {
		// What came while the View before was made waits as well.
		came := next
		if now.Before(came) {
			*now = came
		}
		*now = now.Add(p.wait(*now))
		longest = max(longest, now.Sub(came))
		for !next.After(*now) {
			next = next.Add(interval)
		}
		*now = now.Add(view)
		p.took(*now, view)
		views++
	}
	return views, longest
}

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name                   string
		interval, view, during time.Duration
		fewest, most           int
		longest                time.Duration
	}{
		{"now and then", 100 * ms, 5 * ms, 10 * time.Second, 100, 100, quiet},
		{"a few one after another", 10 * ms, 5 * ms, 80 * ms, 8, 8, quiet},
		{"a rollout", 4 * ms, 5 * ms, 20 * time.Second, 350, 410, gap + 5*ms},
		{"a rollout in a very large cluster", 4 * ms, 100 * ms, 20 * time.Second, 45, 60, (share + 1) * 100 * ms},
	} {
		var p pace
		now := time.Unix(1000, 0)
		views, longest := p.run(&now, c.interval, c.view, c.during)
		if views < c.fewest || views > c.most || longest > c.longest {
			t.Errorf("%s: %d Views, a change waited for %v", c.name, views, longest)
		}
		// After a rest everything is as at first.
		now = now.Add(10 * time.Second)
		if _, longest := p.run(&now, 10*ms, ms, 40*ms); longest > quiet {
			t.Errorf("%s: a change after a rest waited for %v", c.name, longest)
		}
	}
}
