package runner

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/container"
	"muster/cells/engine"
)

func endedOf(process lrp.ProcessGUID, instance string, at time.Time) ended {
	return ended{
		record: container.Record{Key: lrp.Key{Slot: lrp.Slot{Process: process}}, Instance: lrp.InstanceGUID(instance)},
		at:     at, output: map[engine.Stream][]byte{engine.Stdout: []byte(instance)},
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
	if got, ok := p.output("l48", engine.Stdout); !ok || string(got) != "l48" {
		t.Errorf("output %q, %t", got, ok)
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

// TestLastBytes cuts at a line, whatever the sizes of the reads.
func TestLastBytes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, in, want string }{
		{"what fits stays whole", "a\nb\n", "a\nb\n"},
		{"a line that is cut is dropped", "aaaa\nbbbb\ncccc\n", "cccc\n"},
		{"a cut between lines drops nothing", "aaaa\nbbb\ncccc\n", "bbb\ncccc\n"},
		{"one long line keeps its end", "0123456789abcdef", "789abcdef"},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(row.in), "by byte": iotest.OneByteReader(strings.NewReader(row.in))} {
			got, err := lastBytes(r, 9)
			if err != nil || string(got) != row.want {
				t.Errorf("%s, %s: got %q, %v; want %q", row.name, name, got, err, row.want)
			}
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
