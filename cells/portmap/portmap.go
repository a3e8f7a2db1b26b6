package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

// Config says whose ports are mapped.
type Config struct {
	Table  string       // name of the table; belongs to one cell of the machine alone, e.g. muster-CELL-ports
	Bridge string       // that the containers are connected to
	Subnet netip.Prefix // of the containers, IPv4
}

const (
	maxTable = 100
	// readAttempts bounds how often it is tried to read what is mapped: any change that anybody makes to rules
	// of the machine interrupts those who read.
	readAttempts = 10
)

var tablePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Mapper maps the ports of a cell. Its methods may be called concurrently, but only one Mapper of a table may be
// in use at a time.
type Mapper struct {
	cfg   Config
	table *nftables.Table
	ports *nftables.Set

	mu    sync.Mutex
	known map[uint16]engine.ID // by host port, as in the kernel; nil: not read yet
}

// New returns a Mapper. It does nothing yet.
func New(cfg Config) (*Mapper, error) {
	if !tablePattern.MatchString(cfg.Table) || len(cfg.Table) > maxTable {
		return nil, fmt.Errorf("table is %q: want 1 to %d letters, digits and . _ -", cfg.Table, maxTable)
	}
	if !cfg.Subnet.Addr().Is4() {
		return nil, fmt.Errorf("subnet is %q: want an IPv4 network", cfg.Subnet)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: cfg.Table}
	return &Mapper{cfg: cfg, table: table, ports: &nftables.Set{
		Table: table, ID: 1, Name: "ports", IsMap: true, KeyType: nftables.TypeInetService,
		DataType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}}, nil
}

// Map maps the host ports of a container to its own, all or none. The bridge must exist. A host port that
// another container has is an error.
func (m *Mapper) Map(id engine.ID, address netip.Addr, ports []engine.Port) error {
	if len(ports) == 0 {
		return nil
	}
	if !address.Is4() {
		return fmt.Errorf("map ports of container %s: its address is %q: want an IPv4 address", id, address)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.change(func(c *nftables.Conn) error { return m.add(c, id, address, ports) }, m.open); err != nil {
		return fmt.Errorf("map ports of container %s: %w", id, err)
	}
	for _, p := range ports {
		m.known[p.Host] = id
	}
	return routeLoopback(m.cfg.Bridge)
}

func (m *Mapper) add(c *nftables.Conn, id engine.ID, address netip.Addr, ports []engine.Port) error {
	var elements []nftables.SetElement
	for _, p := range ports {
		if other, taken := m.known[p.Host]; taken && other != id {
			return fmt.Errorf("host port %d is mapped to container %s already", p.Host, other)
		}
		elements = append(elements, nftables.SetElement{Key: key(p.Host), Val: append(address.AsSlice(), 0, 0, 0, 0), Comment: string(id)})
		binary.BigEndian.PutUint16(elements[len(elements)-1].Val[4:], p.Container)
	}
	return c.SetAddElements(m.ports, elements)
}

// Unmap unmaps all ports of a container. That there are none is no error.
func (m *Mapper) Unmap(id engine.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var gone []uint16
	err := m.change(func(c *nftables.Conn) error {
		var elements []nftables.SetElement
		gone = nil
		for port, owner := range m.known {
			if owner == id {
				gone, elements = append(gone, port), append(elements, nftables.SetElement{Key: key(port)})
			}
		}
		if len(elements) == 0 {
			return nil
		}
		return c.SetDeleteElements(m.ports, elements)
	}, m.load)
	if err != nil {
		return fmt.Errorf("unmap ports of container %s: %w", id, err)
	}
	for _, port := range gone {
		delete(m.known, port)
	}
	return nil
}

// List returns the containers that have a host port, as the kernel knows them, in order; one with several is
// there as often.
func (m *Mapper) List() ([]engine.ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Values(m.known)), nil
}

// Remove removes the table. Without one it is no error.
func (m *Mapper) Remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = nil
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(m.table) // so that it is there to be deleted
	c.DelTable(m.table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove table %s: %w", m.cfg.Table, err)
	}
	return nil
}

// change makes a change by one transaction. When it is refused, here or by a kernel that does not know what it is
// about, somebody may have removed rules of the machine: it is made once more after another look. m.mu is held.
func (m *Mapper) change(put func(*nftables.Conn) error, look func() error) error {
	for again := false; ; again = true {
		if m.known == nil {
			if err := look(); err != nil {
				return err
			}
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}
		refused := put(c)
		if refused == nil {
			err = c.Flush()
		}
		if again || refused == nil && !errors.Is(err, unix.ENOENT) {
			return errors.Join(refused, err)
		}
		m.known = nil
	}
}

// open makes the table, or renews the rules of one from an earlier life, whose ports stay mapped.
func (m *Mapper) open() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(m.table)
	if err := c.AddSet(m.ports, nil); err != nil {
		return err
	}
	for _, chain := range m.chains() {
		c.AddChain(chain.Chain)
		c.FlushChain(chain.Chain)
		for _, rule := range chain.rules {
			c.AddRule(&nftables.Rule{Table: m.table, Chain: chain.Chain, Exprs: rule})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("table %s: %w", m.cfg.Table, err)
	}
	return m.load()
}

// load reads what is mapped; without a table nothing is.
func (m *Mapper) load() (err error) {
	for range readAttempts {
		if m.known, err = m.read(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("table %s: %w", m.cfg.Table, err)
}

func (m *Mapper) read() (map[uint16]engine.ID, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	known := map[uint16]engine.ID{}
	tables, err := c.ListTablesOfFamily(m.table.Family)
	if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == m.table.Name }) {
		return known, err
	}
	elements, err := c.GetSetElements(m.ports)
	for _, e := range elements {
		if len(e.Key) >= 2 {
			known[binary.BigEndian.Uint16(e.Key)] = engine.ID(e.Comment)
		}
	}
	return known, err
}

func key(port uint16) []byte { return binary.BigEndian.AppendUint16(nil, port) }

// routeLoopback lets packets from 127.0.0.0/8 pass to a bridge, so that processes of the machine reach host ports
// at localhost.
func routeLoopback(bridge string) error {
	file := filepath.Join("/proc/sys/net/ipv4/conf", bridge, "route_localnet")
	if now, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil
	}
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		return fmt.Errorf("route packets from localhost to bridge %s: %w", bridge, err)
	}
	return nil
}
