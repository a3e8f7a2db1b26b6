package rep_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"muster/cells/inmem"
)

// app is the program of all containers of a test, and what their ports answer.
type app struct {
	mu     sync.Mutex
	procs  map[string]*proc // by instance GUID
	starts int
	closed map[string]bool // ports that refuse connections
}

type proc struct {
	exit   chan int
	stdout io.Writer
	stderr io.Writer
	env    []string
}

func newApp() *app { return &app{procs: map[string]*proc{}, closed: map[string]bool{}} }

// run is the program: it runs until it is told to exit or signalled.
func (a *app) run(p inmem.Proc) int {
	me := &proc{exit: make(chan int, 1), stdout: p.Stdout, stderr: p.Stderr, env: p.Env}
	for _, v := range p.Env {
		if guid, ok := strings.CutPrefix(v, "INSTANCE_GUID="); ok {
			a.mu.Lock()
			a.procs[guid] = me
			a.starts++
			a.mu.Unlock()
		}
	}
	fmt.Fprintln(p.Stdout, "started")
	for {
		select {
		case code := <-me.exit:
			return code
		case s := <-p.Signals:
			if s == syscall.SIGTERM {
				fmt.Fprintln(p.Stderr, "terminated")
				return 0
			}
		case <-p.Killed:
			return 0
		}
	}
}

func (a *app) proc(guid string) *proc {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.procs[guid]
}

func (a *app) started() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.starts
}

// set opens or closes a port of all containers.
func (a *app) set(port string, open bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed[port] = !open
}

// dial is how health checks reach the containers.
func (a *app) dial(_ context.Context, network, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed[port] {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addr(address), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	mine, theirs := net.Pipe()
	theirs.Close()
	return mine, nil
}

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
