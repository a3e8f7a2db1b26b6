package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// texts is a list of n records of some size, whose revision grows with each read.
func texts(n, size int, reads *int) listing[string, *wrapperspb.StringValue] {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%06d%s", i, strings.Repeat("x", max(0, size-6)))
	}
	return listing[string, *wrapperspb.StringValue]{
		most: maxWholePage, key: func(s string) string { return s }, encode: wrapperspb.String,
		read: func(p store.Page) ([]string, store.Mark, error) {
			*reads++
			if p.Limit == 0 || p.Limit > chunkRows && p.Limit != listPages*maxWholePage {
				return nil, store.Mark{}, errors.New("more rows at once than are to be held in memory")
			}
			return named(all, uint64(*reads), func(s string) string { return s })(p)
		},
	}
}

// Pages, whatever their size, put together are the list, and all name the revision of the first.
func TestPagesAreTheList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 3*chunkRows).Draw(t, "records")
		reads := 0
		l := texts(n, rapid.IntRange(6, 64).Draw(t, "bytes"), &reads)
		var got []string
		token := ""
		for pages := 0; ; pages++ {
			r := &bbsv1.TasksRequest{Domain: "d", PageSize: int32(rapid.IntRange(1, 2*maxWholePage).Draw(t, "page")), PageToken: token}
			a, err := list(t.Context(), r, l)
			if err != nil {
				t.Fatal(err)
			}
			if a.revision != 1 {
				t.Fatalf("page %d names revision %d, want that of the first", pages, a.revision)
			}
			if len(a.records) > min(int(r.PageSize), maxWholePage) || len(a.records) == 0 && token == "" && n > 0 {
				t.Fatalf("a page of %d has %d records", r.PageSize, len(a.records))
			}
			for _, m := range a.records {
				got = append(got, m.GetValue())
			}
			if token = a.next; token == "" {
				break
			}
		}
		if len(got) != n {
			t.Fatalf("%d records in pages, want %d", len(got), n)
		}
		for i, s := range got {
			if s[:6] != fmt.Sprintf("%06d", i) {
				t.Fatalf("record %d is %s", i, s)
			}
		}
	})
}

// A page ends when it is large enough, but never before its first record; a list without pages that
// does not fit is refused with what to do.
func TestLargeRecords(t *testing.T) {
	t.Parallel()
	reads := 0
	l := texts(3, maxPageBytes/2, &reads)
	a, err := list(t.Context(), &bbsv1.TasksRequest{PageSize: 10}, l)
	if err != nil || len(a.records) != 1 || a.next == "" {
		t.Errorf("a page has %d records of half its size (%v), want 1 and more to follow", len(a.records), err)
	}
	l = texts(2, maxPageBytes+1, &reads)
	a, err = list(t.Context(), &bbsv1.TasksRequest{PageSize: 10}, l)
	if err != nil || len(a.records) != 1 || a.next == "" {
		t.Errorf("a page has %d records that are larger than it (%v), want 1", len(a.records), err)
	}
	l = texts(maxListBytes/maxPageBytes+1, maxPageBytes, &reads)
	if _, err = list(t.Context(), &bbsv1.TasksRequest{}, l); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "page_size") {
		t.Errorf("a list that is larger than a message: %v, want %v and what to do", err, codes.ResourceExhausted)
	}
}

// A list that is not asked for in pages is read in few parts, is complete, and names the revision of the
// first one.
func TestLongLists(t *testing.T) {
	t.Parallel()
	const most = listPages * maxWholePage
	for n, parts := range map[int]int{0: 1, 1: 1, most: 1, most + 1: 2, 2*most + 1: 3} {
		reads := 0
		a, err := list(t.Context(), &bbsv1.TasksRequest{}, texts(n, 6, &reads))
		if err != nil || len(a.records) != n || a.revision != 1 || a.next != "" || reads != parts {
			t.Errorf("%d of %d records at revision %d in %d parts (%v), want all at 1 in %d", len(a.records), n, a.revision, reads, err, parts)
		}
		for i, m := range a.records {
			if m.GetValue() != fmt.Sprintf("%06d", i) {
				t.Fatalf("record %d is %s", i, m.GetValue())
			}
		}
	}
}

// A token that is not one, or is of another list, is refused by name.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	reads := 0
	l := texts(10, 6, &reads)
	good, err := list(t.Context(), &bbsv1.TasksRequest{Domain: "d", PageSize: 2}, l)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*bbsv1.TasksRequest{
		"no base64":     {Domain: "d", PageSize: 2, PageToken: "?"},
		"too short":     {Domain: "d", PageSize: 2, PageToken: "AQ"},
		"other release": {Domain: "d", PageSize: 2, PageToken: "_" + good.next[1:]},
		"other filter":  {Domain: "e", PageSize: 2, PageToken: good.next},
		"no key":        {Domain: "d", PageSize: 2, PageToken: good.next[:12]},
	} {
		_, err := list(t.Context(), r, l)
		var inv *lrp.Invalid
		if !errors.As(err, &inv) || inv.Fields[0].Field != "page_token" {
			t.Errorf("%s: %v, want an error that names page_token", name, err)
		}
	}
	_, err = list(t.Context(), &bbsv1.TasksRequest{PageSize: -1}, l)
	var inv *lrp.Invalid
	if !errors.As(err, &inv) || inv.Fields[0].Field != "page_size" {
		t.Errorf("a negative page: %v, want an error that names page_size", err)
	}
	// Another size is no other list.
	if _, err := list(t.Context(), &bbsv1.TasksRequest{Domain: "d", PageSize: 5, PageToken: good.next}, l); err != nil {
		t.Errorf("a page of another size: %v", err)
	}
}

// FuzzTokens reads tokens that nobody made: no panic, and no text that the database cannot compare.
func FuzzTokens(f *testing.F) {
	for _, seed := range []string{"", "AQ", "_", strings.Repeat("A", 40), "AQAAAAAAAAAAAQBh"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := openToken(t.Context(), &bbsv1.TasksRequest{PageToken: text})
		if err == nil && text != "" && (got.after == "" || strings.Contains(got.after, "\x00")) {
			t.Errorf("%q is read as %+v", text, got)
		}
	})
}
