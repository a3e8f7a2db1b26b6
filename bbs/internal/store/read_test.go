package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"muster/bbs/lrp"
	"muster/internal/pgtest"
)

// Pages of any size are the list, in the order of slots, and go on in the middle of a process.
func TestPages(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.Database(t, Migrate), Options{})
	for _, p := range []string{"b", "a", "a_b", "axb"} {
		must(t, s.Desire(t.Context(), app(p, 3), Call{}))
	}
	want := []string{"0/0/a", "0/1/a", "0/2/a", "0/0/a_b", "0/1/a_b", "0/2/a_b", "0/0/axb", "0/1/axb", "0/2/axb", "0/0/b", "0/1/b", "0/2/b"}
	for limit := range len(want) + 2 {
		var got []string
		page := Page{Limit: limit}
		for more := true; more; more = page.After != "" {
			list, at, err := s.Actuals(t.Context(), ActualFilter{Domain: "d"}, page)
			must(t, err)
			if limit > 0 && len(list) > limit {
				t.Errorf("a page of %d has %d records", limit, len(list))
			}
			for _, a := range list {
				got = append(got, Position(a))
			}
			page.After = at.After
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want %v", limit, got, want)
		}
	}
	list, _, err := s.Scheduling(t.Context(), DesiredFilter{Prefixes: []string{"a_"}}, Page{})
	if err != nil || len(list) != 1 || list[0].Process != "a_b" {
		t.Errorf("processes that begin with a_: %v (%v), want a_b: the _ is a letter", list, err)
	}
	some, _, err := s.ActualsOf(t.Context(), []lrp.ProcessGUID{"a", "b", "absent"})
	if err != nil || len(some) != 6 {
		t.Errorf("%d records of two processes (%v), want 6", len(some), err)
	}
	if none, _, err := s.ActualsOf(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("%d records of no process (%v), want none", len(none), err)
	}
	var inv *lrp.Invalid
	for _, after := range []string{"x", "0/0/", "9/0/a", "0/x/a", "-1/0/a"} {
		if _, _, err := s.Actuals(t.Context(), ActualFilter{}, Page{After: after, Limit: 1}); !errors.As(err, &inv) {
			t.Errorf("after %q: %v, want an error that names page_token", after, err)
		}
	}
}

// Rows that cannot be read are left out of pages as of lists, and end none of them early.
func TestPagesWithUnreadableRows(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.Database(t, Migrate), Options{})
	for i := range 10 {
		must(t, s.Desire(t.Context(), app(fmt.Sprint("p", i), 0), Call{}))
	}
	// The whole second page of 3, and the end of the third.
	if _, err := s.Pools.Write.Exec(t.Context(), `update desired_lrps set routes = '\x01ff' where process_guid in ('p3', 'p4', 'p5', 'p8')`); err != nil {
		t.Fatal(err)
	}
	var got []string
	page := Page{Limit: 3}
	for more := true; more; more = page.After != "" {
		list, at, err := s.Scheduling(t.Context(), DesiredFilter{}, page)
		must(t, err)
		for _, d := range list {
			got = append(got, string(d.Process))
		}
		page.After = at.After
	}
	if want := []string{"p0", "p1", "p2", "p6", "p7", "p9"}; !slices.Equal(got, want) {
		t.Errorf("%v in pages, want %v", got, want)
	}
}
