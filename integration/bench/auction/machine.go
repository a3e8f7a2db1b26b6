package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

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
