// Command grow measures how the figures of the other benches change with the number of instances that
// exist, draws them, and writes docs/benchmarks.md. It runs bench/bbs and bench/converge for each number
// of instances, one after the other, and keeps the lines that they print in docs/benchmarks/results.jsonl.
// What is there already is not measured again, so an interrupted run goes on where it was; -fresh begins
// anew. On an idle machine of two cores it takes about twenty minutes; a million instances are most of it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"muster/integration/bench/rig"
)

func main() {
	o := options{}
	sizes := flag.String("lrps", "10000,100000,250000,1000000", "numbers of instances, 1000 to 2000000, multiples of 10")
	flag.StringVar(&o.dir, "dir", "docs", "`directory` for benchmarks.md and benchmarks/")
	flag.StringVar(&o.rounds, "rounds", "3", "rounds of bench/bbs")
	flag.DurationVar(&o.limit, "limit", 25*time.Minute, "stop measuring after this time; what was measured is kept and drawn")
	flag.BoolVar(&o.fresh, "fresh", false, "forget what was measured before")
	flag.BoolVar(&o.draw, "draw-only", false, "measure nothing, draw what is there")
	rig.Main("grow", func() error { return o.parse(*sizes) }, func(ctx context.Context) error { return run(ctx, o) })
}

type options struct {
	lrps   []int
	dir    string
	rounds string
	limit  time.Duration
	fresh  bool
	draw   bool
}

func (o *options) parse(sizes string) error {
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1000 || n > 2_000_000 || n%10 != 0 {
			return fmt.Errorf("-lrps %q: want numbers of 1000 to 2000000, multiples of 10, with commas between them", sizes)
		}
		o.lrps = append(o.lrps, n)
	}
	return nil
}

// line is one object that a bench printed, by the names of its members.
type line map[string]any

func (l line) number(name string) (float64, bool) {
	v, ok := l[name].(float64)
	return v, ok
}

// key tells which measurement a line belongs to.
func (l line) key() string { return fmt.Sprint(l["bench"], " ", l["lrps"]) }

func run(ctx context.Context, o options) error {
	results := filepath.Join(o.dir, "benchmarks", "results.jsonl")
	if err := os.MkdirAll(filepath.Dir(results), 0o755); err != nil {
		return err
	}
	if o.fresh {
		if err := os.Remove(results); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	lines, err := read(results)
	if err != nil {
		return err
	}
	if !o.draw {
		if lines, err = measure(ctx, o, results, lines); err != nil {
			return err
		}
	}
	return write(o.dir, lines)
}

// measure runs the benches that are missing and keeps what they print.
func measure(ctx context.Context, o options, results string, lines []line) ([]line, error) {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	there := map[string]bool{}
	for _, l := range lines {
		there[l.key()] = true
	}
	for _, n := range o.lrps {
		for _, bench := range [][]string{
			{"bbs", "-lrps", strconv.Itoa(n), "-rounds", o.rounds},
			{"converge", "-lrps", strconv.Itoa(n)},
		} {
			if there[fmt.Sprint(bench[0], " ", float64(n))] {
				continue
			}
			fmt.Fprintf(os.Stderr, "== bench/%s, %d instances\n", bench[0], n)
			begin := time.Now()
			added, err := one(ctx, results, bench)
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				fmt.Fprintf(os.Stderr, "stopped after %v: run it again to measure the rest\n", o.limit)
				return lines, nil
			}
			if err != nil {
				return nil, fmt.Errorf("bench/%s with %d instances: %w", bench[0], n, err)
			}
			fmt.Fprintf(os.Stderr, "== took %v\n", time.Since(begin).Round(time.Second))
			lines = append(lines, added...)
		}
	}
	return lines, nil
}

// one runs a bench and appends its lines to the results.
func one(ctx context.Context, results string, bench []string) ([]line, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", "./integration/bench/" + bench[0]}, bench[1:]...)...)
	// go run passes an interrupt on; a kill would leave the bench behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	lines, err := parse(bytes.NewReader(out.Bytes()))
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(results, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(out.Bytes())
	return lines, errors.Join(err, f.Close())
}

func read(name string) ([]line, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

func parse(r io.Reader) ([]line, error) {
	var all []line
	for dec := json.NewDecoder(r); ; {
		var l line
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the results of a bench: %w", err)
		}
		all = append(all, l)
	}
}
