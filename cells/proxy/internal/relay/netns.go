package relay

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownNetns is the network namespace of the process; all its threads are there.
const ownNetns = "/proc/self/ns/net"

// namespaces moves between the network namespace of the process and those of containers.
type namespaces struct{ own *os.File }

func openNamespaces() (namespaces, error) {
	own, err := os.Open(ownNetns)
	if err != nil {
		return namespaces{}, fmt.Errorf("own network namespace: %w", err)
	}
	return namespaces{own}, nil
}

// inside calls f on a thread in a network namespace; nil: where the thread is. Sockets that f makes stay there.
func (n namespaces) inside(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	runtime.LockOSThread()
	if err := enter(ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := f()
	if enter(n.own) == nil {
		runtime.UnlockOSThread()
	} // else the thread, being in the wrong place, ends with the goroutine
	return err
}

// enter moves the thread. The file is held meanwhile: were it closed, its number could be another's.
func enter(ns *os.File) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Name(), err)
	}
	var moved error
	if err := raw.Control(func(fd uintptr) { moved = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Name(), err)
	}
	if moved != nil {
		return fmt.Errorf("enter network namespace %s: %w", ns.Name(), moved)
	}
	return nil
}
