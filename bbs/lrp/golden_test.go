package lrp

import (
	"fmt"
	"slices"
	"strings"
)

// The golden file has the answer to every event in every situation. Written one by one these would be
// thousands of lines that nobody reads, so situations with the same answer share a row as far as
// possible: each dimension names the values for which the row holds.

// dimensions of a situation, in the order of the columns.
const (
	inWish = iota
	inOrdinary
	inEvacuating
	inSuspect
	inManner
	dimensions
)

// row is what one event by one caller does in a set of situations: the product of its values.
type row struct {
	event  string // by whom
	values [dimensions][]string
	answer string
}

// row returns the row of one situation.
func (s situation) row(answer string) row {
	event, _, _ := strings.Cut(s.name, ":")
	value := func(a *Actual) []string {
		if a == nil {
			return []string{"none"}
		}
		return []string{showActual(a)}
	}
	wish, manner := "unwanted", "rolling"
	if s.group.Wanted {
		wish = "wanted"
	}
	switch {
	case s.group.Strategy == Recreate && s.group.Complete:
		manner = "recreate, complete"
	case s.group.Strategy == Recreate:
		manner = "recreate"
	}
	return row{event, [dimensions][]string{
		{wish}, value(s.group.Ordinary), value(s.group.Evacuating), value(s.group.Suspect), {manner},
	}, answer}
}

// collapsed writes rows as a text, merging those that differ in one dimension only.
func collapsed(rows []row) string {
	all := map[string]*[dimensions][]string{} // values that occur with an event
	for _, r := range rows {
		if all[r.event] == nil {
			all[r.event] = new([dimensions][]string)
		}
		for d, values := range r.values {
			all[r.event][d] = union(all[r.event][d], values)
		}
	}
	// The last dimensions matter least often.
	for _, d := range []int{inManner, inSuspect, inEvacuating, inWish, inOrdinary} {
		rows = merged(rows, d)
	}
	var b strings.Builder
	b.WriteString("The answer to every event in every situation. A row holds for all combinations of its values; * is any.\n" +
		"Written by TestEverySituation: slot | ordinary | evacuating | suspect | strategy, and then what happens.\n")
	events := map[string]int{}
	for i, r := range rows {
		if _, seen := events[r.event]; !seen {
			events[r.event] = i
		}
	}
	slices.SortStableFunc(rows, func(x, y row) int { return events[x.event] - events[y.event] })
	event := ""
	for _, r := range rows {
		if r.event != event {
			event = r.event
			fmt.Fprintf(&b, "\n%s\n", event)
		}
		var columns []string
		for d, values := range r.values {
			text := strings.Join(values, ", ")
			if len(values) == len(all[event][d]) && len(values) > 1 {
				text = "*"
			}
			if d != inManner || len(all[event][d]) > 1 {
				columns = append(columns, text)
			}
		}
		fmt.Fprintf(&b, "\t%s\n\t\t%s\n", strings.Join(columns, " | "), r.answer)
	}
	return b.String()
}

// merged joins rows that differ only in the values of one dimension.
func merged(rows []row, d int) []row {
	var out []row
	at := map[string]int{}
	for _, r := range rows {
		rest := r.values
		rest[d] = nil
		key := fmt.Sprint(r.event, rest, r.answer)
		if i, ok := at[key]; ok {
			out[i].values[d] = union(out[i].values[d], r.values[d])
			continue
		}
		at[key] = len(out)
		out = append(out, r)
	}
	return out
}

func union(list, more []string) []string {
	list = slices.Clone(list)
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}
