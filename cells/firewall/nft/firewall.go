package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/firewall"
)

// Config says whose containers a Firewall is for.
type Config struct {
	Prefix string // names the tables; belongs to one cell of the machine alone
	Bridge string // that all containers of the cell are connected to; at most 15 characters
	Policy firewall.Policy
}

// Link is the end of a container's network that is outside: a port of the bridge.
type Link struct {
	Device string           // name of the port, e.g. veth1a2b3c4d; at most 15 characters
	MAC    net.HardwareAddr // of the device inside; 6 bytes
}

// Bounds of a Firewall.
const (
	maxPrefix    = 64
	maxDevice    = unix.IFNAMSIZ - 1
	maxAddresses = 4 // of one container
	macLength    = 6
	// socketBytes is the room for one transaction, and for its answers: thousands of rules.
	socketBytes = 32 << 20
)

var (
	prefixPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	idPattern     = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// Firewall is the rules of a cell in the kernel. Its methods may be called concurrently, but only one
// Firewall of a prefix may be open at a time.
type Firewall struct {
	cfg    Config
	tables tables

	mu    sync.Mutex
	known map[engine.ID]sender // as in the kernel
}

// sender is who a container may send as.
type sender struct {
	Link
	addresses []netip.Addr
}

// Open makes the tables of a cell, or finds those of an earlier life: the rules of containers stay,
// those of the policy are replaced.
func Open(cfg Config) (*Firewall, error) {
	if !prefixPattern.MatchString(cfg.Prefix) || len(cfg.Prefix) > maxPrefix {
		return nil, fmt.Errorf("prefix is %q: want 1 to %d letters, digits and . _ -", cfg.Prefix, maxPrefix)
	}
	if err := checkDevice("bridge", cfg.Bridge); err != nil {
		return nil, err
	}
	f := &Firewall{cfg: cfg, tables: newTables(cfg.Prefix)}
	if err := f.transaction(func(b *batch) { b.base(cfg) }); err != nil {
		return nil, fmt.Errorf("firewall %s: %w", cfg.Prefix, err)
	}
	var err error
	if f.known, err = f.senders(); err != nil {
		return nil, fmt.Errorf("firewall %s: %w", cfg.Prefix, err)
	}
	return f, nil
}

func checkDevice(field, name string) error {
	if name == "" || len(name) > maxDevice {
		return fmt.Errorf("%s is %q: want 1 to %d characters", field, name, maxDevice)
	}
	return nil
}

// Apply makes a set the rules of a container, in place of those it had. Connections that are open stay
// open. Its network must exist, and its process should not run before it has rules. Addresses
// that another container had are taken from it: whoever gives addresses out has given them anew.
func (f *Firewall) Apply(id engine.ID, link Link, set firewall.Set) error {
	if err := check(id, link, set); err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	if err := f.isolate(link.Device); err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := sender{link, set.Addresses}
	after, before := map[engine.ID]sender{id: now}, map[engine.ID]sender{}
	for other, s := range f.known {
		if other == id {
			before[other] = s
		} else if s.clashes(now) {
			before[other], after[other] = s, s.without(now)
		}
	}
	err := f.transaction(func(b *batch) {
		b.chain(id, now, set.Rules, f.cfg.Policy.LogRate)
		b.senders(before, after)
		for other := range before {
			if other != id {
				b.mark(other, after[other])
			}
		}
	})
	if err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	for other, s := range after {
		f.known[other] = s
	}
	return nil
}

func check(id engine.ID, link Link, set firewall.Set) error {
	if !idPattern.MatchString(string(id)) {
		return fmt.Errorf("id is %q: want 1 to 64 letters, digits and -", id)
	}
	if len(link.MAC) != macLength {
		return fmt.Errorf("mac is %q: want %d bytes", link.MAC, macLength)
	}
	if n := len(set.Addresses); n < 1 || n > maxAddresses {
		return fmt.Errorf("addresses is %q: want 1 to %d", set.Addresses, maxAddresses)
	}
	return checkDevice("device", link.Device)
}

// clashes tells whether two containers cannot both be as they say.
func (s sender) clashes(t sender) bool {
	return s.Device == t.Device || slices.ContainsFunc(s.addresses, func(a netip.Addr) bool { return slices.Contains(t.addresses, a) })
}

// without returns what is left of a sender when another one has come that is newer.
func (s sender) without(t sender) sender {
	if s.Device == t.Device {
		return sender{}
	}
	left := slices.DeleteFunc(slices.Clone(s.addresses), func(a netip.Addr) bool { return slices.Contains(t.addresses, a) })
	return sender{s.Link, left}
}

// Remove removes the rules of a container, and forgets its connections, so that the next one with its
// address cannot go on with them. One without rules is no error. The container must have ended.
func (f *Firewall) Remove(id engine.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.known[id]
	if !ok {
		return nil
	}
	if err := forget(s.addresses); err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	err := f.transaction(func(b *batch) {
		b.senders(map[engine.ID]sender{id: s}, nil)
		b.dropChain(id)
	})
	if err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	delete(f.known, id)
	return nil
}

// List returns the containers that have rules, as the kernel knows them, in order.
func (f *Firewall) List() ([]engine.ID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, err := f.senders()
	if err != nil {
		return nil, fmt.Errorf("firewall %s: %w", f.cfg.Prefix, err)
	}
	ids := make([]engine.ID, 0, len(known))
	for id := range known {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// Destroy removes the tables of a cell; without them it is no error. Open must have been called for no
// prefix that is in use: containers that still run are not held back by anything afterwards.
func Destroy(prefix string) error {
	c, err := dial()
	if err != nil {
		return err
	}
	t := newTables(prefix)
	for _, table := range []*nftables.Table{t.inet, t.bridge} {
		c.AddTable(table) // so that it is there to be deleted
		c.DelTable(table)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove firewall %s: %w", prefix, err)
	}
	return nil
}

// transaction sends what fill puts into a batch; the kernel does all of it or nothing.
func (f *Firewall) transaction(fill func(*batch)) error {
	c, err := dial()
	if err != nil {
		return err
	}
	b := &batch{tables: f.tables, conn: c}
	fill(b)
	return errors.Join(b.err, commit(c, b.err))
}

func commit(c *nftables.Conn, problem error) error {
	if problem != nil {
		return nil
	}
	return c.Flush()
}

// dial returns a connection that opens a socket for each batch: no answer of one that failed can
// be taken for an answer to the next.
func dial() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(socketBytes), c.SetReadBuffer(socketBytes))
	}))
}
