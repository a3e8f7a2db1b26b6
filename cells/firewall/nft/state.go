package nft

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

// container is what the kernel has of one.
type container struct {
	addresses []netip.Addr
	logs      bool // it has a chain that logs
}

// state is what the kernel has of all containers.
type state map[engine.ID]container

func (s state) ids() []engine.ID { return slices.Sorted(maps.Keys(s)) }

// held returns the addresses that lead to a container, and those of a list that lead to others.
func (s state) held(id engine.ID, list []netip.Addr) []netip.Addr {
	out := slices.Clone(s[id].addresses)
	for other, c := range s {
		if other == id {
			continue
		}
		for _, a := range c.addresses {
			if slices.Contains(list, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// put says that a container is there, and that its addresses are no other's.
func (s state) put(id engine.ID, c container) {
	for other, has := range s {
		if other != id && slices.ContainsFunc(has.addresses, func(a netip.Addr) bool { return slices.Contains(c.addresses, a) }) {
			has.addresses = slices.DeleteFunc(has.addresses, func(a netip.Addr) bool { return slices.Contains(c.addresses, a) })
			s[other] = has
		}
	}
	s[id] = c
}

const (
	containerPrefix = "container-"
	logPrefix       = "log-"
)

func containerChain(id engine.ID) string { return containerPrefix + string(id) }
func logChain(id engine.ID) string       { return logPrefix + string(id) }

// attempts bounds how often something is tried that others who change rules can disturb: each commit
// of anybody interrupts those who read, and a table that is gone is made again.
const attempts = 5

// change makes a change, with f.mu held. When the kernel does not have what is known here, because others
// wrote to the table or removed it, it gets ready again with what the kernel has.
func (f *Firewall) change(ready func() error, build func(*batch)) error {
	var err error
	for range attempts {
		if !f.loaded {
			if err = ready(); err != nil {
				return err
			}
		}
		b := newBatch(f.cfg.Table)
		build(b)
		if err = b.commit(); err == nil {
			return nil
		}
		f.loaded = false
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	return err
}

func (f *Firewall) restore() error {
	b := newBatch(f.cfg.Table)
	b.writeShared(f.cfg)
	if err := b.commit(); err != nil {
		return err
	}
	return f.load()
}

// load reads what the kernel has.
func (f *Firewall) load() error {
	var err error
	for range attempts {
		var s state
		if s, err = read(f.cfg.Table); err == nil {
			f.known, f.loaded = s, true
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	f.loaded = false
	return err
}

// read reads what a table has; one that is not there has nothing.
func read(table string) (state, error) {
	b := newBatch(table)
	s := state{}
	chains, err := b.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	logs := map[string]bool{}
	for _, c := range chains {
		if c.Table.Name != table {
			continue
		}
		if id, ok := strings.CutPrefix(c.Name, containerPrefix); ok {
			s[engine.ID(id)] = container{}
		}
		if id, ok := strings.CutPrefix(c.Name, logPrefix); ok {
			logs[id] = true
		}
	}
	if len(s) == 0 {
		return s, nil
	}
	for _, m := range []*nftables.Set{b.addresses(false), b.addresses(true)} {
		elements, err := b.conn.GetSetElements(m)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			address, ok := netip.AddrFromSlice(e.Key)
			if !ok || e.VerdictData == nil {
				continue
			}
			id := engine.ID(strings.TrimPrefix(e.VerdictData.Chain, containerPrefix))
			c := s[id]
			c.addresses = append(c.addresses, address)
			s[id] = c
		}
	}
	for id, c := range s {
		c.logs = logs[string(id)]
		s[id] = c
	}
	return s, nil
}
