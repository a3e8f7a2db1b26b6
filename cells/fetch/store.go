package fetch

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/fetch/archive"
	"muster/cells/fetch/cache"
)

// store is what was downloaded, on disk: it moves the files as the books say.
type store struct {
	dir  string
	log  *slog.Logger
	lock *os.File // held as long as the store is open

	mu      sync.Mutex
	books   *cache.Cache
	items   map[cache.Key]*item
	current map[string]cache.Key // by id: what is found
}

// item is one download. It does not change once it was kept or lent.
type item struct {
	key cache.Key
	id  string // what it is a download of
	dir string
	meta
}

// The names of what an item has in its directory.
const (
	contentName = "content.tar"
	treeName    = "tree"
	metaName    = "meta.json"
)

func (i *item) archive() string { return filepath.Join(i.dir, contentName) }
func (i *item) tree() string    { return filepath.Join(i.dir, treeName) }

func (s *store) entries() string { return filepath.Join(s.dir, "entries") }
func (s *store) tmp() string     { return filepath.Join(s.dir, "tmp") }

// adopting uses all trees until Settle.
const adopting = cache.User("adopting")

// openStore takes over a directory: what was under way goes, what is whole and within the bound stays.
func openStore(dir string, bound int64, log *slog.Logger) (*store, error) {
	s := &store{dir: dir, log: log, books: cache.New(bound), items: map[cache.Key]*item{}, current: map[string]cache.Key{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	s.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is used by another process: %w", dir, err), lock.Close())
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func (s *store) recover() error {
	if err := os.RemoveAll(s.tmp()); err != nil {
		return err
	}
	for _, dir := range []string{s.tmp(), s.entries()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	names, err := os.ReadDir(s.entries())
	if err != nil {
		return err
	}
	for _, name := range names {
		dir := filepath.Join(s.entries(), name.Name())
		if err := s.restore(dir); err != nil {
			s.log.Warn("download dropped", "dir", dir, "error", err)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	s.change(func() []cache.Key { return s.books.Trim() })
	return nil
}

// restore enters what is on disk in the books. Of several downloads of the same, the newest is found.
func (s *store) restore(dir string) error {
	key := filepath.Base(dir)
	id, _, ok := strings.Cut(key, ".")
	if !ok {
		return errors.New("it is no download")
	}
	it := &item{key: cache.Key(key), id: id, dir: dir}
	used, err := it.read()
	if err != nil {
		return err
	}
	s.items[it.key] = it
	s.books.Restore(it.key, it.Size, used)
	if it.Tree {
		s.books.Use(it.key, adopting, used)
	}
	s.change(func() []cache.Key { return s.publish(it) })
	return nil
}

// publish makes an item what is found, unless a newer one is. Under the lock.
func (s *store) publish(it *item) []cache.Key {
	old, found := s.items[s.current[it.id]]
	switch {
	case found && old.Fetched.After(it.Fetched):
		return s.books.Forget(it.key)
	case found:
		s.current[it.id] = it.key
		return s.books.Forget(old.key)
	}
	s.current[it.id] = it.key
	return nil
}

// change changes the books and removes the files of what they say. It returns when these are gone.
func (s *store) change(fn func() []cache.Key) {
	s.mu.Lock()
	dirs := s.bury(fn())
	s.mu.Unlock()
	s.removeAll(dirs)
}

// bury takes items out of what is found, in one step each. Under the lock.
func (s *store) bury(keys []cache.Key) []string {
	var dirs []string
	for _, k := range keys {
		it := s.items[k]
		if it == nil {
			continue
		}
		delete(s.items, k)
		if s.current[it.id] == k {
			delete(s.current, it.id)
		}
		dir := filepath.Join(s.tmp(), string(k))
		if err := os.Rename(it.dir, dir); it.dir != dir && err != nil {
			s.log.Error("cannot remove a download", "dir", it.dir, "error", err)
			dir = it.dir
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// removeAll removes directories. What resists is left for the next Open.
func (s *store) removeAll(dirs []string) {
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			s.log.Error("cannot remove a download", "dir", dir, "error", err)
		}
	}
}

// begin makes the place of a download. Of an error nothing is left.
func (s *store) begin(id string) (*item, error) {
	key := cache.Key(id + "." + rand.Text())
	it := &item{key: key, id: id, dir: filepath.Join(s.tmp(), string(key))}
	var err error
	s.change(func() (gone []cache.Key) {
		if gone, err = s.books.Reserve(key, 0); err == nil {
			s.items[key] = it
		}
		return gone
	})
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(it.dir, 0o700); err != nil {
		s.abandon(it)
		return nil, err
	}
	return it, nil
}

// room returns what reserves the bytes of an item that is under way, and removes what goes for them.
func (s *store) room(it *item) archive.Room {
	return func(n int64) (err error) {
		s.change(func() (gone []cache.Key) {
			gone, err = s.books.Reserve(it.key, n)
			return gone
		})
		return err
	}
}

// abandon removes what was under way.
func (s *store) abandon(it *item) { s.change(func() []cache.Key { return s.books.Forget(it.key) }) }

// keep makes an item, with its meta data, what is found from now on.
func (s *store) keep(it *item, user cache.User) error {
	if err := it.write(); err != nil {
		return err
	}
	dir := filepath.Join(s.entries(), string(it.key))
	if err := os.Rename(it.dir, dir); err != nil {
		return err
	}
	it.dir = dir
	s.change(func() []cache.Key {
		s.books.Commit(it.key, it.Size, user, time.Now())
		return s.publish(it)
	})
	return nil
}

// lend makes an item last as long as its users.
func (s *store) lend(it *item, user cache.User) {
	s.change(func() []cache.Key {
		s.books.Commit(it.key, it.Size, user, time.Now())
		return s.books.Forget(it.key)
	})
}

// find returns what there is of an id, used from now on, or nil.
func (s *store) find(id string, user cache.User) *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.items[s.current[id]]
	if it != nil {
		s.books.Use(it.key, user, time.Now())
		it.touch()
	}
	return it
}

// use adds a user to an item that the caller knows to be in use.
func (s *store) use(it *item, user cache.User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.books.Use(it.key, user, time.Now())
}

func (s *store) release(it *item, user cache.User) {
	s.change(func() []cache.Key { return s.books.Release(it.key, user) })
}

func (s *store) releaseAll(user cache.User) {
	s.change(func() []cache.Key { return s.books.ReleaseAll(user) })
}

// adopt adds a user to trees, and returns the keys of those that are not there.
func (s *store) adopt(user cache.User, keys []cache.Key) (missing []cache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if it := s.items[k]; it == nil || !it.Tree || !s.books.Use(k, user, time.Now()) {
			missing = append(missing, k)
		}
	}
	return missing
}

// settle lets go of trees that nobody adopted.
func (s *store) settle() {
	s.releaseAll(adopting)
	s.change(func() []cache.Key { return s.books.Trim() })
}

func (s *store) usage() cache.Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.books.Usage()
}

func (s *store) close() error { return s.lock.Close() }
