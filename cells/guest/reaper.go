package guest

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper collects the status of every child, its own and those that were left to it. Nobody else waits
// for a child, and none is collected while one is being made or signalled: so no status is lost, and no
// signal reaches another process that got the number of one that has ended.
type reaper struct {
	mu       sync.Mutex
	children map[int]*child
}

// child is a process that the init made.
type child struct {
	pid    int
	of     *reaper
	ended  chan struct{} // closed when the status was collected
	status syscall.WaitStatus
	gone   bool // guarded by of.mu
}

// start makes a child.
func (r *reaper) start(path string, argv []string, attr *syscall.ProcAttr) (*child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, err
	}
	c := &child{pid: pid, of: r, ended: make(chan struct{})}
	r.children[pid] = c
	return c, nil
}

// reap collects all children that have ended. It tells whether there are others.
func (r *reaper) reap() (left bool) {
	for {
		pid, left := r.reapOne()
		if pid <= 0 {
			return left
		}
	}
}

func (r *reaper) reapOne() (pid int, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|unix.WALL, nil)
	for err == syscall.EINTR {
		pid, err = syscall.Wait4(-1, &status, syscall.WNOHANG|unix.WALL, nil)
	}
	if c := r.children[pid]; c != nil && pid > 0 {
		delete(r.children, pid)
		c.status, c.gone = status, true
		close(c.ended)
	}
	return pid, err == nil
}

// signal sends a signal to a child; one that has ended gets none.
func (c *child) signal(s syscall.Signal) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if !c.gone {
		_ = syscall.Kill(c.pid, s)
	}
}

// code is the status as a shell says it.
func (c *child) code() int {
	if c.status.Signaled() {
		return 128 + int(c.status.Signal())
	}
	return c.status.ExitStatus()
}

// killAll kills every process of the container, or every descendant when the init is not the first process
// of one. It tells whether none is left.
func (r *reaper) killAll() (none bool) {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL)
	} else {
		for _, pid := range childrenOf(os.Getpid()) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // their children become ours, and are next
		}
	}
	return !r.reap()
}

// childrenOf lists the children of a process.
func childrenOf(parent int) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}
