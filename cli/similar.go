package cli

import (
	"sort"
	"strings"
)

// similar returns up to three names that somebody may have meant: those that contain the word or
// are contained in it, and those at most two letters (a third of a short word) away.
func similar(word string, names []string) []string {
	type candidate struct {
		name string
		far  int
	}
	var found []candidate
	for _, n := range names {
		far := distance(word, n)
		if strings.Contains(n, word) || strings.Contains(word, n) {
			far = min(far, 1)
		}
		if far <= min(2, max(1, len(word)/3)) {
			found = append(found, candidate{n, far})
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].far < found[j].far })
	var out []string
	for _, c := range found[:min(3, len(found))] {
		out = append(out, c.name)
	}
	return out
}

// distance is the number of letters to insert, delete or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
