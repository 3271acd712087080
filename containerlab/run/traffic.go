package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseAnswer reads what server/index.cgi says: "<network> saw <address>".
func parseAnswer(text string) (network string, saw netip.Addr, err error) {
	words := strings.Fields(text)
	if len(words) != 3 || words[1] != "saw" {
		return "", saw, fmt.Errorf("parse the server's answer %q", text)
	}
	saw, err = netip.ParseAddr(words[2])
	return words[0], saw, err
}

// pings is a steady ping of both families on a node, in the background.
type pings struct {
	lab     *lab
	node    string
	targets []netip.Addr
}

// startPings begins 5 echo requests per second to each target.
func startPings(ctx context.Context, l *lab, node string, targets ...netip.Addr) (*pings, error) {
	p := &pings{lab: l, node: node, targets: targets}
	for _, t := range targets {
		script := fmt.Sprintf("exec ping -i 0.2 %s >%s", t, p.output(t))
		if err := l.start(ctx, node, "sh", "-c", script); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pings) output(target netip.Addr) string { return "/tmp/ping-" + target.String() }

// stop ends them and returns how many answers came in all; an error names the
// ones that are missing.
func (p *pings) stop(ctx context.Context) (int, error) {
	if _, err := p.lab.exec(ctx, p.node, "killall", "-INT", "ping"); err != nil {
		return 0, err
	}
	var total int
	var errs []error
	for _, t := range p.targets {
		var out string
		err := eventually(ctx, 30*time.Second, "ping's statistics", func(ctx context.Context) (err error) {
			out, err = p.lab.exec(ctx, p.node, "cat", p.output(t))
			if err == nil && !strings.Contains(out, "packets transmitted") {
				err = errors.New("ping has not ended")
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		answered, missing, err := parsePing(out)
		total += answered
		if len(missing) > 0 {
			err = fmt.Errorf("ping of %s from %s: %d answers, missing %v", t, p.node, answered, missing)
		}
		errs = append(errs, err)
	}
	return total, errors.Join(errs...)
}

// parsePing reads busybox's ping: the number of answers, and the sequence
// numbers below the highest answered that were not.
func parsePing(out string) (answered int, missing []int, err error) {
	seen := map[int]bool{}
	for line := range strings.Lines(out) {
		_, rest, ok := strings.Cut(line, " seq=")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return 0, nil, fmt.Errorf("parse ping's line %q: %w", line, err)
		}
		seen[n] = true
	}
	if len(seen) == 0 {
		return 0, nil, fmt.Errorf("ping had no answer: %q", out)
	}
	highest := 0
	for n := range seen {
		highest = max(highest, n)
	}
	for n := range highest {
		if !seen[n] {
			missing = append(missing, n)
		}
	}
	slices.Sort(missing)
	return len(seen), missing, nil
}
