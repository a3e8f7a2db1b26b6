package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pin binds all threads of the process, and those they start, to one of the processors that it may use.
func pin() error {
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("ask for the processors: %w", err)
	}
	for i := range len(allowed) * 64 {
		if allowed.IsSet(i) {
			one = unix.CPUSet{} // the last one: the first serves most interrupts
			one.Set(i)
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &one); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("bind thread %d to a processor: %w", id, err)
		}
	}
	return nil
}

// resetPeak forgets how much memory the process has had resident.
func resetPeak() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// peak returns how much memory the process has had resident since resetPeak, in MB.
func peak() (int, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb / 1024, nil
		}
	}
	return 0, errors.New("the kernel does not say how much memory the process has had")
}
