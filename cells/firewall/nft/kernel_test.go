package nft

import (
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onThread runs a function on a thread of its own, which then ends with all that was done to it.
func onThread(t *testing.T, change func() error, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := change()
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Places in what a filter of system calls sees, and the answer instead of a socket for netfilter.
const (
	callNumber, firstArgument, thirdArgument = 0, 16, 32
	withoutNetfilter                         = unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)
)

// loseNetfilter makes the kernel answer the thread as one that was built without netfilter's netlink does.
func loseNetfilter() error {
	unless := func(at, value uint32, skip uint8) []unix.SockFilter {
		return []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip},
		}
	}
	program := append(unless(callNumber, unix.SYS_SOCKET, 5), unless(firstArgument, unix.AF_NETLINK, 3)...)
	program = append(program, unless(thirdArgument, unix.NETLINK_NETFILTER, 1)...)
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: withoutNetfilter},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}

func TestAKernelWithoutNftables(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	onThread(t, loseNetfilter, func() {
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), "load the modules nf_tables") {
			t.Errorf("opened: %v", err)
		}
		if got, err := Containers(c.cfg.Table); err != nil || len(got) > 0 {
			t.Errorf("there are rules of %q, %v", got, err)
		}
		if err := Destroy(c.cfg.Table); err != nil {
			t.Errorf("there is nothing to remove: %v", err)
		}
	})
}

func TestWithoutTheRight(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	drop := func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		return unix.Capset(&header, &none[0])
	}
	onThread(t, drop, func() {
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("opened: %v", err)
		}
	})
}
