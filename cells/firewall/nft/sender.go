package nft

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

// sender is who a container may send as, and the chain that says where to.
type sender struct {
	Link
	addresses []netip.Addr
	chain     string
}

// same tells whether a sender is another one but for the chain.
func (s sender) same(t sender) bool {
	return s.Device == t.Device && bytes.Equal(s.MAC, t.MAC) && slices.Equal(s.addresses, t.addresses)
}

// clashes tells whether two containers cannot both be as they say.
func (s sender) clashes(t sender) bool {
	return s.Device == t.Device || slices.ContainsFunc(s.addresses, func(a netip.Addr) bool { return slices.Contains(t.addresses, a) })
}

// Places in a key: each part is padded to 4 bytes.
const (
	macOffset     = unix.IFNAMSIZ
	addressOffset = macOffset + macLength + 2
)

// key returns a sender with one address as the sets of the bridge have it.
func (s sender) key(address []byte) []byte {
	return slices.Concat(device(s.Device), s.MAC, []byte{0, 0}, address)
}

// readKey is the inverse of key.
func readKey(key []byte) (Link, netip.Addr, error) {
	if len(key) <= addressOffset {
		return Link{}, netip.Addr{}, fmt.Errorf("element is %x: want more than %d bytes", key, addressOffset)
	}
	address, ok := netip.AddrFromSlice(key[addressOffset:])
	if !ok {
		return Link{}, netip.Addr{}, fmt.Errorf("element is %x: want an address in the end", key)
	}
	name, _, _ := bytes.Cut(key[:macOffset], []byte{0})
	return Link{Device: string(name), MAC: net.HardwareAddr(slices.Clone(key[macOffset : macOffset+macLength]))}, address, nil
}

// readAttempts bounds how often it is tried to read what there is: any change that anybody makes to
// rules of the machine interrupts those who read. Which errors say so is lost on the way.
const readAttempts = 10

// load asks the kernel who has rules.
func (f *Firewall) load() error {
	var err error
	f.known, f.dead, err = readWhole(f.tables)
	f.loaded = err == nil
	return err
}

// readWhole reads the tables as they are at one moment.
func readWhole(t tables) (known map[engine.ID]sender, dead []netip.Addr, err error) {
	for range readAttempts {
		if known, dead, err = read(t); err == nil || missing(err) {
			break
		}
	}
	return known, dead, err
}

// read reads the tables; none have nothing.
func read(t tables) (map[engine.ID]sender, []netip.Addr, error) {
	c, err := dial()
	if err != nil {
		return nil, nil, err
	}
	known := map[engine.ID]sender{}
	all, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if errors.Is(err, unix.EINVAL) {
		return known, nil, nil // so the kernel answers a list when nf_tables is not there
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list tables: %w", err)
	}
	if !slices.ContainsFunc(all, func(table *nftables.Table) bool { return table.Name == t.inet.Name }) {
		return known, nil, nil
	}
	var dead []netip.Addr
	for _, is6 := range []bool{false, true} {
		if err := readFamily(c, t, is6, known); err != nil {
			return nil, nil, err
		}
		if dead, err = readDead(c, t.dead(is6), dead); err != nil {
			return nil, nil, err
		}
	}
	return known, dead, nil
}

// readFamily adds the addresses of one family to what is known.
func readFamily(c *nftables.Conn, t tables, is6 bool, known map[engine.ID]sender) error {
	elements, err := c.GetSetElements(t.from(is6))
	if err != nil {
		return fmt.Errorf("read %s: %w", t.from(is6).Name, err)
	}
	chains := map[netip.Addr]string{}
	for _, e := range elements {
		if a, ok := netip.AddrFromSlice(e.Key); ok {
			chains[a] = e.Comment
		}
	}
	if elements, err = c.GetSetElements(t.known(is6)); err != nil {
		return fmt.Errorf("read %s: %w", t.known(is6).Name, err)
	}
	for _, e := range elements {
		link, a, err := readKey(e.Key)
		if err != nil {
			return fmt.Errorf("read %s: %w", t.known(is6).Name, err)
		}
		id := engine.ID(e.Comment)
		known[id] = sender{link, append(known[id].addresses, a), chains[a]}
	}
	return nil
}

// ids returns who is known, in order.
func ids(known map[engine.ID]sender) []engine.ID { return slices.Sorted(maps.Keys(known)) }

// readDead appends the addresses of one family that are dead.
func readDead(c *nftables.Conn, set *nftables.Set, dead []netip.Addr) ([]netip.Addr, error) {
	elements, err := c.GetSetElements(set)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", set.Name, err)
	}
	for _, e := range elements {
		if a, ok := netip.AddrFromSlice(e.Key); ok {
			dead = append(dead, a)
		}
	}
	return dead, nil
}
