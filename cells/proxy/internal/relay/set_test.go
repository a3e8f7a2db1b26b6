package relay

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/proxy"
)

// named answers with a name.
func named(t testing.TB, name string) string {
	return app(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, name); echo(c) })
}

func (w *world) hears(address, id string) string {
	w.t.Helper()
	c := w.dial(address, w.client(id))
	defer c.Close()
	got := make([]byte, 1)
	_, err := io.ReadFull(c, got)
	must(w.t, err)
	return string(got)
}

func TestSetChangesWhatIsNewOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	a, b := named(t, "a"), named(t, "b")
	first := proxy.Listener{Address: freeAddress(t), Target: a, Certificate: w.certificate(guid)}
	second := first
	second.Address = freeAddress(t)
	must(t, w.relay.Set(proxy.Container{ID: guid, Listeners: []proxy.Listener{first}}))
	held := w.dial(first.Address, w.client(guid))
	for range 2 { // the second time changes nothing
		must(t, w.relay.Set(proxy.Container{ID: guid, Listeners: []proxy.Listener{first, second}}))
		if got := w.hears(first.Address, guid) + w.hears(second.Address, guid); got != "aa" {
			t.Errorf("got %q", got)
		}
	}
	first.Target = b
	must(t, w.relay.Set(proxy.Container{ID: guid, Listeners: []proxy.Listener{first}}))
	if got := w.hears(first.Address, guid); got != "b" {
		t.Errorf("got %q after the target was changed", got)
	}
	if _, err := net.Dial("tcp", second.Address); err == nil {
		t.Error("a listener that is not wanted any more is open")
	}
	_, err := io.ReadFull(held, make([]byte, 1))
	must(t, err)
	say(t, held, "still here")
	if all := w.relay.List(); len(all) != 1 || all[0].ID != guid || all[0].Connections == 0 || len(all[0].Listeners) != 1 || all[0].Problems != nil {
		t.Errorf("list %+v", all)
	}
}

func TestRemoveCutsEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	address := w.front(guid, app(t, echo), nil)
	c := w.dial(address, w.client(guid))
	say(t, c, "here")
	if !w.relay.Remove(guid) || w.relay.Remove(guid) {
		t.Error("removed twice, or not at all")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("its connection sees %v, want a reset", err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("its port is open")
	}
	until(t, "let go of", func() bool { return w.relay.Connections() == 0 })
}

// A Set that fails changes nothing.
func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	a := named(t, "a")
	good := proxy.Listener{Address: freeAddress(t), Target: a, Certificate: w.certificate(guid)}
	must(t, w.relay.Set(proxy.Container{ID: guid, Listeners: []proxy.Listener{good}}))
	fresh, taken := good, good
	fresh.Address, taken.Address = freeAddress(t), a
	err := w.relay.Set(proxy.Container{ID: guid, Listeners: []proxy.Listener{good, fresh, taken}})
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), guid) {
		t.Errorf("got %v", err)
	}
	if got := w.hears(good.Address, guid); got != "a" {
		t.Errorf("got %q", got)
	}
	if _, err := net.Dial("tcp", fresh.Address); err == nil {
		t.Error("a listener of a Set that failed is open")
	}
	// What a process did before is tried again until it can be done.
	blocker, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	late := good
	late.Address = blocker.Addr().String()
	w.relay.Restore(proxy.Container{ID: "late", Listeners: []proxy.Listener{late}}, nil)
	if all := w.relay.List(); len(all) != 2 || all[1].Problems[late.Address] == "" {
		t.Errorf("list %+v", all)
	}
	blocker.Close()
	until(t, "opened", func() bool { return w.relay.List()[1].Problems == nil })
	w.certificate("late")
	if got := w.hears(late.Address, guid); got != "a" {
		t.Errorf("got %q", got)
	}
}

// netns makes a network namespace with its loopback up, and removes it when the test ends. in runs something inside.
func netns(t *testing.T) (path string, in func(func() error) error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "netns")
	must(t, os.WriteFile(path, nil, 0o600))
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			lo, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			lo.SetUint16(unix.IFF_UP)
			if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}()
	}()
	must(t, <-made)
	t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
	ns, err := openNamespaces()
	must(t, err)
	file, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { file.Close(); ns.own.Close() })
	return path, func(f func() error) error { return ns.inside(file, f) }
}

// What listens inside of a container is reached there, and what it passes on goes to that container, although
// others have the same address.
func TestInsideOfANetworkNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testConfig())
	path, in := netns(t)
	outside := named(t, "o")
	var l net.Listener
	must(t, in(func() (err error) { l, err = net.Listen("tcp", outside); return err })) // the same address
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.WriteString(c, "i"); _, _ = io.Copy(c, c) }()
		}
	}()
	base := proxy.Listener{Target: outside, Certificate: w.certificate(guid)}
	inner, outer := base, base
	inner.Address, inner.Inside, outer.Address = "127.0.0.1:61443", true, freeAddress(t)
	c := proxy.Container{ID: guid, Netns: path, Listeners: []proxy.Listener{inner, outer}}
	must(t, w.relay.Set(c))
	if got := w.hears(outer.Address, guid); got != "i" {
		t.Errorf("through the port of the cell: %q", got)
	}
	if _, err := net.Dial("tcp", inner.Address); err == nil {
		t.Error("the port inside is open outside")
	}
	must(t, in(func() error {
		c, err := (&tls.Dialer{Config: w.client(guid), NetDialer: &net.Dialer{Timeout: 5 * time.Second}}).Dial("tcp", inner.Address)
		if err != nil {
			return err
		}
		defer c.Close()
		got := make([]byte, 1)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "i" {
			t.Errorf("through the port inside: %q %v", got, err)
		}
		return nil
	}))
	c.Netns = "/nowhere"
	if err := w.relay.Set(c); err == nil || !strings.Contains(err.Error(), "remove it first") {
		t.Errorf("another network namespace: %v", err)
	}
	w.relay.Remove(guid)
	if err := w.relay.Set(c); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a network namespace that is not there: %v", err)
	}
}
