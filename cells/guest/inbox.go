package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/cells/guest/record"
)

// lookEvery is how often an awaited answer is looked for without a signal.
const lookEvery = time.Second

// inbox is where the cell puts its answers.
type inbox struct {
	dir string

	mu   sync.Mutex
	news chan struct{}          // closed when there may be something new
	read map[int]*record.Answer // last answer to each want
	seen map[int]fs.FileInfo
}

func newInbox(dir string) *inbox {
	return &inbox{dir: dir, news: make(chan struct{}), read: map[int]*record.Answer{}, seen: map[int]fs.FileInfo{}}
}

// look makes all who wait look.
func (b *inbox) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.news)
	b.news = make(chan struct{})
}

// await returns the answer to the nth want: one that has not been returned before.
func (b *inbox) await(ctx context.Context, n int) (*record.Answer, error) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		b.mu.Lock()
		news := b.news
		got, err := b.take(n)
		b.mu.Unlock()
		if got != nil || err != nil {
			return got, err
		}
		select {
		case <-news:
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take returns the answer to the nth want if there is a new one. Each answer is another file: the cell renames
// it into place.
func (b *inbox) take(n int) (*record.Answer, error) {
	path := filepath.Join(b.dir, fmt.Sprintf("%d.json", n))
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || b.seen[n] != nil && os.SameFile(info, b.seen[n]) {
		return nil, err
	}
	got := &record.Answer{}
	if err := json.NewDecoder(file).Decode(got); err != nil {
		return nil, fmt.Errorf("answer of the cell in %s: %w", path, err)
	}
	b.seen[n], b.read[n] = info, got
	return got, nil
}

// last returns the answer to the nth want that was returned last; nil if there was none.
func (b *inbox) last(n int) *record.Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read[n]
}

// archive opens the file that came with the answer to the nth want.
func (b *inbox) archive(n int) (int, error) {
	path := filepath.Join(b.dir, fmt.Sprintf("%d.tar", n))
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}
