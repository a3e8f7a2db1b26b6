package accesslog

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLine(t *testing.T) {
	r := Record{
		Host: []byte("shop.apps.example.net"), Method: []byte("GET"), URI: []byte("/cart?id=7"), Proto: "HTTP/1.1",
		UserAgent: []byte("probe/2.0"), ForwardedFor: []byte("203.0.113.9"), ForwardedProto: []byte("https"),
		RequestID: []byte("1b4e28ba-2fa1-41d2-883f-0016d3cca427"), ClientAddr: "203.0.113.9:40112", BackendAddr: "10.0.16.5:61014",
		App: "3f0a", Index: "2", InstanceID: "9d2e", Received: time.Date(2026, 3, 4, 5, 6, 7, 123, time.UTC), Status: 200, BytesOut: 512,
		Took: 12345 * time.Microsecond, Own: 210 * time.Microsecond,
	}
	want := `shop.apps.example.net - [2026-03-04T05:06:07.000000123Z] "GET /cart?id=7 HTTP/1.1" 200 0 512 "-" "probe/2.0" "203.0.113.9:40112" ` +
		`"10.0.16.5:61014" x_forwarded_for:"203.0.113.9" x_forwarded_proto:"https" vcap_request_id:"1b4e28ba-2fa1-41d2-883f-0016d3cca427" ` +
		`response_time:0.012345 gorouter_time:0.000210 app_id:"3f0a" app_index:"2" instance_id:"9d2e" x_cf_routererror:"-"` + "\n"
	if got := string(r.Append(nil)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	empty := Record{Own: -1, Took: -1, UserAgent: []byte(`a"b`)}
	if got := string(empty.Append(nil)); !strings.Contains(got, `" "-" 0 0 "-" "a\"b" "-" "-"`) || !strings.Contains(got, `response_time:"-" gorouter_time:"-"`) {
		t.Errorf("got %s", got)
	}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf = r.Append(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestNothingInAValueEndsIt reads values back as a consumer would.
func TestNothingInAValueEndsIt(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`a"b`: `"a\"b"`, `\`: `"\\"`, `\" x_cf_routererror:"`: `"\\\" x_cf_routererror:\""`,
		"a\r\nb\tc": `"a\x0d\x0ab\x09c"`, "\x1b[2J\x7f\x00": `"\x1b[2J\x7f\x00"`, "grün": `"grün"`,
	} {
		got := string(appendQuoted(nil, "", value))
		if back, err := strconv.Unquote(got); got != want || err != nil || back != value {
			t.Errorf("%q: got %s, which reads as %q (%v); want %s", value, got, back, err, want)
		}
	}
	r := Record{Method: []byte("GE\rT"), URI: []byte("/\x1b[1A")}
	if got := string(r.Append(nil)); !strings.Contains(got, `"GE\x0dT /\x1b[1A "`) {
		t.Errorf("a request that was refused: %q", got)
	}
}

// full fails like a disk.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

func TestAFullDiskIsToldOnce(t *testing.T) {
	t.Parallel()
	var told bytes.Buffer
	out := &full{}
	l := New(out, slog.New(slog.NewTextHandler(&told, nil)))
	for _, left := range []int{0, 0, 0, 1, 0, 0} {
		out.left = left
		l.Shard().Add([]byte("line\n"))
		l.flush()
	}
	if n := strings.Count(told.String(), "\n"); n != 2 {
		t.Errorf("told %d times, want once for each time it broke: %s", n, told.String())
	}
}

// stuck does not return from its first write until it is let go.
type stuck struct {
	in, goOn chan struct{}
	b        bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	select {
	case s.in <- struct{}{}:
		<-s.goOn
	default:
	}
	return s.b.Write(p)
}

func TestASlowDiskLosesLinesAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	out := &stuck{in: make(chan struct{}), goOn: make(chan struct{})}
	l := New(out, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	s := l.Shard()
	s.Add([]byte("first\n"))
	<-out.in
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 2 * ShardBytes / len(line) {
		s.Add(line)
	}
	close(out.goOn)
	cancel()
	<-done
	written := strings.Count(out.b.String(), "\n")
	if int(l.Dropped()) != ShardBytes/len(line) || written != 1+ShardBytes/len(line) {
		t.Errorf("wrote %d, dropped %d", written, l.Dropped())
	}
}
