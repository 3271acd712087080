package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// tables picks those of `egret status` whose first line starts with these words.
func tables(status string, heads ...string) string {
	var out []string
	for part := range strings.SplitSeq(status, "\n\n") {
		words := strings.Join(strings.Fields(strings.SplitN(part, "\n", 2)[0]), " ") + " "
		if slices.ContainsFunc(heads, func(head string) bool { return strings.HasPrefix(words, head+" ") }) {
			out = append(out, strings.TrimRight(part, "\n"))
		}
	}
	return strings.Join(out, "\n\n")
}

// planCount counts the operations of `egret plan`, by the tool they are written for.
func planCount(plan string) (total int, summary string) {
	count := map[string]int{}
	for line := range strings.SplitSeq(plan, "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) < 2 || words[0] == "#":
			continue
		case words[0] == "ip", words[0] == "sysctl":
			count[words[0]]++
		case words[1] == "element":
			count["nft elements"]++
		default:
			count["nft"]++
		}
		total++
	}
	var parts []string
	for _, kind := range []string{"nft", "nft elements", "sysctl", "ip"} {
		if n := count[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	return total, strings.Join(parts, ", ")
}

// firstWith picks, for each text, the first line that contains it, in the order of the lines.
func firstWith(lines string, texts ...string) []string {
	var out []string
	found := map[string]bool{}
	for line := range strings.SplitSeq(lines, "\n") {
		for _, text := range texts {
			if !found[text] && strings.Contains(line, text) {
				found[text] = true
				out = append(out, line)
				break
			}
		}
	}
	return out
}

// parseAnswer reads "red saw 198.51.100.3:40000", which a lab's servers say.
func parseAnswer(body string) (server string, client netip.AddrPort, err error) {
	server, seen, ok := strings.Cut(strings.TrimSpace(body), " saw ")
	if !ok {
		return "", netip.AddrPort{}, fmt.Errorf("unexpected answer %q", body)
	}
	client, err = netip.ParseAddrPort(seen)
	return server, client, err
}

// contains says whether one of the prefixes has the address.
func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// join writes things with two blanks between.
func join[T fmt.Stringer](list []T) string {
	var words []string
	for _, v := range list {
		words = append(words, v.String())
	}
	return strings.Join(words, "  ")
}
