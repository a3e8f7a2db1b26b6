package fetch

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"muster/cells/fetch/archive"
	"muster/cells/fetch/cache"
)

// Fetcher moves the files of one cell. All methods may be called concurrently.
type Fetcher struct {
	client             *http.Client
	store              *store
	log                *slog.Logger
	downloads, uploads slots

	life    context.Context // ends with Close
	end     context.CancelCauseFunc
	running sync.WaitGroup // flights

	mu      sync.Mutex
	flights map[string]*flight // by id of what is downloaded
	last    uint64             // number given to a user
}

// Open takes over the directory of downloads. Close ends it.
func Open(cfg Config) (*Fetcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	client, err := cfg.client()
	if err != nil {
		return nil, err
	}
	store, err := openStore(cfg.Dir, cfg.MaxBytes, log)
	if err != nil {
		return nil, fmt.Errorf("open the downloads: %w", err)
	}
	f := &Fetcher{client: client, store: store, log: log, downloads: make(slots, cfg.MaxDownloads), uploads: make(slots, MaxUploads),
		flights: map[string]*flight{}}
	f.life, f.end = context.WithCancelCause(context.Background())
	return f, nil
}

// Close ends all downloads and waits for that. What was handed out stays as it is. Afterwards the directory can
// be opened again.
func (f *Fetcher) Close() error {
	f.mu.Lock()
	f.end(errClosed)
	f.mu.Unlock()
	f.running.Wait()
	return f.store.close()
}

// Archive is a download as a plain tar file without owners, devices, and names that lead out of it.
type Archive struct {
	// Path is the file, read-only. It may be linked elsewhere, and must not be changed.
	Path       string
	Size       int64 // of the file, in bytes
	Downloaded int64 // over the network, in bytes; when Cached, what that took then
	Cached     bool  // the server said that what was kept is still good

	release func()
}

// Close ends the use of the file: one that is not cached is removed, a cached one may be evicted.
func (a *Archive) Close() { a.release() }

// Archive downloads an archive. The error is an *Error.
func (f *Fetcher) Archive(ctx context.Context, r Request) (*Archive, error) {
	j, err := archiveJob(r)
	if err != nil {
		return nil, downloadError(r, err)
	}
	if r.CacheKey == "" {
		j.id = string(f.user("uncached"))
	}
	user := f.user("archive")
	it, cached, err := f.acquire(ctx, j, user)
	if err != nil {
		return nil, downloadError(r, err)
	}
	return &Archive{Path: it.archive(), Size: it.Size, Downloaded: it.Downloaded, Cached: cached,
		release: func() { f.store.release(it, user) }}, nil
}

// Directory is an unpacked download that containers share.
type Directory struct {
	Path       string // to be mounted read-only
	Key        string // for Keep, at most 128 bytes
	Downloaded int64  // over the network, in bytes; when Cached, what that took then
	Cached     bool   // the server said that what was kept is still good
}

// Directory downloads an archive and unpacks it, once for all containers; the owner owns all of it. The
// container uses it from then on until Release. The request must have a cache key, and the answer an ETag
// or a Last-Modified. The error is an *Error.
func (f *Fetcher) Directory(ctx context.Context, r Request, owner archive.Owner, container string) (Directory, error) {
	j, err := treeJob(r, owner)
	if err != nil {
		return Directory{}, downloadError(r, err)
	}
	it, cached, err := f.acquire(ctx, j, userOf(container))
	if err != nil {
		return Directory{}, downloadError(r, err)
	}
	return Directory{Path: it.tree(), Key: string(it.key), Downloaded: it.Downloaded, Cached: cached}, nil
}

// Release ends the use of all directories of a container. Calls of Directory for it must have returned.
func (f *Fetcher) Release(container string) { f.store.releaseAll(userOf(container)) }

// Keep says that a container, made before Open, uses directories with these keys. It tells which of them are
// not there any more.
func (f *Fetcher) Keep(container string, keys ...string) error {
	wanted := make([]cache.Key, len(keys))
	for i, k := range keys {
		wanted[i] = cache.Key(k)
	}
	if missing := f.store.adopt(userOf(container), wanted); len(missing) > 0 {
		return fmt.Errorf("directories of container %s that are not there: %v", container, missing)
	}
	return nil
}

// Settle says that Keep was called for all containers: directories that none of them uses may be evicted.
func (f *Fetcher) Settle() { f.store.settle() }

// Usage says how full the cache is.
func (f *Fetcher) Usage() cache.Usage { return f.store.usage() }

// user returns a name that no other user has.
func (f *Fetcher) user(kind string) cache.User {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	return cache.User(fmt.Sprintf("%s-%d", kind, f.last))
}

// userOf names a container among the users.
func userOf(container string) cache.User { return cache.User("container/" + container) }
