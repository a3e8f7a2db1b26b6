package stack

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// logLines is how many of the last lines of a log are shown when a step fails.
const logLines = 15

// Report shows the steps of an Up or Down as they are made. It may be used concurrently.
type Report struct {
	Out  io.Writer
	JSON bool // one object a step

	mu sync.Mutex
}

// logged is an error whose cause stands in a log.
type logged struct {
	err error
	log string
}

func (l *logged) Error() string { return l.err.Error() }
func (l *logged) Unwrap() error { return l.err }

// StepError says which step failed.
type StepError struct {
	Step string
	Err  error
}

// Error names the step.
func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *StepError) Unwrap() error { return e.Err }

// step makes a step and shows what it did and how long it took.
func (r *Report) step(name string, do func() (did string, err error)) error {
	started := time.Now()
	did, err := do()
	took := time.Since(started)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed(name, took, err)
		return &StepError{name, err}
	}
	if r.JSON {
		r.object(map[string]any{"step": name, "ok": true, "did": did, "took_ms": took.Milliseconds()})
		return nil
	}
	fmt.Fprintf(r.Out, "  ✓ %-14s %s\n", name, line(did, took))
	return nil
}

// say shows that something long goes on.
func (r *Report) say(name, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.JSON {
		fmt.Fprintf(r.Out, "  … %-14s %s\n", name, what)
	}
}

func (r *Report) failed(name string, took time.Duration, err error) {
	var l *logged
	lines := []string{}
	if errors.As(err, &l) {
		lines = tail(l.log, logLines)
	}
	if r.JSON {
		r.object(map[string]any{"step": name, "ok": false, "error": err.Error(), "took_ms": took.Milliseconds(), "log": lines})
		return
	}
	fmt.Fprintf(r.Out, "  ✗ %-14s %s\n", name, line("failed", took))
	if l == nil {
		return
	}
	fmt.Fprintf(r.Out, "    the last lines of %s:\n", l.log)
	for _, line := range lines {
		fmt.Fprintf(r.Out, "    | %s\n", line)
	}
}

func (r *Report) object(v any) {
	text, err := json.Marshal(v)
	if err == nil {
		fmt.Fprintf(r.Out, "%s\n", text)
	}
}

// line is what a step did, and, in a column of its own, how long it took.
func line(did string, took time.Duration) string {
	return fmt.Sprintf("%9s  %s", milliseconds(took), did)
}

func milliseconds(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// tail returns the last lines of a file, as far as they are within its last bytes.
func tail(name string, lines int) []string {
	const most = 64 << 10
	f, err := os.Open(name)
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return []string{err.Error()}
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-most), most))
	if err != nil {
		return []string{err.Error()}
	}
	list := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return list[max(0, len(list)-lines):]
}

func digestOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
