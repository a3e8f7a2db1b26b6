package fetch

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"muster/cells/fetch/archive"
	"muster/cells/fetch/cache"
)

// job is a download that was checked.
type job struct {
	id    string // what is found again; hides the URL
	asked string // all of the request
	url   string
	host  string // of the URL
	sum   checksum
	kept  bool // has a cache key
	tree  bool
	owner archive.Owner // of a tree
}

func archiveJob(r Request) (job, error) { return newJob(r, "archive") }

func treeJob(r Request, owner archive.Owner) (job, error) {
	j, err := newJob(r, fmt.Sprintf("tree of %d:%d", owner.UID, owner.GID))
	if err == nil && !j.kept {
		err = errors.New("Not cacheable directory: cache key is missing")
	}
	j.tree, j.owner = true, owner
	return j, err
}

func newJob(r Request, form string) (job, error) {
	u, err := r.location()
	if err != nil {
		return job{}, err
	}
	sum, err := r.checksum()
	if err != nil {
		return job{}, err
	}
	return job{
		id:    digest(form, r.CacheKey, u.Scheme, u.Host, u.Path),
		asked: digest(r.URL, sum.String()),
		url:   r.URL, host: u.Host, sum: sum, kept: r.CacheKey != "",
	}, nil
}

// digest returns a name for a list of texts, in 64 hexadecimal digits.
func digest(texts ...string) string {
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// download makes attempts until one succeeds or none can. The user uses the item.
func (f *Fetcher) download(ctx context.Context, j job, user cache.User) (it *item, cached bool, err error) {
	err = f.retry(ctx, f.downloads, DownloadAttempts, func(ctx context.Context) error {
		it, cached, err = f.attempt(ctx, j, user)
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("download from %s: %w", j.host, err)
	}
	return it, cached, nil
}

// retry makes attempts, each in a slot and with a bound on its time, until one ends well, none can, or ctx ends.
func (f *Fetcher) retry(ctx context.Context, s slots, attempts int, attempt func(context.Context) error) error {
	for n, wait := 1, firstPause; ; n, wait = n+1, min(2*wait, lastPause) {
		if err := s.take(ctx); err != nil {
			return err
		}
		err := bounded(ctx, attempt)
		s.give()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case n == attempts || !worthRetrying(err):
			return fmt.Errorf("attempt %d of %d: %w", n, attempts, err)
		}
		f.log.Info("attempt failed", "attempt", n, "error", err)
		if err := pause(ctx, wait+rand.N(maxJitter)); err != nil {
			return err
		}
	}
}

// bounded makes one attempt, which ends in time.
func bounded(ctx context.Context, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, AttemptTimeout, errTooLong)
	defer cancel()
	ctx, stalled := context.WithCancelCause(ctx)
	defer stalled(nil)
	return attempt(context.WithValue(ctx, stalledKey{}, stalled))
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attempt asks the server once.
func (f *Fetcher) attempt(ctx context.Context, j job, user cache.User) (*item, bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.url, nil)
	if err != nil {
		return nil, false, withoutURL(err)
	}
	old := f.store.find(j.id, user)
	release := func() {
		if old != nil {
			f.store.release(old, user)
		}
	}
	conditional := old != nil && (j.sum == checksum{} || j.sum.String() == old.Checksum)
	if conditional {
		setIf(req.Header, "If-None-Match", old.ETag)
		setIf(req.Header, "If-Modified-Since", old.LastModified)
	}
	resp, err := f.send(req)
	if err != nil {
		release()
		return nil, false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && conditional:
		return old, true, nil
	case resp.StatusCode != http.StatusOK:
		release()
		return nil, false, &statusError{resp.StatusCode}
	}
	release()
	it, err := f.receive(ctx, j, resp, user)
	return it, false, full(err)
}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

// receive writes an answer to disk, which the user uses then. Of one that fails nothing is left.
func (f *Fetcher) receive(ctx context.Context, j job, resp *http.Response, user cache.User) (*item, error) {
	it, err := f.store.begin(j.id)
	if err != nil {
		return nil, err
	}
	it.ETag, it.LastModified = validator(resp.Header, "Etag"), validator(resp.Header, "Last-Modified")
	it.Tree, it.Checksum, it.Fetched = j.tree, j.sum.String(), time.Now()
	keep := j.kept && (it.ETag != "" || it.LastModified != "")
	if j.tree && !keep {
		err = errors.New("Not cacheable directory: ETag and Last-Modified were missing from response")
	} else {
		err = f.unpack(ctx, j, it, resp.Body, keep)
	}
	if err == nil && keep {
		err = f.store.keep(it, user)
	}
	if err != nil {
		f.store.abandon(it)
		return nil, err
	}
	if !keep {
		f.store.lend(it, user)
	}
	return it, nil
}

func validator(h http.Header, name string) string {
	if v := h.Get(name); len(v) <= maxValidator {
		return v
	}
	return ""
}

// unpack writes the body of an answer in the form that is wanted, and checks its sum.
func (f *Fetcher) unpack(ctx context.Context, j job, it *item, src io.Reader, durable bool) error {
	b := &body{ctx: ctx, src: src, hash: j.sum.hash()}
	var err error
	if j.tree {
		err = f.store.writeTree(ctx, it, b, j.owner)
	} else {
		err = f.store.writeArchive(ctx, it, b, durable)
	}
	it.Downloaded = b.n
	var wrong *archive.Error
	if errors.As(err, &wrong) && b.hash != nil {
		// An archive that is broken because the download is, is no fault of who made it.
		if _, err := io.Copy(io.Discard, b); err != nil {
			return err
		}
		if err := j.sum.check(b.hash); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return j.sum.check(b.hash)
}

// body is the body of an answer: counted, bounded, and summed up.
type body struct {
	ctx  context.Context
	src  io.Reader
	n    int64
	hash hash.Hash // nil: none
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	if b.n += int64(n); b.n > MaxDownload {
		return 0, fmt.Errorf("the download has more than %d bytes", int64(MaxDownload))
	}
	if b.hash != nil {
		b.hash.Write(p[:n])
	}
	if err != nil && err != io.EOF {
		err = &transient{explain(b.ctx, err)}
	}
	return n, err
}

// bufferBytes is the buffer of a file that is written.
const bufferBytes = 256 << 10

// writeArchive writes an archive as a plain tar file, which is on the disk when it has to be durable.
func (s *store) writeArchive(ctx context.Context, it *item, src io.Reader, durable bool) error {
	file, err := os.OpenFile(it.archive(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer file.Close()
	buffer := bufio.NewWriterSize(file, bufferBytes)
	room := s.room(it)
	if err := archive.Read(ctx, src, archive.NewTar(buffer, room), it.dir, room); err != nil {
		return err
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	if durable {
		if err := file.Sync(); err != nil {
			return err
		}
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	it.Size = info.Size()
	return file.Close()
}

// writeTree unpacks an archive.
func (s *store) writeTree(ctx context.Context, it *item, src io.Reader, owner archive.Owner) error {
	if err := os.Mkdir(it.tree(), 0o755); err != nil {
		return err
	}
	if err := os.Chown(it.tree(), owner.UID, owner.GID); err != nil {
		return err
	}
	root, err := os.OpenRoot(it.tree())
	if err != nil {
		return err
	}
	defer root.Close()
	room := s.room(it)
	sized := func(n int64) error {
		it.Size += n
		return room(n)
	}
	return archive.Read(ctx, src, archive.NewTree(root, owner, sized), it.dir, room)
}
