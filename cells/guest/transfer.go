package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"muster/bbs/lrp"
	"muster/cells/guest/record"
	"muster/cells/step"
)

// lookEvery is how often the inbox is looked into while something is awaited: a signal may be lost.
const lookEvery = time.Second

// inbox is where the answers to transfers come.
type inbox struct {
	dir string

	mu   sync.Mutex
	news chan struct{} // closed and replaced when somebody should look
}

func newInbox(dir string) *inbox { return &inbox{dir: dir, news: make(chan struct{})} }

// look wakes all who wait.
func (b *inbox) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.news)
	b.news = make(chan struct{})
}

func (b *inbox) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.news
}

func (b *inbox) archive(n int) string { return filepath.Join(b.dir, strconv.Itoa(n)+".tar") }

// wait returns the answer to a transfer, once it is there.
func (b *inbox) wait(ctx context.Context, n int) (record.Answer, error) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		news := b.next()
		text, err := os.ReadFile(filepath.Join(b.dir, strconv.Itoa(n)+".json"))
		if err == nil {
			var answer record.Answer
			err := json.Unmarshal(text, &answer)
			if err == nil && answer.Error != "" {
				err = errors.New(answer.Error)
			}
			return answer, err
		}
		if !errors.Is(err, os.ErrNotExist) {
			return record.Answer{}, err
		}
		select {
		case <-news:
		case <-ticker.C:
		case <-ctx.Done():
			return record.Answer{}, ctx.Err()
		}
	}
}

// Download waits for an archive and extracts it.
func (g *guest) Download(ctx context.Context, n int, a *lrp.DownloadAction) (int64, bool, error) {
	g.Tell(step.Event{At: time.Now(), Name: step.Wants, N: n})
	answer, err := g.inbox.wait(ctx, n)
	if err != nil {
		return 0, false, err
	}
	if err := g.extract(n, a); err != nil {
		return 0, false, fmt.Errorf("Copying %s into the container failed: %w", a.Artifact, err)
	}
	return answer.Size, answer.Cached, nil
}

func (g *guest) extract(n int, a *lrp.DownloadAction) error {
	archive, err := os.Open(g.inbox.archive(n))
	if err != nil {
		return err
	}
	defer archive.Close()
	_, err = g.do(order{User: a.User, Dir: a.To, Untar: true}, archive)
	return err
}

// Upload waits until the cell has fetched a file, which the user must be able to read.
func (g *guest) Upload(ctx context.Context, n int, a *lrp.UploadAction) (int64, error) {
	size, err := g.do(order{User: a.User, Look: a.From}, nil)
	if err != nil {
		return 0, fmt.Errorf("Uploading %s failed: %w", a.Artifact, err)
	}
	bytes, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, err
	}
	g.Tell(step.Event{At: time.Now(), Name: step.Wants, N: n, Path: a.From, Bytes: bytes})
	answer, err := g.inbox.wait(ctx, n)
	return answer.Size, err
}

// look reports the size of a file that this process can read.
func look(name string) (string, error) {
	file, err := openRegular(name)
	if err != nil {
		return "", fmt.Errorf("file %q: %w", name, why(err))
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(info.Size(), 10), nil
}

// ReadFile returns a file of the container.
func (g *guest) ReadFile(name string, limit int) ([]byte, error) {
	file, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, int64(limit)+1))
}
