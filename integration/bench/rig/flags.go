package rig

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
)

// MaxCallers is how many callers a bench makes at once, at most.
const MaxCallers = 4096

// Within returns what is wrong with a number that a flag gave.
func Within(flag string, value, low, high int) error {
	if value < low || value > high {
		return fmt.Errorf("-%s %d: want %d to %d", flag, value, low, high)
	}
	return nil
}

// Callers reads the flag -callers: numbers of callers at once, with commas between them.
func Callers(text string) (all []int, err error) {
	var errs []error
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil {
			errs = append(errs, fmt.Errorf("-callers %q: want numbers with commas between them", text))
			continue
		}
		errs = append(errs, Within("callers", n, 1, MaxCallers))
		all = append(all, n)
	}
	return all, errors.Join(errs...)
}

// MedianOf is Median of one figure of some samples.
func MedianOf[S any](samples []S, figure func(S) float64) float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = figure(s)
	}
	return Median(all)
}

// ProfileBoth begins CPU profiles of a replica and of the bench itself, in files of that name with .bbs and
// .callers, and returns how to end them. An empty name makes none.
func ProfileBoth(b *Replica, file string) (end func() error) {
	if file == "" {
		return func() error { return nil }
	}
	f, err := os.Create(file + ".callers")
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	done := Profile(b, file+".bbs")
	return func() error {
		pprof.StopCPUProfile()
		return errors.Join(err, <-done, f.Close())
	}
}
