package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/proxy"
	"muster/cells/proxy/internal/handover"
)

// handoverTimeout bounds each half of a handover: until all sockets are there, and until the successor is ready.
const handoverTimeout = 10 * time.Second

// held is what makes a process the one of its directory.
type held struct {
	dir       string
	lock      *os.File
	control   *net.UnixListener
	successor *net.UnixListener   // where a successor asks
	inherited map[string]*os.File // sockets of containers
	before    *net.UnixConn       // to the process before, until confirm
}

func (h *held) path(name string) string { return filepath.Join(h.dir, name) }

// hold takes a directory that nobody has, or takes it over.
func hold(cfg *Config) (*held, error) {
	h := &held{dir: cfg.Dir}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, failed("dir", err)
	}
	lock, err := os.OpenFile(h.path(proxy.LockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, failed("dir", err)
	}
	switch err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		h.lock = lock
		return h, h.listen()
	case !errors.Is(err, unix.EWOULDBLOCK):
		err = failed("lock dir", err)
	case !cfg.TakeOver:
		err = fmt.Errorf("dir %s: another cell-proxy has it: end that, or give -takeover to replace it", cfg.Dir)
	default:
		err = h.takeOver()
	}
	lock.Close()
	if err != nil {
		return nil, err
	}
	return h, nil
}

// listen opens the sockets of the process itself.
func (h *held) listen() (err error) {
	open := func(network, name string) *net.UnixListener {
		if err != nil {
			return nil
		}
		var l *net.UnixListener
		if err = os.RemoveAll(h.path(name)); err == nil { // of a process that is gone
			l, err = net.ListenUnix(network, &net.UnixAddr{Net: network, Name: h.path(name)})
		}
		if l != nil {
			l.SetUnlinkOnClose(false) // a successor may listen there
		}
		return l
	}
	h.successor = open(handover.Network, proxy.HandoverFile)
	h.control = open("unix", proxy.ControlFile)
	if err != nil {
		h.close()
		return failed("listen in dir", err)
	}
	return nil
}

// takeOver asks the process that has the directory for everything.
func (h *held) takeOver() error {
	address := &net.UnixAddr{Net: handover.Network, Name: h.path(proxy.HandoverFile)}
	c, err := net.DialUnix(handover.Network, nil, address)
	if err != nil {
		return failed("take over", err)
	}
	files, err := handover.Receive(c, handoverTimeout)
	if err != nil {
		c.Close()
		return err
	}
	h.before, h.inherited, h.lock = c, files, files[proxy.LockFile]
	delete(files, proxy.LockFile)
	for name, l := range map[string]**net.UnixListener{proxy.ControlFile: &h.control, proxy.HandoverFile: &h.successor} {
		if *l, err = listenerOf(files[name]); err != nil {
			h.close()
			return failed("take over "+name, err)
		}
		delete(files, name)
	}
	if h.lock == nil {
		h.close()
		return errors.New("take over: the lock is missing")
	}
	return nil
}

// listenerOf returns the listener of a file, which it closes.
func listenerOf(f *os.File) (*net.UnixListener, error) {
	if f == nil {
		return nil, errors.New("it is missing")
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("it is no Unix socket")
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// confirm tells the process before, if there is one, that everything is in use. What nobody has a use for is closed.
func (h *held) confirm() error {
	for _, f := range h.inherited {
		f.Close()
	}
	h.inherited = nil
	if h.before == nil {
		return nil
	}
	defer func() { h.before.Close(); h.before = nil }()
	return handover.Confirm(h.before)
}

// close lets the directory go. Sockets and lock stay with a successor.
func (h *held) close() {
	for _, f := range h.inherited {
		f.Close()
	}
	if h.before != nil {
		h.before.Close()
	}
	if h.successor != nil {
		h.successor.Close()
	}
	if h.control != nil {
		h.control.Close()
	}
	if h.lock != nil {
		h.lock.Close()
	}
}
