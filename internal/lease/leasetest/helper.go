package leasetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"muster/internal/lease"
)

// helperEnv marks a process that Helper is to turn into a holder.
const helperEnv = "LEASETEST_HELPER"

// Helper is to be called by TestMain of a package that runs the suite, before anything else: in a process that
// the suite started, it leads until its input ends, and exits. open opens a store from the World's Environment.
func Helper(open func() (lease.Store, error)) {
	if os.Getenv(helperEnv) == "" {
		return
	}
	s, err := open()
	if err == nil {
		err = help(s, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// help leads; it says when it begins, and for each line of input, whether it still may work.
func help(s lease.Store, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(context.Background())
	asked := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			asked <- struct{}{}
		}
		stop()
	}()
	err := lease.Lead(ctx, slog.New(slog.DiscardHandler), s, lease.Campaign{Name: "guarded", Holder: "helper", TTL: ttl,
		Work: func(work context.Context, token uint64) error {
			fmt.Fprintln(out, "began", token)
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-asked: // not the end of work: what is asked is what it says of itself
				}
				fmt.Fprintln(out, "may work:", work.Err() == nil)
			}
		}})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// stoppedProcess stops a holder with a signal, so that its timers do not run, and wakes it up when another
// has the lease.
func stoppedProcess(t *testing.T, w World) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), helperEnv+"=1"), w.Environment...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		in.Close()
		must(t, cmd.Wait())
	}()
	lines := bufio.NewReader(out)
	var token uint64
	_, err = fmt.Fscanf(lines, "began %d\n", &token)
	must(t, err)
	ask := func() (may bool) {
		_, err := fmt.Fprintln(in)
		must(t, err)
		_, err = fmt.Fscanf(lines, "may work: %t\n", &may)
		must(t, err)
		return may
	}
	if !ask() {
		t.Error("a holder may not work")
	}
	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	next := acquire(t, w.Open(t), claim("guarded", "next"))
	must(t, cmd.Process.Signal(syscall.SIGCONT))
	if ask() {
		t.Error("the holder that was stopped thinks that it may work")
	}
	if next.Token() <= token {
		t.Errorf("token %d after %d", next.Token(), token)
	}
	release(t, next)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
