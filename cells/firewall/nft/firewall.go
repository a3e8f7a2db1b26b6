package nft

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/firewall"
)

// Config says whose containers a Firewall is for.
type Config struct {
	Table  string // name of the tables; belongs to one cell of the machine alone, e.g. muster-CELL
	Bridge string // that all containers of the cell are connected to; at most 15 characters
	Policy firewall.Policy
}

// Link is a container's network device: both ends of it.
type Link struct {
	Device string           // the port of the bridge, e.g. veth1a2b3c4d; at most 15 characters
	MAC    net.HardwareAddr // of the device inside; 6 bytes
}

// Bounds of a Firewall.
const (
	maxTable     = 100
	maxDevice    = unix.IFNAMSIZ - 1
	maxAddresses = 4 // of one container
	macLength    = 6
	// socketBytes is the room for one transaction, and for its answers: thousands of rules. The kernel
	// takes only what is needed.
	socketBytes = 64 << 20
	// answerWithin bounds the wait for the kernel: milliseconds as a rule, seconds for the largest set on
	// a cell that has no time.
	answerWithin = time.Minute
)

var (
	tablePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	idPattern    = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

// Firewall is the rules of a cell in the kernel. Its methods may be called concurrently, but only one
// Firewall of a table may be open at a time.
type Firewall struct {
	cfg    Config
	tables tables

	mu     sync.Mutex
	known  map[engine.ID]sender // as in the kernel
	dead   []netip.Addr         // of removed containers whose connections are not forgotten yet, as in the kernel
	loaded bool                 // known and dead are as in the kernel
}

// Open makes the tables of a cell, or finds those of an earlier life: the rules of containers stay,
// those of the policy are replaced. From then on containers reach nothing but by Apply.
func Open(cfg Config) (*Firewall, error) {
	if !tablePattern.MatchString(cfg.Table) || len(cfg.Table) > maxTable {
		return nil, fmt.Errorf("table is %q: want 1 to %d letters, digits and . _ -", cfg.Table, maxTable)
	}
	if err := checkDevice("bridge", cfg.Bridge); err != nil {
		return nil, err
	}
	f := &Firewall{cfg: cfg, tables: newTables(cfg.Table)}
	if err := errors.Join(f.restore(), canForget()); err != nil {
		return nil, fmt.Errorf("firewall %s: %w", cfg.Table, explain(err))
	}
	return f, nil
}

func checkDevice(field, name string) error {
	if name == "" || len(name) > maxDevice {
		return fmt.Errorf("%s is %q: want 1 to %d characters", field, name, maxDevice)
	}
	return nil
}

// Apply makes a set the rules of a container, in place of those it had; on an error those stay. So do
// connections that are open. Its network must exist, and its process should not run before it has
// rules. A container whose device or address this one has now is taken to be gone.
func (f *Firewall) Apply(id engine.ID, link Link, set firewall.Set) error {
	if err := check(id, link, set); err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	if err := f.isolate(link.Device); err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	if err := f.apply(id, link, set); err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	return nil
}

func (f *Firewall) apply(id engine.ID, link Link, set firewall.Set) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := sender{link, set.Addresses, chainName(id, set.Rules)}
	var before map[engine.ID]sender
	var stale []netip.Addr
	err := f.change(func(b *batch) {
		before = map[engine.ID]sender{}
		for other, s := range f.known {
			if other == id || s.clashes(now) {
				before[other] = s
			}
		}
		if stale = f.stale(id, now, before); len(stale) > 0 {
			b.keep(forget(stale))
			b.bury(f.dead, b.conn.SetDeleteElements)
		}
		if !f.uses(now.chain, nil) || strings.HasPrefix(now.chain, containerPrefix) {
			b.write(now.chain, set.Rules, logged(id, f.cfg.Policy.LogRate))
		}
		b.senders(before, map[engine.ID]sender{id: now})
		for _, chain := range f.unused(before) {
			if chain != now.chain {
				b.dropChain(chain)
			}
		}
	})
	if err != nil {
		return err
	}
	for other := range before {
		delete(f.known, other)
	}
	if len(stale) > 0 {
		f.dead = nil
	}
	f.known[id] = now
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

// Remove removes the rules of a container; one without is no error. Its process must have ended.
func (f *Firewall) Remove(id engine.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.known[id]; !ok {
		f.loaded = false // what is not known here may yet be in the kernel
	}
	err := f.change(func(b *batch) {
		if s, ok := f.known[id]; ok {
			before := map[engine.ID]sender{id: s}
			b.senders(before, nil)
			for _, chain := range f.unused(before) {
				b.dropChain(chain)
			}
			b.bury(s.addresses, b.conn.SetAddElements)
		}
	})
	if err != nil {
		return fmt.Errorf("firewall of container %s: %w", id, err)
	}
	f.dead = union(f.dead, f.known[id].addresses)
	delete(f.known, id)
	return nil
}

// List returns the containers that have rules, as the kernel knows them, in order.
func (f *Firewall) List() ([]engine.ID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return nil, fmt.Errorf("firewall %s: %w", f.cfg.Table, err)
	}
	return ids(f.known), nil
}

// Containers returns the containers that have rules in the tables of a cell, in order. It opens nothing, so
// it may be called whoever has a Firewall of these tables open.
func Containers(table string) ([]engine.ID, error) {
	known, _, err := readWhole(newTables(table))
	if err != nil && !missing(err) {
		return nil, fmt.Errorf("firewall %s: %w", table, explain(err))
	}
	return ids(known), nil
}

// Destroy removes the tables of a cell; without them it is no error. Nothing holds containers that
// still run back afterwards.
func Destroy(table string) error {
	c, err := dial()
	if err != nil {
		return err
	}
	t := newTables(table)
	for _, table := range []*nftables.Table{t.inet, t.bridge} {
		c.AddTable(table) // so that it is there to be deleted
		c.DelTable(table)
	}
	if err := c.Flush(); err != nil && !missing(err) {
		return fmt.Errorf("remove firewall %s: %w", table, explain(err))
	}
	return nil
}

// Tables returns the tables of this machine, of all families and whoever made them, as "family name", in order.
func Tables() ([]string, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	list, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", explain(err))
	}
	families := map[nftables.TableFamily]string{
		nftables.TableFamilyINet: "inet", nftables.TableFamilyBridge: "bridge", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	}
	out := make([]string, 0, len(list))
	for _, t := range list {
		out = append(out, cmp.Or(families[t.Family], fmt.Sprintf("family %d", t.Family))+" "+t.Name)
	}
	slices.Sort(out)
	return out, nil
}

// restore makes or renews what all containers share, and reads what there is of single ones.
func (f *Firewall) restore() error {
	if err := f.transaction(func(b *batch) { b.base(f.cfg) }); err != nil {
		return err
	}
	return f.load()
}

// change makes a change. When the kernel has not what is known here, because somebody removed the
// tables or wrote to them, it begins again with what the kernel has.
func (f *Firewall) change(fill func(*batch)) error {
	if !f.loaded {
		if err := f.restore(); err != nil {
			return err
		}
	}
	err := f.transaction(fill)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		if err := f.restore(); err != nil {
			return err
		}
		err = f.transaction(fill)
	}
	f.loaded = err == nil
	return err
}

// transaction sends what fill puts into a batch; the kernel does all of it or nothing.
func (f *Firewall) transaction(fill func(*batch)) error {
	c, err := dial()
	if err != nil {
		return err
	}
	b := &batch{tables: f.tables, conn: c, lastSet: neighboursID}
	fill(b)
	if b.err != nil {
		return b.err
	}
	err = c.Flush()
	if errors.Is(err, os.ErrDeadlineExceeded) { // once for each rule
		return fmt.Errorf("the kernel gave no answer: %w", os.ErrDeadlineExceeded)
	}
	return err
}

// dial returns a connection that opens a socket for each batch: no answer of one that failed can
// be taken for an answer to the next.
func dial() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(socketBytes), c.SetReadBuffer(socketBytes), c.SetDeadline(time.Now().Add(answerWithin)))
	}))
}
