// Package cache keeps the books of a bounded directory of files: what is in it, how much each takes, who
// uses it, and what goes when room is needed. It is a CORE: no I/O, no clock, no lock; its owner moves the
// files, serialises the calls and passes the time.
//
// What is under way (Reserve) takes room from its first byte on. When it is complete (Commit) it is an
// entry, which users hold; what nobody holds may be evicted, the least recently used first.
//
// # Invariants
//
// Tests cite them by number.
//
//	C1  The total is the sum of all sizes, of what is under way too.
//	C2  Reserve never lets the total exceed the bound; Restore may, because the files are there.
//	C3  What is used or under way is never evicted.
//	C4  Evicted are the least recently used, and no more of them than needed.
//	C5  A refused Reserve changes nothing.
//	C6  What was forgotten stays while it is used, and goes with its last user.
package cache

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Key names an entry.
type Key string

// User names who uses an entry.
type User string

// Cache is the books. Not for concurrent use.
type Cache struct {
	max, total int64 // bytes
	entries    map[Key]*entry
}

type entry struct {
	size      int64
	used      time.Time // last
	users     map[User]bool
	underWay  bool
	forgotten bool
}

// New returns books without entries; the bound is in bytes.
func New(bound int64) *Cache { return &Cache{max: bound, entries: map[Key]*entry{}} }

// Full says that there is no room although all that may go would.
type Full struct{ Want, Held, Max int64 } // bytes: asked for, held by what must stay, the bound

// Error tells all three.
func (f *Full) Error() string {
	return fmt.Sprintf("%d bytes do not fit: %d of the %d bytes of the cache are in use", f.Want, f.Held, f.Max)
}

// Restore adds an entry that was there before, last used then, by nobody now. It may lift the total above
// the bound: see Trim.
func (c *Cache) Restore(k Key, size int64, used time.Time) {
	c.mustBeNew(k)
	c.entries[k] = &entry{size: size, used: used, users: map[User]bool{}}
	c.total += size
}

// Reserve takes n more bytes for what is under way with this key, and returns what must be removed before
// they are written. It answers with a *Full when they do not fit.
func (c *Cache) Reserve(k Key, n int64) ([]Key, error) {
	e := c.entries[k]
	if e != nil && !e.underWay || n < 0 {
		panic(fmt.Sprintf("cache: reserve %d bytes for %s, which is complete or shrinks", n, k))
	}
	evicted, err := c.makeRoom(n)
	if err != nil {
		return nil, err
	}
	if e == nil {
		e = &entry{users: map[User]bool{}, underWay: true}
		c.entries[k] = e
	}
	e.size += n
	c.total += n
	return evicted, nil
}

// Commit makes an entry of what was under way, with its final size, at most what was reserved, and its
// first user.
func (c *Cache) Commit(k Key, size int64, user User, now time.Time) {
	e := c.entries[k]
	if e == nil || !e.underWay || size < 0 || size > e.size {
		panic(fmt.Sprintf("cache: commit %s with %d bytes without having reserved them", k, size))
	}
	c.total -= e.size - size
	e.size, e.underWay, e.used = size, false, now
	e.users[user] = true
}

// Use adds a user to a complete entry, also to a forgotten one; false: there is none. A user counts once.
func (c *Cache) Use(k Key, user User, now time.Time) bool {
	e := c.entries[k]
	if e == nil || e.underWay {
		return false
	}
	e.used = now
	e.users[user] = true
	return true
}

// Release takes a user from an entry, and returns the entry if it must be removed now.
func (c *Cache) Release(k Key, user User) []Key {
	e := c.entries[k]
	if e == nil || !e.users[user] {
		return nil
	}
	delete(e.users, user)
	return c.goIfUnwanted(k, e)
}

// ReleaseAll takes a user from all entries, and returns those that must be removed now, sorted.
func (c *Cache) ReleaseAll(user User) []Key {
	var gone []Key
	for k := range c.entries {
		gone = append(gone, c.Release(k, user)...)
	}
	slices.Sort(gone)
	return gone
}

// Forget says that an entry will not be wanted again, or that what was under way came to nothing. It
// returns the entry if it must be removed now; else that happens with the last user.
func (c *Cache) Forget(k Key) []Key {
	e := c.entries[k]
	if e == nil {
		return nil
	}
	e.forgotten = true
	return c.goIfUnwanted(k, e)
}

func (c *Cache) goIfUnwanted(k Key, e *entry) []Key {
	if !e.forgotten || len(e.users) > 0 {
		return nil
	}
	c.remove(k)
	return []Key{k}
}

// Trim returns what must be removed to come back to the bound, as far as what is in use lets it.
func (c *Cache) Trim() []Key {
	var gone []Key
	for _, k := range c.evictable() {
		if c.total <= c.max {
			break
		}
		c.remove(k)
		gone = append(gone, k)
	}
	return gone
}

// makeRoom evicts until n bytes fit, or nothing if they cannot.
func (c *Cache) makeRoom(n int64) ([]Key, error) {
	if n <= c.max-c.total {
		return nil, nil
	}
	var gone []Key
	total := c.total
	candidates := c.evictable()
	for n > c.max-total && len(candidates) > 0 {
		gone = append(gone, candidates[0])
		total -= c.entries[candidates[0]].size
		candidates = candidates[1:]
	}
	if n > c.max-total {
		return nil, &Full{Want: n, Held: total, Max: c.max}
	}
	for _, k := range gone {
		c.remove(k)
	}
	return gone, nil
}

// evictable returns what nobody uses, the least recently used first.
func (c *Cache) evictable() []Key {
	var keys []Key
	for k, e := range c.entries {
		if len(e.users) == 0 && !e.underWay {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(c.entries[a].used.Compare(c.entries[b].used), cmp.Compare(a, b))
	})
	return keys
}

func (c *Cache) remove(k Key) {
	c.total -= c.entries[k].size
	delete(c.entries, k)
}

func (c *Cache) mustBeNew(k Key) {
	if c.entries[k] != nil {
		panic(fmt.Sprintf("cache: there is an entry %s", k))
	}
}

// Usage says how full a cache is.
type Usage struct {
	Entries           int   // complete ones
	Bytes, Held, Most int64 // all; of those what may not be evicted; the bound
}

// Usage returns how full the cache is.
func (c *Cache) Usage() Usage {
	u := Usage{Bytes: c.total, Most: c.max}
	for _, e := range c.entries {
		if !e.underWay {
			u.Entries++
		}
		if e.underWay || len(e.users) > 0 {
			u.Held += e.size
		}
	}
	return u
}
