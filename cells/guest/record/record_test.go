package record

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster/cells/engine"
	"muster/cells/step"
)

func TestLinesAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := engine.Line{
			At:     time.Unix(0, rapid.Int64().Draw(t, "at")),
			Source: rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "-", "APP/PROC/WEB", "a b"})).Draw(t, "source"),
			Stream: rapid.SampledFrom([]step.Stream{step.Stdout, step.Stderr}).Draw(t, "stream"),
			Text:   rapid.SliceOf(rapid.Byte()).Draw(t, "text"),
		}
		text := AppendLine([]byte("before "), want)
		want.Text = bytes.ReplaceAll(want.Text, []byte("\n"), []byte(" "))
		line, ok := bytes.CutSuffix(text, []byte("\n"))
		if !ok || bytes.Count(text, []byte("\n")) != 1 {
			t.Fatalf("%q is not one line", text)
		}
		got, ok := ParseLine(bytes.TrimPrefix(line, []byte("before ")))
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); !ok || diff != "" {
			t.Fatalf("%v: %s", ok, diff)
		}
	})
}

func TestWhatIsNoRecord(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "1", "1 o", "1 o x", "x o - text", "1 p - text", "1 oo - text", "1 o %zz text", "panic: boom"} {
		if got, ok := ParseLine([]byte(line)); ok {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
	for _, line := range []string{"", "{", "{}", `{"Name":""}`, "goroutine 1 [running]:"} {
		if got, ok := ParseEvent([]byte(line)); ok {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	want := step.Event{
		At: time.Unix(3, 4).UTC(), Name: step.Wants, N: 2, Bytes: 7, Path: "/a\nb",
		Result: step.Result{Failed: true, Reason: "no\nluck", Code: 3, OutOfMemory: true, Output: "\x01"},
	}
	text, err := AppendEvent(nil, want)
	if err != nil || bytes.Count(text, []byte("\n")) != 1 {
		t.Fatalf("%q, %v", text, err)
	}
	got, ok := ParseEvent(text)
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("%v: %s", ok, diff)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte("1 o APP text"))
	f.Fuzz(func(t *testing.T, line []byte) {
		l, ok := ParseLine(line)
		if !ok {
			return
		}
		again, ok := ParseLine(bytes.TrimSuffix(AppendLine(nil, l), []byte("\n")))
		if l.Text = bytes.ReplaceAll(l.Text, []byte("\n"), []byte(" ")); !ok || !cmp.Equal(l, again, cmpopts.EquateEmpty()) {
			t.Errorf("%q is %+v and then %+v", line, l, again)
		}
	})
}
