package runner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
)

func endedOf(process lrp.ProcessGUID, instance string, at time.Time) ended {
	return ended{
		record: container.Record{Key: lrp.Key{Slot: lrp.Slot{Process: process}}, Instance: lrp.InstanceGUID(instance)},
		at:     at, log: []engine.Line{{Text: []byte(instance)}},
	}
}

func instancesOf(records []container.Record) []lrp.InstanceGUID {
	var ids []lrp.InstanceGUID
	for _, r := range records {
		ids = append(ids, r.Instance)
	}
	return ids
}

// TestPastIsBounded keeps few instances of each process, few in all, and none for long.
func TestPastIsBounded(t *testing.T) {
	t.Parallel()
	var p past
	now := time.Unix(1000, 0)
	p.keep(endedOf("quiet", "q0", now))
	for n := range 50 {
		p.keep(endedOf("loud", fmt.Sprint("l", n), now.Add(time.Second)))
	}
	if diff := cmp.Diff([]lrp.InstanceGUID{"q0", "l47", "l48", "l49"}, instancesOf(p.records(now))); diff != "" {
		t.Error(diff)
	}
	if got, ok := p.log("l48"); !ok || len(got) != 1 || string(got[0].Text) != "l48" {
		t.Errorf("log %v, %t", got, ok)
	}
	if diff := cmp.Diff([]lrp.InstanceGUID{"l47", "l48", "l49"}, instancesOf(p.records(now.Add(pastTime)))); diff != "" {
		t.Error(diff)
	}
	for n := range 2 * pastInstances {
		p.keep(endedOf(lrp.ProcessGUID(fmt.Sprint("p", n)), fmt.Sprint("i", n), now.Add(time.Second)))
	}
	if got := p.records(now); len(got) != pastInstances || got[0].Instance != lrp.InstanceGUID(fmt.Sprint("i", pastInstances)) {
		t.Errorf("%d kept, the first is %s", len(got), got[0].Instance)
	}
}

// TestLastLines keeps whole lines, and at least one.
func TestLastLines(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, in, want string }{
		{"none", "", ""},
		{"what fits", "a b", "a b"},
		{"the oldest go", "aaaa bbbb cccc", "bbbb cccc"},
		{"exactly", "aaa bbbbb cccc", "bbbbb cccc"},
		{"one long line stays", "a 0123456789", "0123456789"},
	} {
		var lines []engine.Line
		for _, word := range strings.Fields(row.in) {
			lines = append(lines, engine.Line{Text: []byte(word)})
		}
		got, err := lastLines(&keptLog{rest: lines}, 9)
		var words []string
		for _, l := range got {
			words = append(words, string(l.Text))
		}
		if err != nil || strings.Join(words, " ") != row.want {
			t.Errorf("%s: got %q, %v; want %q", row.name, words, err, row.want)
		}
	}
}

// TestComplaintsThinOut counts what is logged of an hour of failures.
func TestComplaintsThinOut(t *testing.T) {
	t.Parallel()
	logged := 0
	for failures := range 3600 {
		if wait := retryAfter(failures); wait < minRetry/2 || wait >= maxRetry {
			t.Fatalf("wait %v after %d failures", wait, failures)
		}
		if notable(failures) {
			logged++
		}
	}
	if !notable(0) || !notable(1) || logged > 15 {
		t.Errorf("%d complaints", logged)
	}
}
