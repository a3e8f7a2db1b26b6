package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/bbs/lrp"
	"muster/cells/guest/internal/helper"
	"muster/cells/guest/record"
	"muster/cells/step"
)

// Download has the cell fetch an archive, and extracts it. One that was fetched before, for an action that
// runs again, is not fetched again.
func (h *host) Download(ctx context.Context, n int, a *lrp.DownloadAction) (size int64, cached bool, err error) {
	defer h.guard()
	answer := h.inbox.last(n)
	if answer == nil || answer.Error != "" {
		if answer, err = h.want(ctx, step.Event{N: n}); err != nil {
			return 0, false, err
		}
	}
	if err := h.extract(ctx, n, a); err != nil {
		return 0, false, fmt.Errorf("Copying%s into the container failed: %w", named(" ", a.Artifact), err)
	}
	return answer.Size, answer.Cached, nil
}

func (h *host) extract(ctx context.Context, n int, a *lrp.DownloadAction) error {
	archive, err := h.inbox.archive(n)
	if err != nil {
		return err
	}
	defer unix.Close(archive)
	return h.have(ctx, helper.Untar, helper.Order{User: h.user(a.User), Dir: a.To}, archive)
}

// Upload has the cell bring a file to where it belongs, if the user of the action may read it.
func (h *host) Upload(ctx context.Context, n int, a *lrp.UploadAction) (size int64, err error) {
	defer h.guard()
	var d helper.Description
	text, err := h.read(ctx, helper.Stat, helper.Order{User: h.user(a.User), Path: a.From})
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		return 0, fmt.Errorf("Failed to establish stream from container%s: %w", named(" for ", a.Artifact), err)
	}
	answer, err := h.want(ctx, step.Event{N: n, Bytes: d.Size, Path: d.Path})
	if err != nil {
		return 0, err
	}
	return answer.Size, nil
}

// ReadFile returns the beginning of a file, at most limit bytes and one, read as the user of the action.
func (h *host) ReadFile(path string, limit int) ([]byte, error) {
	defer h.guard()
	return h.read(context.Background(), helper.Read, helper.Order{User: h.reader(), Path: path, Limit: int64(limit) + 1})
}

// want asks the cell for a file, and returns its answer, which is not an error.
func (h *host) want(ctx context.Context, e step.Event) (*record.Answer, error) {
	e.At, e.Name = time.Now(), step.Wants
	h.events.tell(e)
	got, err := h.inbox.await(ctx, e.N)
	if err == nil && got.Error != "" {
		err = errors.New(got.Error)
	}
	return got, err
}

// read returns what a helper answers.
func (h *host) read(ctx context.Context, verb helper.Verb, order helper.Order) ([]byte, error) {
	page, err := unix.MemfdCreate("answer", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	defer unix.Close(page)
	if err := h.have(ctx, verb, order, page); err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(page, &stat); err != nil {
		return nil, err
	}
	text := make([]byte, stat.Size)
	n, err := unix.Pread(page, text, 0)
	return text[:max(n, 0)], err
}

// have waits until a helper has done its work; the end of ctx ends it.
func (h *host) have(ctx context.Context, verb helper.Verb, order helper.Order, data int) error {
	a, err := h.ask(verb, order, data)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { a.child.signal(syscall.SIGKILL) })()
	return a.finish()
}

// user is who an action runs as.
func (h *host) user(given string) string {
	if given == "" {
		return h.program.User
	}
	return given
}

// reader is who reads the result file of the action: the user of all its processes, or root when there are
// several.
func (h *host) reader() string {
	users := map[string]bool{}
	step.Visit(h.program.Action, func(a *lrp.Action) {
		if a.Run != nil {
			users[h.user(a.Run.User)] = true
		}
	})
	for user := range users {
		if len(users) == 1 {
			return user
		}
	}
	return ""
}

// named puts a name that may be missing into a sentence.
func named(before, name string) string {
	if name == "" {
		return ""
	}
	return before + name
}
