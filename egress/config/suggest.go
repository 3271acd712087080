package config

import "strings"

// suggest finds the candidate the user most likely meant, for a message:
// `; did you mean "x"?`, or "". The best candidate must be alone at its
// distance, and near in relation to its length.
func suggest(word string, candidates []string) string {
	if best := nearest(word, candidates); best != "" {
		return "; did you mean " + quote(best) + "?"
	}
	return ""
}

// maxCandidates bounds the work of nearest for a name that is looked up in a
// long list.
const maxCandidates = 500

// maxWord bounds the words that are compared.
const maxWord = 40

func nearest(word string, candidates []string) string {
	if len(word) > maxWord {
		return ""
	}
	word = strings.ToLower(word)
	best, bestDistance, ties := "", 1+max(len(word)/3, 1), 0
	for _, c := range candidates[:min(len(candidates), maxCandidates)] {
		if len(c) > 2*maxWord {
			continue
		}
		d := distance(word, strings.ToLower(c))
		switch {
		case d < bestDistance:
			best, bestDistance, ties = c, d, 0
		case d == bestDistance:
			ties++
		}
	}
	if ties > 0 {
		return ""
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment), in bytes.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row, last, beforeLast := rows[i%3], rows[(i+2)%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], beforeLast[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
