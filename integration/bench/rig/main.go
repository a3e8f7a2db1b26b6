package rig

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Main is the main function of a bench once its flags are declared: it reads them, checks them, and runs the
// bench until it is done or interrupted. An error ends the program with status 1.
func Main(name string, check func() error, run func(context.Context) error) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := check()
	if err == nil {
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench/%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Peak returns the most memory that a process has had resident so far, in MB.
func Peak(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb / 1024, nil
		}
	}
	return 0, errors.New("the kernel does not say how much memory it has used")
}
